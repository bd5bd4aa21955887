"""`client.performances`: evenings of karaoke, with their song and their singers.

What the devices of an evening share, play, pause, seek and volumes, goes over Socket.IO.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from app.client.aio.transport import AsyncTransport
from app.client.call import Call
from app.client.karaoke import calls
from app.client.karaoke.performances import Performance, PerformanceFacts, RemoteToken, Singer, Singers
from app.client.models import Page, parse


class AsyncPerformances:
    """Every call raises RepriseError.

    A song is a `job_id`, of a `stem_separation`, of a `voice_conversion` that returned its stems or of any
    job with an `audio`; or the ids of assets, `vocals`, `instrumental` or both. `lyrics_id` adds its words.
    """

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        title: str | None = None,
        *,
        job_id: str | None = None,
        vocals: str | None = None,
        instrumental: str | None = None,
        lyrics_id: str | None = None,
    ) -> Performance:
        """A performance, with its first song or none. Raises InvalidInput."""
        song = calls.song(job_id, vocals, instrumental, lyrics_id)
        return await self._ask(calls.create_performance(title, song))

    async def page(self, *, limit: int = 50, cursor: str | None = None) -> Page[PerformanceFacts]:
        """One page of your performances, newest first."""
        call = calls.list_performances(limit=limit, cursor=cursor)
        return parse(Page[PerformanceFacts], await self._transport.ask(call))

    async def list(self, *, limit: int = 50) -> AsyncIterator[PerformanceFacts]:
        """All of them, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = await self.page(limit=limit, cursor=cursor)
            for performance in page.items:
                yield performance
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def get(self, performance_id: str) -> Performance:
        """As it stands now, with the live position. Raises NotFound."""
        return await self._ask(calls.get_performance(performance_id))

    async def change(
        self,
        performance_id: str,
        *,
        title: str | None = None,
        song_title: str | None = None,
        job_id: str | None = None,
        vocals: str | None = None,
        instrumental: str | None = None,
        lyrics_id: str | None = None,
    ) -> Performance:
        """Another title, another song, or both. Raises NotFound, InvalidInput."""
        song = calls.song(job_id, vocals, instrumental, lyrics_id)
        call = calls.change_performance(performance_id, title=title, song_title=song_title, song=song)
        return await self._ask(call)

    async def delete(self, performance_id: str) -> None:
        """Delete it with its singers; the lyrics and jobs stay. Raises NotFound."""
        await self._transport.ask(calls.delete_performance(performance_id))

    async def invite(self, performance_id: str) -> RemoteToken:
        """A token and an address for a guest's phone. Raises NotFound."""
        return parse(RemoteToken, await self._transport.ask(calls.invite(performance_id)))

    async def singers(self, performance_id: str) -> Singers:
        """Who sings, and who waits. Raises NotFound."""
        return await self._line(calls.list_singers(performance_id))

    async def add_singer(
        self,
        performance_id: str,
        singer: str,
        *,
        title: str | None = None,
        job_id: str | None = None,
        vocals: str | None = None,
        instrumental: str | None = None,
        lyrics_id: str | None = None,
    ) -> Singer:
        """To the end of the line, with a song. Raises NotFound, InvalidInput, Conflict (`queue_full`)."""
        song = calls.song(job_id, vocals, instrumental, lyrics_id)
        call = calls.add_singer(performance_id, singer, title, song)
        return parse(Singer, await self._transport.ask(call))

    async def order_singers(self, performance_id: str, entry_ids: Sequence[str], *, version: int) -> Singers:
        """The line in this order, which names everybody in it. Raises NotFound, Conflict."""
        return await self._line(calls.order_singers(performance_id, entry_ids, version=version))

    async def move_singer(
        self, performance_id: str, entry_id: str, position: int, *, version: int | None = None
    ) -> Singers:
        """One singer to another place, from 1; beyond the last is the last. Raises NotFound, Conflict."""
        call = calls.move_singer(performance_id, entry_id, position=position, version=version)
        return await self._line(call)

    async def remove_singer(self, performance_id: str, entry_id: str) -> Singers:
        """Out of the line, or off the stage. Raises NotFound."""
        return await self._line(calls.remove_singer(performance_id, entry_id))

    async def next_singer(self, performance_id: str, *, version: int | None = None) -> Singers:
        """The first in the line comes on the stage. With the `version` that was seen, one does where two ask
        at once, and the other raises Conflict (`stale_version`). Raises NotFound."""
        return await self._line(calls.next_singer(performance_id, version=version))

    async def _ask(self, call: Call) -> Performance:
        return parse(Performance, await self._transport.ask(call))

    async def _line(self, call: Call) -> Singers:
        return parse(Singers, await self._transport.ask(call))
