"""Nobody gets a connection: every caller hears so within seconds, and all is well as soon as one is free."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from sqlalchemy import text

from app.settings import Settings
from tests.flow.conftest import OpenStage, Stage

CALLERS = 20
PROMISED_S = 5.0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_an_exhausted_pool_is_a_503_within_five_seconds_and_nobody_hangs(stage_on: OpenStage) -> None:
    """Fault 49: pool exhausted, with the wait that is the default."""
    wait_s = Settings.model_fields["db_pool_timeout"].default
    async with stage_on(db_pool_size=2, db_max_overflow=0, db_pool_timeout=wait_s) as stage:
        database = stage.runtime.line.database
        await asyncio.gather(_ask(stage), _ask(stage))
        async with database.transaction() as one, database.reading() as other:
            await asyncio.gather(one.execute(text("SELECT 1")), other.execute(text("SELECT 1")))
            assert wait_s < PROMISED_S
            async with asyncio.timeout(3 * PROMISED_S):  # a hang is for ever; a busy machine is not
                answers = await asyncio.gather(*(_ask(stage) for _ in range(CALLERS)))
        assert {reply.status_code for reply in answers} == {503}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in answers)
        # They stand in one line, and who stands behind one that waited in vain is not made to wait as well.
        assert 1 <= database.pool_figures()["timeouts"] <= 2
        assert (await _ask(stage)).status_code == 202
        assert len((await stage.client.get("/v1/jobs")).json()["items"]) == 3


async def _ask(stage: Stage) -> httpx.Response:
    wanted = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
    return await stage.client.post("/v1/jobs", json=wanted)
