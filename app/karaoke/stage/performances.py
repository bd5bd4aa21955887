"""Performances in their rows: the verbs on what devices share, on the song and on the singers.

Promises: every change goes by `state.apply` or the verbs of `singers`, in one transaction with the row held,
and by compare-and-set on its versions, so two devices or processes that change at once are one after the
other for everybody; whoever watches is hinted after the commit and reads the row. What is not the tenant's
is NotFound. Who was added, removed or invited is in the audit log; sliders and seeks are not.

When the song of a singer ends, the next in the line is on the stage with the song at its beginning, in the
same transaction. It stands until a player says `playback_play`: a song that began by itself would be heard
only from where the slowest player had loaded it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from app.access.callers import Caller
from app.access.trail import Act, note_act
from app.errors import InvalidInput, NotFound
from app.karaoke.lyrics.book import StaleVersion
from app.karaoke.stage import singers
from app.karaoke.stage.files import drop_files, keep_files
from app.karaoke.stage.rows import changed, queue_of, state_of
from app.karaoke.stage.singers import Entry, Queue, Song
from app.karaoke.stage.songs import WantedSong, find_song, name_of
from app.karaoke.stage.state import Command, Load, Pause, State, apply, has_ended
from app.line import Line
from app.notify import performance_topic
from db.ids import make_id
from db.karaoke import performances as rows
from db.session import Transaction
from db.tables import Performance

DEFAULT_TITLE = "Karaoke"


class Performances:
    """The verbs. Raises DatabaseUnavailable beside what each says."""

    def __init__(self, *, line: Line) -> None:
        self._line = line

    async def create(self, by: Caller, *, title: str, wanted: WantedSong) -> Performance:
        """A new one, with its first song or none. Raises InvalidInput."""
        title, now = name_of(title, "title"), self._line.clock.now()

        async def store(tx: Transaction) -> Performance:
            song = None if wanted.is_empty else await find_song(tx, by.tenant, wanted)
            row = await keep_files(tx, _new(by.tenant, title, song, now))
            await rows.insert_performance(tx, row)
            await note_act(tx, by, Act.PERFORMANCE_CREATED, row.id, at=now)
            return row

        return await self._line.database.transact(store)

    async def get(self, tenant: str, performance_id: str) -> Performance:
        """Raises NotFound."""
        async with self._line.database.reading() as tx:
            found = await rows.find_performance(tx, performance_id, tenant=tenant)
        if found is None:
            raise _no_performance(performance_id)
        return found

    async def get_default(self, by: Caller) -> Performance:
        """The one that is meant where none is named; made by whoever first asks for it."""
        async with self._line.database.reading() as tx:
            found = await rows.find_default(tx, by.tenant)
        if found is not None:
            return found
        now = self._line.clock.now()
        row = _new(by.tenant, DEFAULT_TITLE, None, now)
        row.default_of = by.tenant

        async def store(tx: Transaction) -> Performance:
            if await rows.insert_performance(tx, row):
                await note_act(tx, by, Act.PERFORMANCE_CREATED, row.id, at=now)
                return row
            return await rows.find_default(tx, by.tenant) or row

        return await self._line.database.transact(store, is_idempotent=True)

    async def list_performances(self, tenant: str, *, before_id: str | None, limit: int) -> list[Performance]:
        """Newest first."""
        async with self._line.database.reading() as tx:
            return await rows.list_performances(tx, tenant=tenant, before_id=before_id, limit=limit)

    async def change(
        self, by: Caller, performance_id: str, *, title: str | None, wanted: WantedSong
    ) -> Performance:
        """Another title, another song, or both. Raises NotFound, InvalidInput."""
        if title is None and wanted.is_empty:
            raise InvalidInput("title: name a title, a song, or both", field="title")
        title = None if title is None else name_of(title, "title")

        async def write(tx: Transaction) -> Performance:
            row, now = await self._hold(tx, by.tenant, performance_id), self._line.clock.now()
            song = state = None
            if not wanted.is_empty:
                song = await find_song(tx, by.tenant, wanted)
                state = apply(state_of(row), Load(song.duration_s), now)
            await note_act(tx, by, Act.PERFORMANCE_CHANGED, row.id, at=now)
            return await self._move(tx, row, changed(row, now, state=state, song=song, title=title))

        return await self._line.database.transact(write)

    async def delete(self, by: Caller, performance_id: str) -> None:
        """With its singers; whoever is in it is told. Raises NotFound."""

        async def delete(tx: Transaction) -> None:
            row, now = await self._hold(tx, by.tenant, performance_id), self._line.clock.now()
            await rows.delete_performance(tx, row.id)
            await drop_files(tx, row, now)
            await note_act(tx, by, Act.PERFORMANCE_DELETED, row.id, at=now)
            self._line.notifier.announce(tx, performance_topic(row.id))

        await self._line.database.transact(delete)

    async def command(self, tenant: str, performance_id: str, command: Command) -> Performance:
        """Change what the devices share; the row as it stands then. Raises NotFound."""

        async def write(tx: Transaction) -> Performance:
            row, now = await self._hold(tx, tenant, performance_id), self._line.clock.now()
            before = state_of(row)
            after = apply(before, command, now)
            if after is before:
                return row
            queue = queue_of(row)
            if has_ended(before, after) and (queue.singing or queue.waiting):
                return await self._move(tx, row, _next(row, after, queue, now))
            return await self._move(tx, row, changed(row, now, state=after))

        return await self._line.database.transact(write)

    async def add_singer(
        self, by: Caller, performance_id: str, *, singer: str, wanted: WantedSong
    ) -> tuple[Performance, Entry]:
        """To the end of the line. Raises NotFound, InvalidInput, QueueFull."""
        singer = name_of(singer, "singer")

        async def write(tx: Transaction) -> tuple[Performance, Entry]:
            row, now = await self._hold(tx, by.tenant, performance_id), self._line.clock.now()
            song = await find_song(tx, by.tenant, wanted)
            entry = Entry(make_id("sng"), singer, song, now.isoformat())
            after = changed(row, now, queue=singers.add(queue_of(row), entry))
            await note_act(tx, by, Act.SINGERS_CHANGED, row.id, at=now)
            return await self._move(tx, row, after), entry

        return await self._line.database.transact(write)

    async def change_line(
        self,
        by: Caller,
        performance_id: str,
        change: Callable[[Queue], Queue],
        *,
        version: int | None = None,
    ) -> Performance:
        """Change the line by a verb of `singers`. Raises NotFound, StaleVersion, and what the verb raises."""

        async def write(tx: Transaction) -> Performance:
            row, now = await self._hold(tx, by.tenant, performance_id), self._line.clock.now()
            before = _at(row, version)
            after = change(before)
            if after is before:
                return row
            await note_act(tx, by, Act.SINGERS_CHANGED, row.id, at=now)
            state = None
            if before.singing is not None and after.singing is None:
                state = apply(state_of(row), Pause(), now)
            return await self._move(tx, row, changed(row, now, state=state, queue=after))

        return await self._line.database.transact(write)

    async def next_singer(
        self, by: Caller, performance_id: str, *, version: int | None = None
    ) -> Performance:
        """The first in the line comes on the stage. Raises NotFound, StaleVersion.

        Where two ask at once with the version that both saw, one singer comes on, not two.
        """

        async def write(tx: Transaction) -> Performance:
            row, now = await self._hold(tx, by.tenant, performance_id), self._line.clock.now()
            queue = _at(row, version)
            await note_act(tx, by, Act.SINGERS_CHANGED, row.id, at=now)
            stopped = apply(state_of(row), Pause(), now)
            return await self._move(tx, row, _next(row, stopped, queue, now))

        return await self._line.database.transact(write)

    async def note_invitation(self, by: Caller, performance_id: str) -> None:
        """That a token for a guest's phone was given out. Raises NotFound."""

        async def write(tx: Transaction) -> None:
            row = await self._hold(tx, by.tenant, performance_id)
            await note_act(tx, by, Act.REMOTE_INVITED, row.id, at=self._line.clock.now())

        await self._line.database.transact(write)

    async def _hold(self, tx: Transaction, tenant: str, performance_id: str) -> Performance:
        """The row until the commit. Raises NotFound."""
        row = await rows.find_performance(tx, performance_id, tenant=tenant, lock=True)
        if row is None:
            raise _no_performance(performance_id)
        return row

    async def _move(self, tx: Transaction, before: Performance, after: Performance) -> Performance:
        after = await keep_files(tx, after, before=before)
        if not await rows.move_performance(tx, before, after):
            raise _no_performance(before.id)
        self._line.notifier.announce(tx, performance_topic(before.id))
        return after


def _next(row: Performance, state: State, queue: Queue, now: datetime) -> Performance:
    """The next singer on the stage with the song at its beginning; where nobody waits, an empty stage."""
    after = singers.advance(queue)
    if after.singing is None:
        return changed(row, now, state=state, queue=after)
    song = after.singing.song
    return changed(row, now, state=apply(state, Load(song.duration_s), now), queue=after, song=song)


def _at(row: Performance, version: int | None) -> Queue:
    """The line, where the caller has seen it as it is. Raises StaleVersion."""
    queue = queue_of(row)
    if version is not None and version != queue.version:
        raise StaleVersion(f"the line of singers is at version {queue.version}")
    return queue


def _new(tenant: str, title: str, song: Song | None, now: datetime) -> Performance:
    state = State(position_at=now, duration_s=song.duration_s if song else 0.0, version=1, moved_version=1)
    row = Performance(
        id=make_id("prf"), tenant=tenant, title=title, song={}, queue={}, queue_version=0,
        vocal_volume=0.0, instrumental_volume=1.0, lyrics_size="medium", lyrics_offset=0, is_playing=False,
        position_s=0.0, position_at=now, duration_s=0.0, version=1, moved_version=1, created_at=now,
        updated_at=now,
    )  # fmt: skip
    return changed(row, now, state=state, queue=Queue(version=1), song=song)


def _no_performance(performance_id: str) -> NotFound:
    return NotFound(f"there is no performance {performance_id[:64]}")
