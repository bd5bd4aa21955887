"""A disk that is full, at every place that is written: a clean no, nothing half-stored, and health by itself.

The disks are small tmpfs mounts that are filled to the last page; where this process may not mount, those
tests say so. What needs no mount holds the same promises there: SQLite's own page limit gives a real
SQLITE_FULL, and the kernel's limit on a file's size ends a write as a quota would.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.crash_points import CrashPoint
from app.errors import StorageUnavailable
from app.storage import Storage, content_key
from db.ingress.sqlite import SqliteIngress
from db.session import DatabaseUnavailable
from db.tables import Asset, Delivery, Job
from tests.flow.conftest import OpenStage, Stage, as_data_uri, open_stage, tone

SMALL = 4 * 1024 * 1024
CLIP = tone(8.0)
"""128 kB of WAV."""


class Disk:
    """A mounted tmpfs that can be filled up to a rest, and emptied again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, left_bytes: int = 0) -> None:
        """Leave `left_bytes`, to the page; everything when that is 0."""
        free = shutil.disk_usage(self.path).free - left_bytes
        with self._ballast.open("ab") as ballast:
            if free > 0:
                os.posix_fallocate(ballast.fileno(), ballast.tell(), free)

    def empty(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"this process may not mount a tmpfs: {mounted.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=10)


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Within the block no file of this process may grow past a size: writes end with EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def hook(line: Stage, prediction_id: str, message_id: str, **more: object) -> httpx.Response:
    row = line.fake.predictions[prediction_id] | {"status": "succeeded", **more}
    body = json.dumps(row).encode()
    attempt_id = (await line.attempts())[-1].id
    return await line.post(attempt_id, body, line.fake.signed(message_id, body))


async def asked(line: Stage) -> httpx.Response:
    return await line.client.post(
        "/v1/jobs", json={"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
    )


def is_refused(reply: httpx.Response) -> None:
    """503 with the time to come back."""
    assert reply.status_code == 503, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["code"] == "storage_unavailable"
    assert int(reply.headers["retry-after"]) == reply.json()["retry_after_s"] > 0


async def test_a_database_on_a_full_disk_takes_nothing_and_heals(
    tmp_path: Path, sqlite_url: str, disk: Disk
) -> None:
    """Fault 43: SQLite's log cannot grow, so nothing is acknowledged; with room again everything is."""
    shutil.copy(tmp_path / "reprise.db", disk.path / "reprise.db")
    url = f"sqlite+aiosqlite:///{disk.path}/reprise.db"
    async with open_stage(tmp_path, url, min_free_bytes=0) as line:
        job_id, prediction_id = await line.start()
        before = await line.count(Job), await line.count(Delivery)
        disk.fill()
        for number in range(3):
            is_refused(await asked(line))
            is_refused(await hook(line, prediction_id, f"msg_{number}", logs="x" * 200_000))
        assert (await line.count(Job), await line.count(Delivery)) == before
        assert await line.state(job_id) == "running", "reading goes on"
        disk.empty()
        assert (await hook(line, prediction_id, "msg_0", output=as_data_uri(tone()))).status_code == 200
        assert (await asked(line)).status_code == 202
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        assert await line.count(Delivery) == before[1] + 1


async def test_a_database_that_may_not_grow_takes_nothing_and_heals(sqlite_line: Stage) -> None:
    """Fault 43, without a mount: SQLite says SQLITE_FULL at its own page limit, on both ways in."""
    line = sqlite_line
    await line.start()  # both connections are open by now
    await hook(line, next(iter(line.fake.predictions)), "msg_first", status="processing")
    await line.drain()
    ingress = line.runtime.inbox._ingress
    assert isinstance(ingress, SqliteIngress)

    async def limit(pages: int) -> None:
        async with line.runtime.line.database.transaction() as tx:
            await tx.execute(text(f"PRAGMA max_page_count={pages}"))
        await asyncio.wrap_future(
            ingress._thread.submit(lambda: ingress._connection.execute(f"PRAGMA max_page_count={pages}"))  # type: ignore[union-attr]
        )

    job_id, prediction_id = await line.start()
    await limit(1)  # as many as there are
    before = await line.count(Job), await line.count(Delivery)
    for number in range(50):
        is_refused(await hook(line, prediction_id, f"msg_{number}", logs="x" * 200_000))
    refused = [reply.status_code for reply in [await asked(line) for _ in range(50)]]
    taken = refused.count(202)
    assert set(refused) == {202, 503}, "pages that are there already take some"
    assert (await line.count(Job), await line.count(Delivery)) == (before[0] + taken, before[1])
    await limit(2**30)
    assert (await hook(line, prediction_id, "msg_0", output=as_data_uri(tone()))).status_code == 200
    assert (await asked(line)).status_code == 202
    await line.drain()
    assert await line.state(job_id) == "succeeded"


@pytest.mark.parametrize("left_bytes", [0, 16_384, 150_000], ids=["download", "half", "ffmpeg"])
async def test_no_room_for_temporary_files_lets_the_job_wait(
    stage_on_sqlite: OpenStage, disk: Disk, left_bytes: int
) -> None:
    """Fault 43: the download, then ffmpeg's own output, meet the end of the disk; neither blames the clip."""
    async with stage_on_sqlite(var_dir=disk.path, min_free_bytes=0) as line:
        job_id, prediction_id = await line.start()
        disk.fill(left_bytes=left_bytes)
        await line.fake.finish(prediction_id, output=as_data_uri(CLIP))
        await line.drain()
        await waits_for_room(line, job_id)
        root = line.runtime.bench.workspace.root
        assert [path.name for path in root.iterdir()] == ["lock"]
        disk.empty()
        await succeeds(line, job_id)


@pytest.mark.parametrize("left_bytes", [0, 8_192, 65_536, 127_000])
async def test_no_room_in_the_store_lets_the_job_wait(
    stage_on_sqlite: OpenStage, disk: Disk, left_bytes: int
) -> None:
    """Fault 43: the object meets the end of the disk; half of it is never left, nor pointed at."""
    assets = disk.path / "assets"
    async with stage_on_sqlite(storage_url=f"file://{assets}", min_free_bytes=0) as line:
        job_id, prediction_id = await line.start()
        disk.fill(left_bytes=left_bytes)
        await line.fake.finish(prediction_id, output=as_data_uri(CLIP))
        await line.drain()
        await waits_for_room(line, job_id)
        assert [path for path in assets.rglob("*") if path.is_file()] == []
        disk.empty()
        await succeeds(line, job_id)


async def test_a_full_disk_at_the_last_commit_leaves_the_job_to_be_finished_again(
    tmp_path: Path, sqlite_url: str, disk: Disk
) -> None:
    """Fault 43: the object is stored, the row cannot be; however often, that is no crash of the clip's."""
    shutil.copy(tmp_path / "reprise.db", disk.path / "reprise.db")
    url = f"sqlite+aiosqlite:///{disk.path}/reprise.db"
    full: list[CrashPoint] = []

    def fill(point: CrashPoint) -> None:
        if point is CrashPoint.OUTPUT_STORED and len(full) < 5:
            full.append(point)
            disk.fill()

    async with open_stage(tmp_path, url, min_free_bytes=0, ports={"reach": fill}) as line:
        job_id, prediction_id = await line.start()
        await line.fake.finish(prediction_id, output=as_data_uri(CLIP))
        await line.runtime.inbox.step((await line.rows(Delivery))[-1].id)
        for _ in range(5):
            with pytest.raises(DatabaseUnavailable):
                await line.runtime.finisher.step(job_id)
            assert await line.state(job_id) == "finishing"
            assert await line.count(Asset) == 0
            disk.empty()
            await line.hurry()
            # The lease could not be given back, but has run out by then.
            await line.change(Job, job_id, lease_until=datetime.now(UTC) - timedelta(seconds=1))
        await succeeds(line, job_id)


async def test_ready_says_no_and_new_jobs_are_refused_before_the_disk_is_full(
    tmp_path: Path, sqlite_url: str, disk: Disk
) -> None:
    """Fault 43: below MIN_FREE_BYTES what is under way still comes to its end."""
    async with open_stage(tmp_path, sqlite_url, var_dir=disk.path, min_free_bytes=SMALL // 2) as line:
        job_id, prediction_id = await line.start()
        disk.fill(left_bytes=SMALL // 4)
        ready = await line.client.get("/readyz")
        assert ready.status_code == 503
        check = ready.json()["checks"]["disk"]
        assert not check["ok"]
        assert "var" in check["detail"]
        assert 0 < check["free_bytes"]["var"] < SMALL // 2
        refused = await asked(line)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        assert await line.count(Job) == 1
        await line.fake.finish(prediction_id, output=as_data_uri(CLIP))
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        disk.empty()
        assert (await line.client.get("/readyz")).json()["checks"]["disk"]["ok"]
        assert (await asked(line)).status_code == 202


async def test_an_object_past_a_limit_on_its_size_is_not_half_stored(tmp_path: Path) -> None:
    """Fault 43, without a mount: the write ends midway, as at the end of a quota."""
    storage = Storage(f"file://{tmp_path}/assets")
    source = tmp_path / "source"
    source.write_bytes(CLIP)
    key = content_key("ab" * 32, ".wav")
    for put in (storage.put(source, key, size_bytes=len(CLIP)), storage.put_bytes(CLIP, key)):
        with largest_file(65_536), pytest.raises(StorageUnavailable, match="no space is left"):
            await put
        assert [path for path in (tmp_path / "assets").rglob("*") if path.is_file()] == []
    await storage.put(source, key, size_bytes=len(CLIP))
    assert await storage.size(key) == len(CLIP)


def test_a_full_disk_under_the_log_ends_nothing() -> None:
    """Fault 43: lines are lost, the process is not."""
    program = (
        "import structlog\nfrom app.logs import configure_logs\nconfigure_logs('json', 'info')\n"
        "for number in range(10_000): structlog.get_logger().info('job.submitted', number=number)\n"
        "print('alive')"
    )
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE, stderr=full, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert ended.stdout == "alive\n"


async def waits_for_room(line: Stage, job_id: str) -> None:
    """Alive, with the reason, and counted as no crash."""
    job = await line.read(job_id)
    assert (job["state"], job["error"]) == ("finishing", None)
    assert "space" in job["waiting_reason"].lower(), job["waiting_reason"]
    assert (await line.rows(Job))[0].crashes == 0
    assert await line.count(Asset) == 0


async def succeeds(line: Stage, job_id: str) -> None:
    await line.hurry()
    await line.drain()
    job = await line.read(job_id)
    assert (job["state"], job["error"]) == ("succeeded", None)
    output = job["outputs"]["audio"]
    assert len((await line.client.get(output["url"])).content) == output["size_bytes"]
