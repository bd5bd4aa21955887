"""The folder, the database and the child process of one crash test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.child import Child


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    """A service that lives in this test's folder, with the embedded worker, on SQLite; not started yet."""
    child = Child(tmp_path)
    yield child
    await child.aclose()
