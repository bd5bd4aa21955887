"""What would become of a job that was asked for now: where it would run, why, and how long it would wait.

For `dry_run`: reads what the dispatcher would read, decides as it would decide, and stores nothing. The wait
is an estimate from the jobs that stand before it and from how long the newest ones of its kind took there; it
says what it was made of, and is null where nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from app.costs.estimates import estimate
from app.costs.prices import list_prices
from app.kinds import get_kind
from app.line import Line
from app.routing.choice import Go, Wait, choose
from app.routing.circuits import Shut
from app.routing.router import shut_of
from db.attempts import count_live_attempts, list_attempts
from db.jobs import count_waiting_before
from db.search.pages import JobFilter, list_jobs
from db.session import Transaction
from db.states import AttemptStatus, JobState
from db.tables import Attempt, Job

LOOKED_AT = 50
"""The newest successes of the kind, of which the usual time is taken."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One provider on the job's route, as it stands now."""

    provider: str
    model: str
    is_open: bool
    reason: str | None
    live: int
    """Predictions that it is at work on."""
    waiting: int
    """Jobs that wait for a slot of it and go first."""
    slots: int | None
    usual_s: float | None
    """How long an attempt of this kind lately took there; None: none is known."""
    usd: float | None
    """What it is expected to cost there; None where no price is known."""
    usd_basis: str
    """As `Estimate.basis`."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Where a job would run. `provider` is None when nobody may be asked."""

    provider: str | None
    model: str | None
    why: str
    wait_s: float | None
    wait_basis: str
    route: Sequence[Stage]


class Forecaster:
    """Looks ahead for the intake. One a runtime."""

    def __init__(self, *, line: Line, slots: Mapping[str, int | None]) -> None:
        """`slots` are the configured providers, with how many predictions each takes at once, if bounded."""
        self._line = line
        self._slots = slots
        self._prices = list_prices(line.settings.prices)

    async def look(self, job: Job) -> Forecast:
        """Of a job that is not stored; of a family, its first part's. Raises DatabaseUnavailable."""
        now = self._line.clock.now()
        family = get_kind(job.kind).family
        if family is not None:
            # It begins with its first part, and waits where that waits.
            job = job.model_copy(update={"kind": family.parts[0].kind})
        async with self._line.database.reading() as tx:
            shut = shut_of(await self._line.router.circuits(tx), now)
            names = await self._line.router.route_of(tx, job)
            choice = choose(
                job.provider, names, [], shut, created_at=job.created_at, deadline_at=job.deadline_at
            )
            recent = await self._recent(tx, job.kind)
            route = [await self._stage(tx, job, name, shut.get(name), recent) for name in names]
        return _forecast(choice, {stage.provider: stage for stage in route}, now)

    async def _stage(
        self, tx: Transaction, job: Job, name: str, shut: Shut | None, recent: Sequence[Attempt]
    ) -> Stage:
        router, usual_s = self._line.router, _usual_s(recent, name)
        model = router.model(job.kind, name)
        price = estimate(job.kind, router.payee(name), model, job.input, prices=self._prices, usual_s=usual_s)
        return Stage(
            provider=name,
            model=model,
            is_open=shut is None,
            reason=shut.reason if shut else None,
            live=await count_live_attempts(tx, name),
            waiting=await count_waiting_before(tx, name, job),
            slots=self._slots.get(name),
            usual_s=usual_s,
            usd=None if price.usd is None else float(price.usd),
            usd_basis=price.basis,
        )

    async def _recent(self, tx: Transaction, kind: str) -> list[Attempt]:
        wanted = JobFilter(tenant=None, state=JobState.SUCCEEDED, kind=kind, with_children=True)
        jobs, _ = await list_jobs(tx, wanted, limit=LOOKED_AT)
        attempts = await list_attempts(tx, *(job.id for job in jobs))
        return [each for each in attempts if each.status == AttemptStatus.SUCCEEDED]


def _forecast(choice: Go | Wait | None, route: Mapping[str, Stage], now: datetime) -> Forecast:
    stages = list(route.values())
    if choice is None:
        return Forecast(None, None, "no provider that may take it is configured", None, "none", stages)
    stage = route[choice.provider]
    if isinstance(choice, Wait):
        wait_s = max(0.0, (choice.until - now).total_seconds())
        return Forecast(stage.provider, stage.model, choice.reason, wait_s, "until its circuit", stages)
    ahead = stage.live + stage.waiting
    if stage.slots is None or ahead < stage.slots:
        return Forecast(stage.provider, stage.model, choice.why, 0.0, "it has room", stages)
    if stage.usual_s is None:
        basis = f"{ahead} before it, and how long one takes there is not known yet"
        return Forecast(stage.provider, stage.model, choice.why, None, basis, stages)
    wait_s = (ahead - stage.slots + 1) / stage.slots * stage.usual_s
    basis = f"{ahead} before it, {stage.slots} at a time, {stage.usual_s:.3g} s each"
    return Forecast(stage.provider, stage.model, choice.why, wait_s, basis, stages)


def _usual_s(attempts: Sequence[Attempt], provider: str) -> float | None:
    took = [
        (each.ended_at - each.created_at).total_seconds()
        for each in attempts
        if each.provider == provider and each.ended_at is not None
    ]
    return median(took) if took else None
