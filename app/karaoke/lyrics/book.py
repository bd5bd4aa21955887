"""The book of lyrics: made of a transcript or of an LRC text, corrected, each version kept.

Promises: every correction names the version that it was made on, and one that was made on an older version
changes nothing (`StaleVersion`), so of two people who correct one song nobody's work is lost unseen; versions
are never changed, and an older one can be made the newest again; what is not the tenant's is NotFound; each
change is in the audit log, in its transaction. The newest KEPT_VERSIONS stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.errors import Conflict, Gone, InvalidInput, NotFound
from app.karaoke.lyrics.edits import Fix, fix, replaced, shift
from app.karaoke.lyrics.lines import Line, as_rows, clean, hear, keep_sure, make_lines, of_rows
from app.karaoke.lyrics.lrc import InvalidLyrics, format_lrc, lines_of, parse_lrc, sheet_of
from app.karaoke.lyrics.review import review
from app.kinds.transcription import JSON, Transcript
from app.line import Line as StationLine
from app.storage import Storage
from db.assets import find_asset, find_hold, list_outputs
from db.ids import make_id
from db.jobs import find_job
from db.karaoke import lyrics as rows
from db.session import Transaction
from db.tables import Asset, Lyrics, LyricsVersion

KEPT_VERSIONS = 100
MOST_TRANSCRIPT_BYTES = 10_000_000
MOST_TITLE_CHARS = 200
UNTITLED = "Untitled"


class StaleVersion(Conflict):
    """It has changed since the version that the request names: read it again, and decide anew."""

    code = "stale_version"


@dataclass(frozen=True, slots=True)
class Text:
    """Lyrics with one of their versions."""

    lyrics: Lyrics
    version: LyricsVersion

    @property
    def lines(self) -> list[Line]:
        return of_rows(self.version.lines)


@dataclass(frozen=True, slots=True)
class _Made:
    """What lyrics begin with."""

    lines: list[Line]
    source: str
    figures: dict[str, Any]
    title: str | None = None
    language: str | None = None
    duration_ms: int | None = None


class LyricsBook:
    """The verbs on lyrics. Raises DatabaseUnavailable beside what each says."""

    def __init__(self, *, line: StationLine, storage: Storage) -> None:
        self._line = line
        self._storage = storage

    async def of_job(self, by: Caller, job_id: str, *, title: str | None = None) -> Text:
        """Of the transcript of a `transcription`. Raises InvalidInput, Gone, StorageUnavailable."""
        async with self._line.database.reading() as tx:
            job = await find_job(tx, job_id)
            if job is None or job.tenant != by.tenant:
                raise InvalidInput("job_id: there is no such job", field="job_id")
            asset = (await list_outputs(tx, job_id)).get(job_id, {}).get("transcript")
        if asset is None:
            raise InvalidInput(
                f"job_id: a {job.kind} that is {job.state} has no `transcript`", field="job_id"
            )
        return await self._begin(by, await self._read(asset, "job_id"), title=title, job_id=job_id)

    async def of_asset(self, by: Caller, asset_id: str, *, title: str | None = None) -> Text:
        """Of a transcript by its asset. Raises InvalidInput, Gone, StorageUnavailable."""
        async with self._line.database.reading() as tx:
            hold = await find_hold(tx, asset_id, tenant=by.tenant)
            asset = await find_asset(tx, asset_id) if hold else None
        if asset is None:
            raise InvalidInput("asset_id: there is no such asset", field="asset_id")
        return await self._begin(by, await self._read(asset, "asset_id"), title=title)

    async def of_lrc(
        self, by: Caller, lrc: str, *, title: str | None = None, duration_s: float | None = None
    ) -> Text:
        """Of a file of the caller's own. Raises InvalidLyrics with the line that cannot be read."""
        duration_ms = None if duration_s is None else round(duration_s * 1000)
        made = await asyncio.to_thread(_of_lrc, lrc, duration_ms)
        return await self._begin(by, made, title=title)

    async def get(self, tenant: str, lyrics_id: str, *, number: int | None = None) -> Text:
        """The newest version, or an older one. Raises NotFound."""
        async with self._line.database.reading() as tx:
            found = await rows.find_lyrics(tx, lyrics_id, tenant=tenant)
            if found is None:
                raise _no_lyrics(lyrics_id)
            return Text(found, await _version(tx, found, found.version if number is None else number))

    async def list_lyrics(self, tenant: str, *, before_id: str | None, limit: int) -> list[Lyrics]:
        """Newest first."""
        async with self._line.database.reading() as tx:
            return await rows.list_lyrics(tx, tenant=tenant, before_id=before_id, limit=limit)

    async def list_versions(self, tenant: str, lyrics_id: str) -> list[LyricsVersion]:
        """Those that are kept, newest first, without their lines. Raises NotFound."""
        async with self._line.database.reading() as tx:
            if await rows.find_lyrics(tx, lyrics_id, tenant=tenant) is None:
                raise _no_lyrics(lyrics_id)
            return await rows.list_versions(tx, lyrics_id)

    async def shift(self, by: Caller, lyrics_id: str, *, version: int, by_ms: int) -> Text:
        """All lines later by so much. Raises NotFound, StaleVersion."""
        made_by = f"shift {by_ms:+d} ms"
        return await self._change(by, lyrics_id, version, made_by, lambda lines: shift(lines, by_ms))

    async def fix(
        self, by: Caller, lyrics_id: str, *, version: int, fixes: Sequence[Fix], title: str | None = None
    ) -> Text:
        """Some lines, the title, or both. Raises NotFound, StaleVersion, InvalidInput naming the fix."""
        title = None if title is None else _title(title)
        if not fixes:
            return await self._rename(by, lyrics_id, version, title)
        return await self._change(by, lyrics_id, version, "fix", lambda lines: fix(lines, fixes), title=title)

    async def replace(self, by: Caller, lyrics_id: str, *, version: int, lines: Sequence[Line]) -> Text:
        """All lines. Raises NotFound, StaleVersion, InvalidInput."""
        new = replaced(lines)
        return await self._change(by, lyrics_id, version, "lines replaced", lambda _: new)

    async def restore(self, by: Caller, lyrics_id: str, *, version: int, number: int) -> Text:
        """Make an older version the newest again. Raises NotFound, StaleVersion."""
        old = await self.get(by.tenant, lyrics_id, number=number)
        made_by, figures = f"version {number} restored", old.version.figures
        return await self._change(by, lyrics_id, version, made_by, lambda _: old.lines, figures=figures)

    async def delete(self, by: Caller, lyrics_id: str) -> None:
        """With all versions. Raises NotFound."""

        async def delete(tx: Transaction) -> None:
            await _hold(tx, by.tenant, lyrics_id)
            await rows.delete_lyrics(tx, lyrics_id)
            await note_act(tx, by, Act.LYRICS_DELETED, lyrics_id, at=self._line.clock.now())

        await self._line.database.transact(delete)

    async def _begin(self, by: Caller, made: _Made, *, title: str | None, job_id: str | None = None) -> Text:
        now = self._line.clock.now()
        title = _title(title if title is not None else made.title or UNTITLED)
        lyrics = Lyrics(
            id=make_id("lyr"), tenant=by.tenant, title=title, language=made.language, source=made.source,
            job_id=job_id, duration_ms=made.duration_ms, version=1, created_at=now, updated_at=now,
        )  # fmt: skip
        first = LyricsVersion(
            lyrics_id=lyrics.id, number=1, lines=as_rows(made.lines), figures=made.figures,
            made_by=made.source, made_at=now,
        )  # fmt: skip

        async def store(tx: Transaction) -> None:
            await rows.insert_lyrics(tx, lyrics, first)
            await note_act(tx, by, Act.LYRICS_CREATED, lyrics.id, at=now)

        await self._line.database.transact(store)
        return Text(lyrics, first)

    async def _change(
        self,
        by: Caller,
        lyrics_id: str,
        version: int,
        made_by: str,
        change: Callable[[list[Line]], list[Line]],
        *,
        figures: dict[str, Any] | None = None,
        title: str | None = None,
    ) -> Text:
        values = {} if title is None else {"title": title}

        async def write(tx: Transaction) -> Text:
            lyrics, now = await _hold(tx, by.tenant, lyrics_id, version), self._line.clock.now()
            before = await _version(tx, lyrics, version)
            new = LyricsVersion(
                lyrics_id=lyrics_id,
                number=version + 1,
                lines=as_rows(change(of_rows(before.lines))),
                # Measured on the words when they were heard: a correction measures nothing anew.
                figures=before.figures if figures is None else figures,
                made_by=made_by,
                made_at=now,
            )
            if not await rows.add_version(tx, new, keep=KEPT_VERSIONS, **values):
                raise _stale(lyrics)
            await note_act(tx, by, Act.LYRICS_CHANGED, lyrics_id, at=now)
            changed = {**values, "version": new.number, "updated_at": now}
            return Text(lyrics.model_copy(update=changed), new)

        return await self._line.database.transact(write)

    async def _rename(self, by: Caller, lyrics_id: str, version: int, title: str | None) -> Text:
        if title is None:
            raise InvalidInput("lines: name a title, lines, or both", field="lines")

        async def write(tx: Transaction) -> Text:
            lyrics, now = await _hold(tx, by.tenant, lyrics_id, version), self._line.clock.now()
            await rows.rename_lyrics(tx, lyrics_id, title=title, now=now)
            await note_act(tx, by, Act.LYRICS_CHANGED, lyrics_id, at=now)
            renamed = lyrics.model_copy(update={"title": title, "updated_at": now})
            return Text(renamed, await _version(tx, lyrics, version))

        return await self._line.database.transact(write, is_idempotent=True)

    async def _read(self, asset: Asset, field: str) -> _Made:
        """The lines of a transcript in the store. Raises InvalidInput, Gone, StorageUnavailable."""
        if asset.media_type != JSON or asset.size_bytes > MOST_TRANSCRIPT_BYTES:
            raise InvalidInput(f"{field}: this asset is no transcript", field=field)
        try:
            content = b"".join([chunk async for chunk in self._storage.read(asset.storage_key)])
        except NotFound as exc:
            raise Gone("the transcript is gone from the store") from exc
        try:
            return await asyncio.to_thread(_of_transcript, content, field)
        except ValidationError as exc:
            raise InvalidInput(f"{field}: this asset is no transcript", field=field) from exc


def to_lrc(text: Text, *, words: bool) -> str:
    """The version as an LRC file with its title, length and language."""
    tags = [("ti", text.lyrics.title)]
    if text.lyrics.duration_ms is not None:
        minutes, ms = divmod(text.lyrics.duration_ms, 60_000)
        tags.append(("length", f"{minutes:02d}:{ms // 1000:02d}"))
    if text.lyrics.language is not None:
        tags.append(("la", clean(text.lyrics.language)))
    return format_lrc(sheet_of(text.lines, tags=tags), words=words)


def _of_transcript(content: bytes, field: str) -> _Made:
    """Raises InvalidInput, ValidationError."""
    transcript = Transcript.model_validate_json(content)
    heard = hear(transcript)
    kept = keep_sure(heard.words)
    lines = make_lines(kept)
    if not lines:
        raise InvalidInput(f"{field}: no words were heard in it that lines could be made of", field=field)
    figures = asdict(review(heard, kept, lines))
    duration_ms = round(min(transcript.duration, 86_400.0) * 1000)
    return _Made(
        lines, "transcription", {**figures, "flags": list(figures["flags"])},
        language=transcript.language, duration_ms=duration_ms,
    )  # fmt: skip


def _of_lrc(lrc: str, duration_ms: int | None) -> _Made:
    sheet = parse_lrc(lrc)
    title = dict(sheet.tags).get("ti")
    lines = lines_of(sheet, duration_ms=duration_ms)
    if not lines:
        raise InvalidLyrics("there is no line")
    return _Made(lines, "lrc", {}, title=title, duration_ms=duration_ms)


def _title(title: str) -> str:
    found = clean(title)[:MOST_TITLE_CHARS].strip()
    if not found:
        raise InvalidInput("title: at least one character that can be seen", field="title")
    return found


async def _hold(tx: Transaction, tenant: str, lyrics_id: str, version: int | None = None) -> Lyrics:
    """The row until the commit, at this version. Raises NotFound, StaleVersion."""
    lyrics = await rows.find_lyrics(tx, lyrics_id, tenant=tenant, lock=True)
    if lyrics is None:
        raise _no_lyrics(lyrics_id)
    if version is not None and lyrics.version != version:
        raise _stale(lyrics)
    return lyrics


async def _version(tx: Transaction, lyrics: Lyrics, number: int) -> LyricsVersion:
    found = await rows.find_version(tx, lyrics.id, number)
    if found is None:
        raise NotFound(f"there is no version {number} of these lyrics, or it is not kept any more")
    return found


def _stale(lyrics: Lyrics) -> StaleVersion:
    return StaleVersion(f"the lyrics are at version {lyrics.version}")


def _no_lyrics(lyrics_id: str) -> NotFound:
    return NotFound(f"there are no lyrics {lyrics_id[:64]}")
