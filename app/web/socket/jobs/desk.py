"""`/jobs`: what happens to a tenant's jobs, told to whoever subscribed.

Takes the messages of clients and says what stands; who is told what follows, and how, is `fanout`'s. A hub
for each tenant is made by its first subscriber and ended by its last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field

from app.errors import NotFound, Overloaded
from app.web.schemas import Asked, Text
from app.web.socket.connections import Goodbye, Member
from app.web.socket.jobs.fanout import Hub
from app.web.socket.jobs.subscriptions import FanoutLimits
from app.web.socket.jobs.told import (
    NAMESPACE,
    JobTold,
    ListTold,
    ResetTold,
    Subscribed,
    Word,
    as_json,
    listed,
    succeeded_in,
    word_of,
)
from app.web.socket.library import Outgoing
from app.web.socket.namespace import Answer, Namespace
from app.wiring import Runtime
from db.assets import list_outputs
from db.feed import FeedRow
from db.search.pages import JobFilter

MOST_JOBS = 200
"""In a list; older ones are in `GET /v1/jobs`."""
MOST_SUBSCRIPTIONS = 100
"""Of one client to single jobs."""
LAST_SEQ = 2**63 - 1

JobId = Annotated[Text | None, Field(max_length=64, description="One job; without it, all")]


class Subscribe(Asked):
    """From now on, or from a place on: told of all jobs, or of one."""

    job_id: JobId = None
    after_seq: int | None = Field(
        None, ge=0, le=LAST_SEQ, description="The last `seq` that you have; without it, from now on"
    )


class Unsubscribe(Asked):
    """Told of one job no more, or of nothing."""

    job_id: JobId = None


class AskList(Asked):
    """The newest jobs as they stand."""

    limit: int = Field(50, ge=1, le=MOST_JOBS)


class JobsNamespace(Namespace):
    """The namespace; the outlet of its hubs too."""

    name = NAMESPACE
    incoming: ClassVar[Mapping[str, type[BaseModel]]] = {
        "subscribe_to_jobs": Subscribe,
        "unsubscribe_from_jobs": Unsubscribe,
        "request_jobs_list": AskList,
    }

    outgoing: ClassVar[Mapping[str, tuple[str, type[BaseModel]]]] = {
        "subscribed": ("You are told what follows this place", Subscribed),
        "unsubscribed": ("You are told no more of it", Unsubscribe),
        "jobs_list": ("The newest jobs as they stand", ListTold),
        "reset": ("Events after your place are gone: what stands instead; go on from `seq`", ResetTold),
        "job_created": ("A job was accepted", JobTold),
        "job_updated": ("It got on, waits, or begins again", JobTold),
        "job_completed": ("Every output is stored. The last of a job", JobTold),
        "job_failed": ("It ended without output. The last of a job", JobTold),
        "job_cancelled": ("It was ended by a caller. The last of a job", JobTold),
    }

    def __init__(self, runtime: Runtime, limits: FanoutLimits | None = None) -> None:
        super().__init__(runtime)
        self._limits = limits or FanoutLimits()
        self._hubs: dict[str, Hub] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def came(self, member: Member) -> None:
        tenant = member.caller.tenant
        # The jobs that it has subscribed to; None for all of them.
        member.state = set()

        def on_room() -> None:
            if (hub := self._hubs.get(tenant)) is not None:
                hub.has_room()

        self._queue(member).on_room = on_room

    async def left(self, member: Member) -> None:
        await self._forget(member, None)
        for job_id in list(member.state):
            await self._forget(member, job_id)

    async def stop(self) -> None:
        for hub in self._hubs.values():
            await hub.stop()
        self._hubs.clear()
        await asyncio.gather(*self._ending)

    async def subscribe_to_jobs(self, member: Member, asked: Subscribe) -> Answer:
        """Raises NotFound, Overloaded, DatabaseUnavailable."""
        if asked.job_id is not None:
            await self._check_job(member, asked.job_id)
        hub = await self._hub_of(member.caller.tenant)
        if asked.job_id is not None and None in member.state:
            # It is told of that job already, and must not be told twice.
            said = {"job_id": asked.job_id, "seq": hub.position}
            await self.tell(member, "subscribed", said)
            return said
        if asked.job_id is None:
            for job_id in list(member.state):
                hub.remove(member, job_id)
            member.state.clear()
        subscription = hub.add(member, asked.job_id, asked.after_seq)
        member.state.add(asked.job_id)
        said = {"job_id": asked.job_id, "seq": hub.position if asked.after_seq is None else asked.after_seq}
        await self.tell(member, "subscribed", said)
        hub.begin(subscription)
        return said

    async def unsubscribe_from_jobs(self, member: Member, asked: Unsubscribe) -> Answer:
        gone = {asked.job_id} if asked.job_id is not None else set(member.state)
        for job_id in gone:
            await self._forget(member, job_id)
        said = {"job_id": asked.job_id}
        await self.tell(member, "unsubscribed", said)
        return said

    async def request_jobs_list(self, member: Member, asked: AskList) -> Answer:
        """Raises DatabaseUnavailable."""
        said = await self._list(member.caller.tenant, asked.limit)
        await self.tell(member, "jobs_list", said)
        return {"seq": said["seq"], "count": len(said["jobs"])}

    def room(self, member: Member) -> int:
        return self._queue(member).qsize()

    async def hand(self, member: Member, word: Word) -> None:
        await self.server.eio.send_packet(member.connection.id, word.packet)
        self.runtime.line.metrics.socket_events.inc()

    async def words(self, tenant: str, rows: Sequence[FeedRow]) -> list[Word]:
        ended = succeeded_in(rows)
        outputs = {}
        if ended:
            async with self.runtime.line.database.reading() as tx:
                outputs = await list_outputs(tx, *ended)
        links = self.runtime.links
        return [word_of(row, outputs.get(row.job_id, {}), tenant=tenant, links=links) for row in rows]

    async def reset(self, member: Member, job_id: str | None) -> int:
        said = await self._list(member.caller.tenant, MOST_JOBS, job_id=job_id)
        await self.tell(member, "reset", {"job_id": job_id, **said})
        return int(said["seq"])

    def drop(self, member: Member, reason: Goodbye) -> None:
        self.hang_up(member.connection, reason)

    def coalesced(self, count: int) -> None:
        self.runtime.line.metrics.socket_coalesced.inc(count)

    async def _check_job(self, member: Member, job_id: str) -> None:
        """Raises NotFound, Overloaded."""
        await self.runtime.jobs.get(job_id, tenant=member.caller.tenant)
        if job_id not in member.state and len(member.state) >= MOST_SUBSCRIPTIONS:
            raise Overloaded(f"more than {MOST_SUBSCRIPTIONS} jobs: subscribe to all of them instead")

    async def _list(self, tenant: str, limit: int, *, job_id: str | None = None) -> dict[str, Any]:
        """Jobs as they stand; what follows `seq` may be in them already, and nothing is missing between."""
        # Asked first: what happens while the rows are read is told again, and never missed.
        seq = await self.runtime.feed.head(tenant)
        if job_id is None:
            views, more = await self.runtime.jobs.list_jobs(JobFilter(tenant=tenant), limit=limit)
        else:
            try:
                views, more = [await self.runtime.jobs.get(job_id, tenant=tenant)], None
            except NotFound:
                views, more = [], None
        jobs = [as_json(listed(view, seq=seq, links=self.runtime.links)) for view in views]
        return {"seq": seq, "jobs": jobs, "has_more": more is not None}

    async def _hub_of(self, tenant: str) -> Hub:
        """The tenant's hub, reading. Raises Overloaded, DatabaseUnavailable."""
        while True:
            hub = self._hubs.get(tenant)
            if hub is None:
                hub = self._hubs[tenant] = Hub(
                    tenant, feed=self.runtime.feed, outlet=self, limits=self._limits
                )
            try:
                await hub.opened()
            except BaseException:
                self._end_hub(tenant, hub)
                raise
            # Its last subscriber may have left meanwhile, and it with them.
            if self._hubs.get(tenant) is hub:
                return hub

    async def _forget(self, member: Member, job_id: str | None) -> None:
        member.state.discard(job_id)
        hub = self._hubs.get(member.caller.tenant)
        if hub is not None and hub.remove(member, job_id) and hub.is_empty:
            self._end_hub(member.caller.tenant, hub)

    def _end_hub(self, tenant: str, hub: Hub) -> None:
        if hub.is_empty and self._hubs.get(tenant) is hub:
            del self._hubs[tenant]
            # Apart: it may be the hub's own task that has found its last client gone.
            task = asyncio.create_task(hub.stop())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _queue(self, member: Member) -> Outgoing:
        socket = self.server.eio.sockets.get(member.connection.id)
        queue: Outgoing = socket.queue if socket is not None else Outgoing()
        return queue
