"""The power is cut: what was acknowledged is in what the disk had been made to keep, and in nothing else.

A preloaded shim (`platter.c`) copies the database and its log at every sync; what was written and not synced
is not in the copies. After each round of acknowledgements they are put aside and opened as SQLite would open
them after the cut, also with a torn piece of what had been written since. Needs a C compiler.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import becomes
from tests.crash.child import Child
from tests.fakes.provider import SECRET, FakeReplicate

pytestmark = pytest.mark.real

ROUNDS = 12
LARGE_ROUND = 6
"""The round whose webhooks fill the log, so that it is copied back while others are acknowledged."""
ONE_COMMIT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute(f"PRAGMA synchronous={sys.argv[2]}")
connection.execute("CREATE TABLE kept (name TEXT)")
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.execute("INSERT INTO kept VALUES ('acknowledged')")
print("acknowledged", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the power-cut model needs a C compiler, and Linux")
    target = tmp_path_factory.mktemp("shim") / "platter.so"
    source = Path(__file__).with_name("platter.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", target, source, "-ldl"], check=True)
    return target


def watched(shim: Path, folder: Path) -> dict[str, str]:
    (folder / "platter").mkdir()
    return {
        "LD_PRELOAD": str(shim),
        "PLATTER_OF": f"{folder}/reprise.db",
        "PLATTER": f"{folder}/platter",
    }


@pytest.mark.parametrize(("synchronous", "survives"), [("FULL", True), ("NORMAL", False), ("OFF", False)])
def test_the_model_tells_a_synced_commit_from_one_that_only_the_kernel_has(
    shim: Path, tmp_path: Path, synchronous: str, survives: bool
) -> None:
    """Fault 48, its yardstick: a commit that was acknowledged without a sync is gone."""
    process = subprocess.Popen(
        [sys.executable, "-c", ONE_COMMIT, str(tmp_path / "reprise.db"), synchronous],
        env={**os.environ, **watched(shim, tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"acknowledged\n"
        cut = shutil.copytree(tmp_path / "platter", tmp_path / "cut")
        process.kill()
    try:
        found = rows(cut, "SELECT name FROM kept")
    except sqlite3.OperationalError:
        found = set()  # not even the table
    assert found == ({"acknowledged"} if survives else set())


@dataclass(frozen=True, slots=True)
class Cut:
    """The disk at one moment, and what had been acknowledged before it."""

    folder: Path
    jobs: frozenset[str]
    deliveries: frozenset[str]


@pytest.fixture
async def service(shim: Path, tmp_path: Path) -> AsyncIterator[Child]:
    child = Child(
        tmp_path,
        REPLICATE_API_TOKEN="r8_none",
        REPLICATE_BASE_URL="http://127.0.0.1:1",
        REPLICATE_WEBHOOK_SECRET=SECRET,
        # The copies take their time, and nobody is to be refused for that.
        DB_POOL_TIMEOUT="30",
        SWEEP_INTERVAL_S="60",
        **watched(shim, tmp_path),
    )
    await child.start()
    yield child
    await child.aclose()


async def test_after_a_power_cut_at_any_moment_every_acknowledged_webhook_and_job_is_there(
    service: Child, tmp_path: Path
) -> None:
    """Fault 48: the disk holds what was synced, and perhaps a piece of what came after."""
    dice = random.Random(48)
    provider = FakeReplicate(secret=SECRET)
    jobs: set[str] = set()
    deliveries: set[str] = set()
    cuts: list[Cut] = []
    for number in range(ROUNDS):
        size = 900_000 if number == LARGE_ROUND else 2_000
        told = [tell(service, provider, f"msg-{number}-{each}", size) for each in range(20)]
        *acknowledged, job_id = await asyncio.gather(*told, service.submit(key=f"key-{number}"))
        assert job_id is not None
        jobs.add(job_id)
        deliveries.update(acknowledged)
        for torn in (False, True):
            folder = _cut(tmp_path, f"cut-{number}-{torn}", dice if torn else None)
            cuts.append(Cut(folder, frozenset(jobs), frozenset(deliveries)))
    # The log is copied back, however long a busy machine takes for it.
    copied = tmp_path / "platter" / "reprise.db"
    await becomes(lambda: copied.stat().st_size > 15_000_000, within_s=90)
    await service.kill()
    for cut in cuts:
        assert rows(cut.folder, "PRAGMA integrity_check") == {"ok"}, cut.folder
        assert cut.jobs <= rows(cut.folder, "SELECT id FROM jobs"), cut.folder
        assert cut.deliveries <= rows(cut.folder, "SELECT id FROM deliveries"), cut.folder


async def tell(service: Child, provider: FakeReplicate, message_id: str, size: int) -> str:
    """Post a signed webhook of an attempt that nobody knows; the delivery's id, once acknowledged."""
    body = b'{"id": "%s", "status": "processing", "logs": "%s"}' % (message_id.encode(), b"x" * size)
    path = "/v1/webhooks/replicate/att_unknown?token=none"
    reply = await service.client.post(path, content=body, headers=provider.signed(message_id, body))
    assert reply.status_code == httpx.codes.OK, reply.text
    return str(reply.json()["delivery_id"])


def _cut(folder: Path, name: str, dice: random.Random | None) -> Path:
    """The disk as it would be now; with dice, a torn piece of the log's unsynced end is there as well."""
    cut = folder / name
    shutil.copytree(folder / "platter", cut, ignore=lambda _, names: [n for n in names if n[-1].isdigit()])
    log = cut / "reprise.db-wal"
    if dice is not None and log.exists():
        written = (folder / "reprise.db-wal").read_bytes()
        synced = log.read_bytes()
        if written.startswith(synced) and len(written) > len(synced):
            log.write_bytes(written[: dice.randint(len(synced), len(written))])
        else:
            with log.open("ab") as torn:
                torn.write(dice.randbytes(dice.randint(1, 9000)))
    return cut


def rows(folder: Path, query: str) -> set[str]:
    """What a fresh SQLite finds in there; its shared memory was in the memory, and is gone."""
    connection = sqlite3.connect(folder / "reprise.db")
    try:
        return {row[0] for row in connection.execute(query)}
    finally:
        connection.close()
