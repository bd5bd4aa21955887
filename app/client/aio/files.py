"""Files in both directions, in pieces: never whole in memory, and never half in their place."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from app.client import calls
from app.client.aio.resuming import AsyncResuming, Progress
from app.client.aio.transport import AsyncTransport
from app.client.aio.waits import in_thread, sleep
from app.client.downloads import Arriving, Part, size_of
from app.client.errors import InvalidInput, RateLimited, RepriseError, Unavailable
from app.client.models import OutputFacts, Upload, parse
from app.client.streams import Envelope, Slice


class AsyncUploads:
    """`client.uploads`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        file: str | Path | BinaryIO,
        *,
        progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> Upload:
        """Send one sound file, from a path or from where an open binary file stands.

        A file that can be gone back in is sent again when the connection is cut, one of 8 MiB or more from
        where the service has it: one call makes one upload, and your own `idempotency_key` one over many.
        Raises RepriseError, OSError for what cannot be read.
        """
        if not isinstance(file, str | Path):
            name = Path(str(getattr(file, "name", "file"))).name
            return await self._send(file, name, progress, idempotency_key)
        path = Path(file)
        opened = await in_thread(path.open, "rb")
        try:
            return await self._send(opened, path.name, progress, idempotency_key)
        finally:
            await in_thread(opened.close)

    async def _send(
        self, file: BinaryIO, name: str, progress: Progress | None, idempotency_key: str | None
    ) -> Upload:
        if isinstance(file, io.TextIOBase):
            raise InvalidInput("file: open it in binary mode", field="file")
        size_bytes = await in_thread(size_of, file)
        start = None if size_bytes is None else await in_thread(file.tell)
        if size_bytes is not None and start is not None and size_bytes >= calls.RESUMED_BYTES:
            whole = Slice(file, start, size_bytes, name)
            try:
                return await AsyncResuming(self._transport, whole, progress).send(
                    idempotency_key=idempotency_key
                )
            except InvalidInput as exc:
                # A service of before there were such uploads takes it for a form.
                if exc.code != "unsupported_media_type":
                    raise
        envelope = Envelope(name, size_bytes)

        async def body() -> AsyncIterator[bytes]:
            if start is not None:
                await in_thread(file.seek, start)
            yield envelope.head
            sent_bytes = 0
            # Of a file that grows meanwhile what was there when its size was told.
            while piece := await in_thread(file.read, envelope.next_bytes(sent_bytes)):
                yield piece
                sent_bytes += len(piece)
                if progress is not None:
                    progress(sent_bytes, size_bytes)
            envelope.check(sent_bytes)
            yield envelope.tail

        call = calls.upload(
            envelope.headers, is_repeatable=start is not None, idempotency_key=idempotency_key
        )
        return parse(Upload, await self._transport.ask(call, body))


async def save(transport: AsyncTransport, output: OutputFacts, path: str | Path) -> Path:
    """Fetch an output into a file: whole and proven, or not there. Raises RepriseError, OSError."""
    place = Path(path)
    part = await in_thread(Part, place)
    try:
        await _fetch(transport, output, part.file)
        await in_thread(part.keep)
    except BaseException:
        await in_thread(part.drop)
        raise
    return place


async def read(transport: AsyncTransport, output: OutputFacts) -> bytes:
    """An output in memory, proven. Raises RepriseError."""
    target = io.BytesIO()
    await _fetch(transport, output, target)
    return target.getvalue()


async def _fetch(transport: AsyncTransport, output: OutputFacts, target: BinaryIO) -> None:
    arriving = Arriving(output, target)
    patience = transport.long_patience()
    while True:
        before = arriving.received_bytes
        try:
            await _fetch_on(transport, output, arriving)
            if arriving.is_whole:
                break
            failure: RepriseError = Unavailable("the file ended before its last byte")
        except (Unavailable, RateLimited) as exc:
            failure = exc
        if arriving.received_bytes > before:
            patience.refresh()
        wait_s = patience.wait_s(failure)
        if wait_s is None:
            raise failure
        await sleep(wait_s)
    arriving.prove()


async def _fetch_on(transport: AsyncTransport, output: OutputFacts, arriving: Arriving) -> None:
    call = calls.get_content(output.asset_id, sha256=output.sha256, start=arriving.received_bytes)
    async with transport.open(call) as response:
        await in_thread(arriving.begin, response.status_code, response.headers)
        # As they come: pieces of a size of ours would be lost with the connection, half filled.
        async for piece in response.aiter_bytes():
            await in_thread(arriving.take, piece)
