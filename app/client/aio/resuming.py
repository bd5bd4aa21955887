"""A large file in many requests, by tus 1.0: a cut connection goes on from what the service has.

The service tells how far it is, and only that is believed; what was under way when the connection went is
sent again. The digest of the file is known before its first byte goes: the same key never mixes two files,
and what is stored in the end is what was there in the beginning, or an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from app.client import calls
from app.client.aio.transport import AsyncTransport
from app.client.aio.waits import in_thread, sleep
from app.client.errors import InvalidInput, RateLimited, RepriseError, Unavailable, UnderWay
from app.client.models import Upload, UploadStanding, parse
from app.client.streams import Slice

Progress = Callable[[int, int | None], object]
"""Called with the bytes that have been sent, and all there are (None: not known), after each piece. After a
cut it goes on from what the service has."""


class AsyncResuming:
    """One upload. Not to be shared."""

    def __init__(self, transport: AsyncTransport, source: Slice, progress: Progress | None) -> None:
        self._transport = transport
        self._source = source
        self._progress = progress

    async def send(self, *, idempotency_key: str | None) -> Upload:
        """The stored upload. Raises RepriseError, OSError for what cannot be read."""
        source = self._source
        digest = await in_thread(source.digest)
        begin = calls.begin_upload(
            source.size_bytes, source.name, sha256=digest, idempotency_key=idempotency_key
        )
        standing = parse(UploadStanding, await self._transport.ask(begin))
        patience = self._transport.long_patience()
        while not standing.is_stored:
            at = standing.offset_bytes
            try:
                await self._append(standing.upload_id, at)
                standing = await self._find(standing.upload_id)
                failure: RepriseError | None = None
            except (Unavailable, RateLimited, UnderWay) as exc:
                failure = exc
            if failure is not None:
                wait_s = patience.wait_s(failure)
                if wait_s is None:
                    raise failure
                await sleep(wait_s)
                standing = await self._find(standing.upload_id)
            if standing.is_stored or standing.offset_bytes > at:
                patience.refresh()
        return await self._proven(standing.upload_id, digest)

    async def _append(self, upload_id: str, at: int) -> None:
        size_bytes = min(calls.MOST_PIECE_BYTES, self._source.size_bytes - at)

        async def body() -> AsyncIterator[bytes]:
            await in_thread(self._source.go_to, at)
            sent_bytes = 0
            while sent_bytes < size_bytes:
                piece = await in_thread(self._source.read, size_bytes - sent_bytes)
                yield piece
                sent_bytes += len(piece)
                if self._progress is not None:
                    self._progress(at + sent_bytes, self._source.size_bytes)

        call = calls.append_to_upload(upload_id, at, size_bytes)
        await self._transport.ask_once(call, body)

    async def _find(self, upload_id: str) -> UploadStanding:
        return parse(UploadStanding, await self._transport.ask(calls.get_upload(upload_id)))

    async def _proven(self, upload_id: str, digest: str) -> Upload:
        made = parse(Upload, await self._transport.ask(calls.get_upload(upload_id)))
        if made.sha256 != digest:
            raise InvalidInput("the file changed while it was sent", field="file")
        return made
