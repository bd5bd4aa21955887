"""SIGKILL between a row and its object, in both directions: no row points at nothing, no object stays."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.crash_points import CrashPoint
from app.housekeeping import OWNER_KEY
from tests.conftest import TEMPLATE, PostgresServer
from tests.crash.child import EFFECT, Child, until

pytestmark = pytest.mark.real
GONE_LIMIT_S = 40.0
OFTEN = {"HOUSEKEEPING_INTERVAL_S": "0.2", "ORPHAN_INTERVAL_S": "0.2"}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = f"crash_{secrets.token_hex(6)}"
    server.create(name, TEMPLATE)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
async def child(tmp_path: Path, database: str) -> AsyncIterator[Child]:
    """A service whose rounds come often, and delete nothing that is not an orphan."""
    child = Child(tmp_path, DATABASE_URL=database, LEASE_S="1", **OFTEN)
    yield child
    await child.aclose()


def objects(child: Child) -> list[Path]:
    found = (path for path in (child.folder / "assets").rglob("*") if path.is_file())
    return [path for path in found if path.name != OWNER_KEY]


async def ask(database: str, *statements: str) -> list[int]:
    """Run statements behind everybody's back; the first figure that each gives."""
    url = make_url(database)
    if url.get_backend_name() == "sqlite":
        with sqlite3.connect(str(url.database)) as own:
            found = [own.execute(statement).fetchone() for statement in statements]
        own.close()
    else:
        connection = await asyncpg.connect(
            host=url.host, port=url.port, user=url.username, database=url.database
        )
        found = [await connection.fetchrow(statement) for statement in statements]
        await connection.close()
    return [row[0] if row else 0 for row in found]


async def test_what_was_stored_for_a_job_that_ended_otherwise_is_swept(child: Child, database: str) -> None:
    """Fault 45: killed between upload and commit, and the job never comes back to its bytes."""
    await child.start()
    child.arm(CrashPoint.OUTPUT_STORED)
    job_id, _ = await asyncio.gather(child.submit(), child.dies())
    assert len(objects(child)) == 1
    await ask(
        database,
        "UPDATE jobs SET state = 'failed', finished_at = created_at, lease = NULL",
        "UPDATE attempts SET status = 'failed'",
    )
    child.set(ORPHAN_AGE_S="0")
    await child.start()
    await until(lambda: not objects(child), GONE_LIMIT_S)
    assert (await child.client.get(f"/v1/jobs/{job_id}")).json()["state"] == "failed"
    assert await ask(database, "SELECT count(*) FROM assets") == [0]


@pytest.mark.parametrize("point", [CrashPoint.OBJECTS_DOOMED, CrashPoint.OBJECTS_REMOVED])
async def test_what_has_expired_is_gone_after_a_kill_at(
    child: Child, database: str, point: CrashPoint
) -> None:
    """Fault 45: killed between the rows' deletion and the objects', and again after it."""
    await child.start()
    kept = await child.ended(str(await child.submit({**EFFECT, "metadata": {"stays": True}})))
    other = await child.ended(str(await child.submit({**EFFECT, "input": {**EFFECT["input"], "seed": 8}})))
    for job in (kept, other):
        outline = await child.client.get(f"/v1/assets/{job['outputs']['audio']['asset_id']}/peaks")
        assert outline.status_code == 200
    assert len(objects(child)) == 4
    await child.stop()
    past = "'2020-01-01 00:00:00'"
    await ask(database, f"UPDATE jobs SET expires_at = {past} WHERE id = '{other['id']}'")
    child.set(RETENTION_S="86400")
    child.arm(point)
    await child.spawn()
    await child.dies()
    assert await ask(database, "SELECT count(*) FROM jobs", "SELECT count(*) FROM assets") == [1, 1]
    assert len(objects(child)) == (4 if point is CrashPoint.OBJECTS_DOOMED else 2)
    await child.start()
    await until(lambda: len(objects(child)) == 2, GONE_LIMIT_S)
    await child.assert_succeeded_once(kept)
    await until_removed(database)


async def until_removed(database: str) -> None:
    async with asyncio.timeout(GONE_LIMIT_S):
        while await ask(database, "SELECT count(*) FROM tombstones WHERE removed_at IS NULL") != [0]:
            await asyncio.sleep(0.02)
