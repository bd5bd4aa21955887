"""`client.voices`: voice profiles, made from recordings."""

# Made from app/client/aio by scripts/make-client. Change it there and run that again.

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.client import calls
from app.client.blocking.files import Uploads
from app.client.blocking.transport import Transport
from app.client.blocking.waits import in_thread
from app.client.downloads import Part
from app.client.models import Page, Upload, parse
from app.client.voices import Voice

_STORED = re.compile(r"(upl|ast)_[0-9a-f]{32}", re.ASCII)


class Voices:
    """Every call raises RepriseError."""

    def __init__(self, transport: Transport, uploads: Uploads) -> None:
        self._transport = transport
        self._uploads = uploads

    def create(
        self, name: str, recording: str | Path | BinaryIO | Upload, *, idempotency_key: str | None = None
    ) -> Voice:
        """A voice from 15 to 60 s of speech or singing: a path or an open file, which is uploaded first, an
        upload, or the id of one or of an asset. Raises InvalidInput (`voice_unfit`) naming each figure that
        is not good enough."""
        if isinstance(recording, Upload):
            file_id = recording.upload_id
        elif isinstance(recording, str) and _STORED.fullmatch(recording):
            file_id = recording
        else:
            file_id = (self._uploads.create(recording)).upload_id
        call = calls.create_voice(name, file_id, idempotency_key=idempotency_key)
        return parse(Voice, self._transport.ask(call))

    def page(self, *, limit: int = 50, cursor: str | None = None) -> Page[Voice]:
        """One page of your voices, newest first."""
        call = calls.list_voices(limit=limit, cursor=cursor)
        return parse(Page[Voice], self._transport.ask(call))

    def list(self, *, limit: int = 50) -> Iterator[Voice]:
        """All of them, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = self.page(limit=limit, cursor=cursor)
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def get(self, voice_id: str) -> Voice:
        """One, with those that sound like it now. Raises NotFound."""
        return parse(Voice, self._transport.ask(calls.get_voice(voice_id)))

    def rename(self, voice_id: str, name: str) -> Voice:
        """Give it another name. Raises NotFound."""
        return parse(Voice, self._transport.ask(calls.rename_voice(voice_id, name)))

    def delete(self, voice_id: str) -> None:
        """Delete it; jobs that wait for it fail. Raises NotFound."""
        self._transport.ask(calls.delete_voice(voice_id))

    def export(self, voice_id: str, path: str | Path) -> Path:
        """Save all of it as a zip: whole, or not there. Raises NotFound, OSError."""
        place = Path(path)
        part = in_thread(Part, place)
        try:
            with self._transport.open(calls.export_voice(voice_id)) as response:
                for piece in response.iter_bytes():
                    in_thread(part.file.write, piece)
            in_thread(part.keep)
        except BaseException:
            in_thread(part.drop)
            raise
        return place
