"""The dispatch station with families: what a parent needs next is made here, the rest goes to the dispatcher.

A look at a parent is one transaction that asks nobody outside: it locks the parent, reads its children, lets
`plan` say what follows, and makes the next children, sends the parent to the finisher, or ends it. So a death
at any moment leaves the parent as it was, still due, or its children made once; the database holds a parent
to one child a step besides. A child that was made before, by the same recipe and for the same tenant, is not
made again: it is born with the results of that one, held for it like any job's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog
from pydantic import ValidationError

from app.crash_points import CrashPoint
from app.dispatch import Dispatcher
from app.errors import AppError, InvalidInput
from app.families.plan import Begin, Child, Fail, Join, Wait, plan, progress_of
from app.families.recipes import recipe_of
from app.intake.files import find_files
from app.kinds import Family, get_kind
from app.kinds.base import Made, Part
from app.line import Line
from app.work import PLAN, Station, plan_item
from db import families as family_rows
from db import jobs as job_rows
from db.assets import insert_output, list_outputs
from db.events import FIRST_SEQ, append_event, insert_first_events
from db.ids import make_id
from db.session import Transaction
from db.states import JobState
from db.tables import Job
from db.uploads import hold_asset, insert_inputs

log = structlog.get_logger()

RECHECK_SAME_S = 60.0
"""A parent that waits for another's result is woken by its end; this is for when that was lost."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A job that made what a child is to make."""

    job: Job
    outputs: dict[str, str]
    """Ids of assets, by name."""


class _UnderWay:
    """Another job is making it."""


class FamilyStation:
    """The dispatch station, parents included."""

    def __init__(self, *, line: Line, dispatcher: Dispatcher) -> None:
        self._line = line
        self._dispatcher = dispatcher

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]:
        parents = await family_rows.list_due_parents(tx, now=now, limit=limit)
        return [*map(plan_item, parents), *await self._dispatcher.due(tx, now, limit)]

    async def step(self, row_id: str) -> None:
        """Look at a parent, or give a job its next attempt."""
        if not row_id.startswith(PLAN):
            await self._dispatcher.step(row_id)
            return
        job_id = row_id.removeprefix(PLAN)
        with structlog.contextvars.bound_contextvars(job_id=job_id):
            # Idempotent: a look clears what made the parent due.
            work = partial(self._look, job_id=job_id)
            if await self._line.database.transact(work, is_idempotent=True):
                self._line.reach(CrashPoint.FAMILY_PLANNED)

    async def _look(self, tx: Transaction, *, job_id: str) -> bool:
        """Whether there was anything to look at."""
        now = self._line.clock.now()
        parent = await job_rows.find_job(tx, job_id, lock=True)
        if parent is None or parent.plan_at is None or parent.plan_at > now + job_rows.EARLY:
            return False
        family = get_kind(parent.kind).family
        if family is None:
            return False
        children = {child.step or "": child for child in await family_rows.list_children(tx, job_id)}
        match plan(family, {name: _seen(child) for name, child in children.items()}):
            case Begin(parts):
                parent.progress = progress_of(
                    family, {name: child.progress for name, child in children.items()}
                )
                await self._begin(tx, parent, parts, children, now)
            case Wait():
                await family_rows.note_looked(tx, job_id)
            case Join():
                await self._join(tx, parent, now)
            case Fail(code, message):
                await self._fail(tx, parent, code, message, now)
        return True

    async def _begin(
        self,
        tx: Transaction,
        parent: Job,
        parts: Sequence[Part],
        children: dict[str, Job],
        now: datetime,
    ) -> None:
        if parent.deadline_at <= now:
            await self._fail(tx, parent, "deadline_exceeded", "the job's deadline passed", now)
            return
        made = await _made_by(tx, children)
        try:
            births = [await self._conceive(tx, parent, part, made, now) for part in parts]
        except (AppError, ValidationError) as exc:
            message = exc.message if isinstance(exc, AppError) else "a part cannot be asked for"
            await self._fail(tx, parent, InvalidInput.code, message, now)
            return
        sources = [await _find_source(tx, child) for child in births]
        pairs = list(zip(births, sources, strict=True))
        ready = [(child, source) for child, source in pairs if not isinstance(source, _UnderWay)]
        awaited = [child for child, source in pairs if isinstance(source, _UnderWay)]
        if ready:
            await self._bear(tx, parent, ready, now)
        if ready and awaited:
            # Looked at once more, for those that wait alone.
            await family_rows.make_parent_due(tx, parent.id, now=now)
            self._line.engine.enqueue(tx, Station.DISPATCH, plan_item(parent.id))
        elif awaited:
            await self._await(tx, parent, awaited[0], now)

    async def _await(self, tx: Transaction, parent: Job, child: Job, now: datetime) -> None:
        """Two who ask for the same at once pay once: the later one waits for the other's child."""
        await family_rows.note_looked(
            tx,
            parent.id,
            plan_at=now + timedelta(seconds=RECHECK_SAME_S),
            waiting_reason=f"the same {child.kind} is under way for another job",
            recipe=child.recipe,
        )
        self._line.hint_job(tx, parent)

    async def _conceive(self, tx: Transaction, parent: Job, part: Part, made: Made, now: datetime) -> Job:
        """The child, not stored yet, with its files held. Raises InvalidInput, ValidationError."""
        wanted = get_kind(parent.kind).input_model.model_validate(parent.input)
        asked = get_kind(part.kind).input_model.model_validate(part.ask(wanted, made))
        child = Job(
            id=make_id("job"),
            kind=part.kind,
            tenant=parent.tenant,
            state=JobState.QUEUED,
            input=asked.model_dump(mode="json"),
            # The books are kept by what callers say of their jobs.
            caller_metadata=parent.caller_metadata,
            provider=parent.provider,
            priority=parent.priority,
            retention_s=parent.retention_s,
            # Begun before what came after its parent.
            turn_at=parent.turn_at,
            created_at=now,
            deadline_at=parent.deadline_at,
            run_after=now,
            seq=FIRST_SEQ,
            parent_id=parent.id,
            step=part.name,
            said="",
        )
        await find_files(tx, child)
        child.recipe = recipe_of(child)
        return child

    async def _bear(
        self,
        tx: Transaction,
        parent: Job,
        births: Sequence[tuple[Job, _Source | None]],
        now: datetime,
    ) -> None:
        """Store the children and move the parent on, with one event that names them."""
        stage = births[0][0].step or ""
        if parent.state == JobState.QUEUED:
            begun = {"started_at": now, "stage": stage, "plan_at": None}
            cleared = {"waiting_reason": None, "waiting_for": None}
            moved = await job_rows.move_job(tx, parent.id, JobState.RUNNING, values={**begun, **cleared})
        else:
            moved = await family_rows.note_planned(tx, parent.id, stage, parent.progress)
        if not moved:
            return
        steps = {child.step or "": child.id for child, _ in births}
        await append_event(
            tx,
            parent.id,
            "job.planned",
            at=now,
            status="running",
            progress=round(parent.progress, 3),
            stage=stage,
            steps=steps,
        )
        self._line.hint_job(tx, parent)
        for child, source in births:
            if source is None:
                await self._store(tx, child)
                self._line.engine.enqueue(tx, Station.DISPATCH, child.id)
            else:
                await self._inherit(tx, child, source, now)
        log.info("family.planned", steps=list(steps))

    async def _store(self, tx: Transaction, child: Job) -> None:
        await job_rows.insert_jobs(tx, [child])
        files = {name: child.input[name] for name in get_kind(child.kind).files}
        if files:
            await insert_inputs(tx, child.id, files)
        await insert_first_events(
            tx, [child], "job.created", lambda job: {"status": job.state, "kind": job.kind}
        )
        self._line.hint_job(tx, child)

    async def _inherit(self, tx: Transaction, child: Job, source: _Source, now: datetime) -> None:
        """A child that is born with what an earlier job of the same recipe made."""
        child.state, child.result_of = JobState.FINISHING, source.job.result_of or source.job.id
        await self._store(tx, child)
        for name, asset_id in source.outputs.items():
            await insert_output(tx, child.id, name, asset_id)
        await self._line.end_job(
            tx,
            child,
            JobState.SUCCEEDED,
            now=now,
            outputs=sorted(source.outputs),
            made_by=child.result_of,
            measured=source.job.measured,
        )

    async def _join(self, tx: Transaction, parent: Job, now: datetime) -> None:
        progress = _parts_share(get_kind(parent.kind).family)
        moved = await job_rows.move_job(
            tx,
            parent.id,
            JobState.FINISHING,
            values={
                "run_after": now, "plan_at": None, "stage": "joining", "waiting_for": None,
                "waiting_reason": None, "progress": progress,
            },
        )  # fmt: skip
        if moved:
            await append_event(
                tx, parent.id, "job.finishing", at=now, status="finishing", progress=progress, stage="joining"
            )
            self._line.engine.enqueue(tx, Station.FINISH, parent.id)
            self._line.hint_job(tx, parent)

    async def _fail(self, tx: Transaction, parent: Job, code: str, message: str, now: datetime) -> None:
        log.warning("job.failed", code=code, reason=message)
        await self._line.end_job(tx, parent, JobState.FAILED, now=now, code=code, message=message)


def _seen(child: Job) -> Child:
    return Child(JobState(child.state), child.error_code, child.error_message)


def _parts_share(family: Family | None) -> float:
    return round(sum(part.share for part in family.parts), 4) if family else 0.0


async def _made_by(tx: Transaction, children: dict[str, Job]) -> Made:
    """What the children that have ended well have made, as asset ids by step and name."""
    outputs = await list_outputs(tx, *(child.id for child in children.values()))
    return {
        step: {name: asset.id for name, asset in outputs.get(child.id, {}).items()}
        for step, child in children.items()
    }


async def _find_source(tx: Transaction, child: Job) -> _Source | _UnderWay | None:
    """The earlier job that made the same, its outputs held until the commit; None where nobody has."""
    if child.recipe is None:
        return None
    made = await family_rows.find_made(tx, child.tenant, child.recipe)
    outputs = (await list_outputs(tx, made.id)).get(made.id, {}) if made else {}
    if made is not None and set(get_kind(child.kind).outputs) <= outputs.keys():
        held = [await hold_asset(tx, asset.id, tenant=child.tenant) for asset in outputs.values()]
        if None not in held:
            return _Source(made, {name: asset.id for name, asset in outputs.items()})
    is_under_way = await family_rows.find_under_way(tx, child.tenant, child.recipe)
    return _UnderWay() if is_under_way else None
