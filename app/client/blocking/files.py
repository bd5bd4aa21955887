"""Files in both directions, in pieces: never whole in memory, and never half in their place."""

# Made from app/client/aio by scripts/make-client. Change it there and run that again.

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.client import calls
from app.client.blocking.resuming import Progress, Resuming
from app.client.blocking.transport import Transport
from app.client.blocking.waits import in_thread, sleep
from app.client.downloads import Arriving, Part, size_of
from app.client.errors import InvalidInput, RateLimited, RepriseError, Unavailable
from app.client.models import OutputFacts, Upload, parse
from app.client.streams import Envelope, Slice


class Uploads:
    """`client.uploads`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
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
            return self._send(file, name, progress, idempotency_key)
        path = Path(file)
        opened = in_thread(path.open, "rb")
        try:
            return self._send(opened, path.name, progress, idempotency_key)
        finally:
            in_thread(opened.close)

    def _send(
        self, file: BinaryIO, name: str, progress: Progress | None, idempotency_key: str | None
    ) -> Upload:
        if isinstance(file, io.TextIOBase):
            raise InvalidInput("file: open it in binary mode", field="file")
        size_bytes = in_thread(size_of, file)
        start = None if size_bytes is None else in_thread(file.tell)
        if size_bytes is not None and start is not None and size_bytes >= calls.RESUMED_BYTES:
            whole = Slice(file, start, size_bytes, name)
            try:
                return Resuming(self._transport, whole, progress).send(idempotency_key=idempotency_key)
            except InvalidInput as exc:
                # A service of before there were such uploads takes it for a form.
                if exc.code != "unsupported_media_type":
                    raise
        envelope = Envelope(name, size_bytes)

        def body() -> Iterator[bytes]:
            if start is not None:
                in_thread(file.seek, start)
            yield envelope.head
            sent_bytes = 0
            # Of a file that grows meanwhile what was there when its size was told.
            while piece := in_thread(file.read, envelope.next_bytes(sent_bytes)):
                yield piece
                sent_bytes += len(piece)
                if progress is not None:
                    progress(sent_bytes, size_bytes)
            envelope.check(sent_bytes)
            yield envelope.tail

        call = calls.upload(
            envelope.headers, is_repeatable=start is not None, idempotency_key=idempotency_key
        )
        return parse(Upload, self._transport.ask(call, body))


def save(transport: Transport, output: OutputFacts, path: str | Path) -> Path:
    """Fetch an output into a file: whole and proven, or not there. Raises RepriseError, OSError."""
    place = Path(path)
    part = in_thread(Part, place)
    try:
        _fetch(transport, output, part.file)
        in_thread(part.keep)
    except BaseException:
        in_thread(part.drop)
        raise
    return place


def read(transport: Transport, output: OutputFacts) -> bytes:
    """An output in memory, proven. Raises RepriseError."""
    target = io.BytesIO()
    _fetch(transport, output, target)
    return target.getvalue()


def _fetch(transport: Transport, output: OutputFacts, target: BinaryIO) -> None:
    arriving = Arriving(output, target)
    patience = transport.long_patience()
    while True:
        before = arriving.received_bytes
        try:
            _fetch_on(transport, output, arriving)
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
        sleep(wait_s)
    arriving.prove()


def _fetch_on(transport: Transport, output: OutputFacts, arriving: Arriving) -> None:
    call = calls.get_content(output.asset_id, sha256=output.sha256, start=arriving.received_bytes)
    with transport.open(call) as response:
        in_thread(arriving.begin, response.status_code, response.headers)
        # As they come: pieces of a size of ours would be lost with the connection, half filled.
        for piece in response.iter_bytes():
            in_thread(arriving.take, piece)
