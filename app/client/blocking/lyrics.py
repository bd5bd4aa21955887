"""`client.lyrics`: words in time, corrected by versions."""

# Made from app/client/aio by scripts/make-client. Change it there and run that again.

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.client.blocking.transport import Transport
from app.client.call import Call
from app.client.karaoke import calls
from app.client.karaoke.lyrics import Lyrics, LyricsFacts, LyricsVersion, LyricsVersions
from app.client.models import Page, parse


class LyricsBook:
    """Every call raises RepriseError. What corrects names the `version` that was read, and raises Conflict
    (`stale_version`) where there is a newer one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        job_id: str | None = None,
        asset_id: str | None = None,
        lrc: str | None = None,
        title: str | None = None,
        duration_s: float | None = None,
    ) -> Lyrics:
        """Lyrics of one of these: a `transcription` that has succeeded, its transcript, or an LRC file of
        your own, with which `duration_s` says how long the song is. Raises InvalidInput, Gone."""
        given = {"job_id": job_id, "asset_id": asset_id, "lrc": lrc, "title": title}
        return self._ask(calls.create_lyrics(**given, duration_s=duration_s))

    def page(self, *, limit: int = 50, cursor: str | None = None) -> Page[LyricsFacts]:
        """One page of your lyrics, newest first, without what they say."""
        call = calls.list_lyrics(limit=limit, cursor=cursor)
        return parse(Page[LyricsFacts], self._transport.ask(call))

    def list(self, *, limit: int = 50) -> Iterator[LyricsFacts]:
        """All of them, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = self.page(limit=limit, cursor=cursor)
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def get(self, lyrics_id: str, *, number: int | None = None) -> Lyrics:
        """The newest version, or the one of this number. Raises NotFound."""
        return self._ask(calls.get_lyrics(lyrics_id, number=number))

    def lrc(self, lyrics_id: str, *, words: bool = False) -> str:
        """The newest version as the text of an LRC file; with `words` the enhanced form. Raises NotFound."""
        text = self._transport.ask(calls.get_lrc(lyrics_id, words=words))
        return text.decode()

    def versions(self, lyrics_id: str) -> Sequence[LyricsVersion]:
        """Those that are kept, newest first. Raises NotFound."""
        content = self._transport.ask(calls.list_versions(lyrics_id))
        return parse(LyricsVersions, content).items

    def shift(self, lyrics_id: str, ms: int, *, version: int) -> Lyrics:
        """All lines later by so many milliseconds; earlier where negative. Raises NotFound, Conflict."""
        return self._ask(calls.shift_lyrics(lyrics_id, version=version, ms=ms))

    def fix(
        self,
        lyrics_id: str,
        lines: Sequence[Mapping[str, Any]] = (),
        *,
        version: int,
        title: str | None = None,
    ) -> Lyrics:
        """Correct lines, the title, or both: each line is `{"index": 3, "text": …, "start_ms": …, "end_ms":
        …}` with what is to change, or with `"remove": True`. Raises NotFound, Conflict."""
        return self._ask(calls.fix_lyrics(lyrics_id, version=version, title=title, lines=lines))

    def replace_lines(self, lyrics_id: str, lines: Sequence[Mapping[str, Any]], *, version: int) -> Lyrics:
        """Other lines in the place of all, each of `start_ms`, `end_ms`, `text`. Raises as `fix`."""
        return self._ask(calls.replace_lines(lyrics_id, version=version, lines=lines))

    def restore(self, lyrics_id: str, number: int, *, version: int) -> Lyrics:
        """Make an older version the newest again. Raises NotFound, Conflict."""
        return self._ask(calls.restore_lyrics(lyrics_id, version=version, number=number))

    def delete(self, lyrics_id: str) -> None:
        """Delete them with all versions. Raises NotFound."""
        self._transport.ask(calls.delete_lyrics(lyrics_id))

    def _ask(self, call: Call) -> Lyrics:
        return parse(Lyrics, self._transport.ask(call))
