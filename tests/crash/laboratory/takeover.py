"""How soon somebody else goes on with what the dead had in hand.

Three things die with a process: a prediction of its own engines (restarted is the job's next attempt), a
finishing under a lease (restarted is the next lease) and a create that was on its way (restarted is the
attempt's first news). `note` is called just before a kill; `watch` looks at the rows until each thing that
was held has gone on, or ended. A thing that its holder, still alive, ended itself is dropped.
"""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select
from sqlmodel import col

from db.states import LIVE_ATTEMPT_STATUSES, JobState
from db.tables import Attempt, Job
from tests.crash.laboratory.kills import Kill
from tests.crash.laboratory.world import World

LOOK_S = 0.05
CREATE_S = 1.0
"""A create that is still under way so long after a kill had its maker among the dead."""


@dataclass(frozen=True, slots=True)
class Held:
    """What somebody had in hand at one moment."""

    job_id: str
    holder: str
    """The process, or the lease."""
    attempts: int


@dataclass
class Snapshot:
    """Everything in hand just before a kill."""

    predictions: list[Held] = field(default_factory=list)
    leases: list[Held] = field(default_factory=list)
    creates: list[str] = field(default_factory=list)


@dataclass
class Takeover:
    """Measures, in seconds from the kill."""

    world: World
    took_s: dict[str, list[float]] = field(
        default_factory=lambda: {"prediction": [], "finishing": [], "create": []}
    )
    _last: Snapshot = field(default_factory=Snapshot)
    _watches: set[asyncio.Task[None]] = field(default_factory=set)

    async def note(self) -> None:
        """Remember what is in hand now."""
        live = select(Attempt.__table__).where(col(Attempt.status).in_(LIVE_ATTEMPT_STATUSES))  # type: ignore[attr-defined]
        leased = select(col(Job.id), col(Job.lease)).where(
            col(Job.state) == JobState.FINISHING, col(Job.lease).is_not(None)
        )
        attempts = [row._mapping for row in await self.world.ask(live)]
        leases = await self.world.ask(leased)
        self._last = Snapshot(
            [Held(each["job_id"], each["owner"], each["number"]) for each in attempts if each["owner"]],
            [Held(job_id, lease, 0) for job_id, lease in leases],
            [each["id"] for each in attempts if each["status"] == "pending" and not each["owner"]],
        )

    def follow(self, kill: Kill) -> None:
        """Watch what the dead had in hand."""
        held = self._last
        for each in held.predictions:
            if each.holder in kill.owners:
                self._begin(self._watch_prediction(each, kill.at))
        for each in held.leases:
            self._begin(self._watch_lease(each, kill.at))
        for attempt_id in held.creates:
            self._begin(self._watch_create(attempt_id, kill.at))
        self._last = Snapshot()

    async def settle(self) -> None:
        await asyncio.gather(*self._watches)

    def rows(self) -> list[tuple[str, str]]:
        """For a table: by kind, how many, median and worst."""
        return [
            (f"kill → another goes on: {kind}", _summary(took_s))
            for kind, took_s in [
                *self.took_s.items(),
                ("all", [each for took_s in self.took_s.values() for each in took_s]),
            ]
        ]

    def _begin(self, watch: object) -> None:
        task = asyncio.ensure_future(watch)  # type: ignore[call-overload]
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch_prediction(self, held: Held, at: datetime) -> None:
        later = select(col(Attempt.created_at), col(Attempt.owner)).where(
            col(Attempt.job_id) == held.job_id, col(Attempt.number) > held.attempts
        )
        while True:
            following = await self.world.ask(later)
            if following:
                self.took_s["prediction"].append((_aware(following[0][0]) - at).total_seconds())
                return
            if await self._has_ended(held.job_id):
                return  # its result had been heard before the death
            await asyncio.sleep(LOOK_S)

    async def _watch_lease(self, held: Held, at: datetime) -> None:
        now = select(col(Job.lease), col(Job.finished_at)).where(col(Job.id) == held.job_id)
        while True:
            lease, finished_at = (await self.world.ask(now))[0]
            if finished_at is not None:
                return  # by its holder, who was not the one that died
            if lease is not None and lease != held.holder:
                self.took_s["finishing"].append((datetime.now(UTC) - at).total_seconds())
                return
            await asyncio.sleep(LOOK_S)

    async def _watch_create(self, attempt_id: str, at: datetime) -> None:
        now = select(col(Attempt.status)).where(col(Attempt.id) == attempt_id)
        while True:
            found = await self.world.ask(now)
            status = found[0][0] if found else None
            took_s = (datetime.now(UTC) - at).total_seconds()
            if status != "pending":
                if status is not None and took_s >= CREATE_S:
                    self.took_s["create"].append(took_s)
                return
            await asyncio.sleep(LOOK_S)

    async def _has_ended(self, job_id: str) -> bool:
        ended = await self.world.ask(select(col(Job.finished_at)).where(col(Job.id) == job_id))
        return ended[0][0] is not None


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _summary(took_s: list[float]) -> str:
    if not took_s:
        return "none was held"
    return f"{len(took_s)} times, median {statistics.median(took_s):.1f} s, worst {max(took_s):.1f} s"
