"""What reading a large body may cost: bounded before it is read."""

from __future__ import annotations

import json
import time

import pytest

from app.errors import ProviderBadResponse
from app.provider.base import LARGE_BYTES, MOST_VALUES, understand
from app.provider.cog import Cog


@pytest.fixture
def cog() -> Cog:
    return Cog(urls={"*": "http://127.0.0.1:9"})


@pytest.mark.parametrize("unit", [b"[],", b'{"a":1},', b"0,"])
async def test_a_body_of_too_many_values_is_refused_unread(cog: Cog, unit: bytes) -> None:
    """Fault 54: it would take gigabytes, and whoever reads it with them."""
    body = b'{"status":"succeeded","output":[' + unit * (MOST_VALUES + 1) + b"0]}"
    began = time.process_time()
    with pytest.raises(ProviderBadResponse, match="values"):
        await understand(cog, body)
    assert time.process_time() - began < 1, "counting is all that was done"


async def test_a_large_body_of_few_values_is_read(cog: Cog) -> None:
    """Fault 59: 30 MB of a log full of progress bars, and audio as text, are usual."""
    bars = "\n".join(f"{n}%|###| {n}/400000 [00:01<00:10, 2.1it/s]" for n in range(400_000))
    body = json.dumps({"status": "succeeded", "output": "data:audio/wav;base64,AAAA", "logs": bars}).encode()
    assert len(body) > LARGE_BYTES
    assert (await understand(cog, body)).status == "succeeded"
