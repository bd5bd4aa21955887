"""Large files by the Python client: in many requests, and from where the service has them after every cut."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app import client as reprise
from app.client import calls
from app.crash_points import CrashPoint
from app.intake.resumable.pieces import PIECE_BYTES
from db.tables import Asset, PartialUpload, Upload
from tests.conftest import make_settings
from tests.flow.client_ground import Ground, ground_on
from tests.flow.conftest import OpenStage, tone
from tests.flow.test_tus import pieces

LONG = tone(600.0)
"""9.6 MB."""
SHA256 = hashlib.sha256(LONG).hexdigest()


@dataclass
class Moments:
    """What a service does at named moments, while it works."""

    acts: dict[CrashPoint, Callable[[], object]] = field(default_factory=dict)

    def __call__(self, point: CrashPoint) -> None:
        self.acts.pop(point, lambda: None)()


@pytest.fixture
def moments() -> Moments:
    return Moments()


@pytest.fixture(params=["blocking", "async"])
async def ground(
    request: pytest.FixtureRequest, stage_on_sqlite: OpenStage, moments: Moments
) -> AsyncIterator[Ground]:
    async with stage_on_sqlite(ports={"reach": moments}) as stage, ground_on(stage, request.param) as ground:
        yield ground


def offsets(ground: Ground) -> list[int]:
    """Where each request that brought bytes began."""
    return [int(each.headers["upload-offset"]) for each in ground.front.asked("PATCH", "")]


async def test_a_large_file_goes_on_from_where_it_was_cut(
    ground: Ground, moments: Moments, tmp_path: Path
) -> None:
    """Fault 33."""
    path = tmp_path / 'a "song", of mine\n.wav'
    path.write_bytes(LONG)
    moments.acts[CrashPoint.PIECE_COUNTED] = ground.proxy.reset
    sent: list[tuple[int, int | None]] = []
    upload = await ground.client.uploads.create(path, progress=lambda *figures: sent.append(figures))
    assert (upload.sha256, upload.size_bytes, upload.duration_s) == (SHA256, len(LONG), 600.0)
    assert len(ground.front.asked("POST", "/v1/uploads")) == 1
    first, *later = offsets(ground)
    assert first == 0
    assert later
    assert all(at >= PIECE_BYTES for at in later), "what had come was not sent again"
    assert sent[-1] == (len(LONG), len(LONG))
    assert {total for _, total in sent} == {len(LONG)}
    assert (await ground.stage.count(Asset), pieces(ground.stage)) == (1, [])


async def test_an_end_that_nobody_was_told_is_found(ground: Ground) -> None:
    """Fault 19: the last bytes came, the upload was stored, and the answer was lost."""
    ground.front.lose("PATCH", "")
    upload = await ground.client.uploads.create(io.BytesIO(LONG))
    assert upload.sha256 == SHA256
    assert len(offsets(ground)) == 1
    assert await ground.stage.count(Upload) == 1


async def test_a_lost_answer_to_its_beginning_begins_no_second_upload(ground: Ground) -> None:
    """Fault 19."""
    ground.front.lose("POST", "/v1/uploads")
    assert (await ground.client.uploads.create(io.BytesIO(LONG))).sha256 == SHA256
    asked = ground.front.asked("POST", "/v1/uploads")
    assert len({each.headers["idempotency-key"] for each in asked}) == 1
    assert (await ground.stage.count(Upload), await ground.stage.count(PartialUpload)) == (1, 0)


async def test_what_stands_in_the_way_for_now_is_waited_for(ground: Ground) -> None:
    ground.front.refuse("PATCH", "", 423, body='{"code": "upload_locked"}')
    ground.front.refuse("PATCH", "", 503, retry_after="0")
    ground.front.refuse("PATCH", "", 429, retry_after="0")
    assert (await ground.client.uploads.create(io.BytesIO(LONG))).sha256 == SHA256
    assert len(offsets(ground)) == 4


async def test_a_key_of_ones_own_makes_one_upload_over_many_calls(ground: Ground) -> None:
    own = [await ground.client.uploads.create(io.BytesIO(LONG), idempotency_key="song") for _ in range(2)]
    assert own[0] == own[1]
    assert len(offsets(ground)) == 1, "the second call had nothing to send"
    with pytest.raises(reprise.InvalidInput, match="another request"):
        await ground.client.uploads.create(io.BytesIO(LONG[:-1] + b"\1"), idempotency_key="song")


async def test_an_interrupted_program_goes_on_by_its_key(ground: Ground) -> None:
    class Broken(io.BytesIO):
        """Can be read once, and then to its middle."""

        limit = 1 << 40

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > self.limit:
                raise OSError("the disk is gone")
            if self.tell() + (size or 0) >= len(LONG):
                self.limit = 2 * PIECE_BYTES
            return super().read(size)

    with pytest.raises(OSError, match="the disk is gone"):
        await ground.client.uploads.create(Broken(LONG), idempotency_key="song")
    assert (await ground.client.uploads.create(io.BytesIO(LONG), idempotency_key="song")).sha256 == SHA256
    assert offsets(ground)[0] == 0
    assert offsets(ground)[-1] >= PIECE_BYTES


async def test_a_file_is_read_in_small_pieces_and_what_changes_is_no_upload(ground: Ground) -> None:
    class Watched(io.BytesIO):
        most_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            self.most_bytes = max(self.most_bytes, 1 << 40 if size is None or size < 0 else size)
            return super().read(size)

    class Changing(io.BytesIO):
        """Another file from the second reading on."""

        read_bytes = 0

        def read(self, size: int | None = -1) -> bytes:
            piece = super().read(size)
            self.read_bytes += len(piece)
            return piece if self.read_bytes <= len(LONG) or self.tell() < len(LONG) else piece[:-1] + b"\1"

    class Emptied(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b""

    file = Watched(LONG)
    assert (await ground.client.uploads.create(file)).sha256 == SHA256
    assert 0 < file.most_bytes <= 256 * 1024
    with pytest.raises(reprise.InvalidInput, match="changed while it was sent"):
        await ground.client.uploads.create(Changing(LONG))
    with pytest.raises(reprise.InvalidInput, match="ended after 0 of its"):
        await ground.client.uploads.create(Emptied(LONG))


async def test_a_service_that_knows_no_such_uploads_gets_the_file_whole(ground: Ground) -> None:
    ground.front.refuse("POST", "/v1/uploads", 415, body='{"code": "unsupported_media_type"}')
    assert (await ground.client.uploads.create(io.BytesIO(LONG))).sha256 == SHA256
    _, whole = ground.front.asked("POST", "/v1/uploads")
    assert whole.headers["content-type"].startswith("multipart/form-data")


async def test_what_is_no_sound_or_too_large_is_said(ground: Ground) -> None:
    with pytest.raises(reprise.InvalidInput, match="it looks like text") as refused:
        await ground.client.uploads.create(io.BytesIO(b"no sound at all " * (calls.RESUMED_BYTES // 10)))
    assert (refused.value.status, refused.value.field) == (422, "file")
    with pytest.raises(reprise.InvalidInput, match="at most 95000000 bytes") as large:
        await ground.client.uploads.create(_Long(95_000_001))
    assert large.value.status == 413


class _Long(io.BytesIO):
    """A file of so many zeros, of which none is kept."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._size_bytes, self._at = size_bytes, 0

    def tell(self) -> int:
        return self._at

    def seek(self, at: int, whence: int = 0) -> int:
        self._at = at if whence == 0 else self._size_bytes + at
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = self._size_bytes - self._at
        piece = bytes(left if size is None or size < 0 else min(size, left))
        self._at += len(piece)
        return piece


def test_the_client_asks_for_less_than_a_service_takes_at_once(tmp_path: Path) -> None:
    assert make_settings(tmp_path).max_content_length / 2 > calls.MOST_PIECE_BYTES
