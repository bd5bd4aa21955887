"""A short round of `scripts/fuzz`: the readers of foreign bytes against whatever hypothesis thinks of."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzzing import TARGETS


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_a_reader_of_foreign_bytes_keeps_its_promise(name: str) -> None:
    """Faults 2, 4, 25, 26, 30, 38, 59."""
    checks = list(HealthCheck)
    settings(max_examples=150, deadline=None, suppress_health_check=checks, database=None)(TARGETS[name])()
