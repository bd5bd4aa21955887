"""The commands that callers give: submit, read, wait, cancel, retry.

Promises: a job that was accepted is stored with its first event and its work item in one transaction; an
`Idempotency-Key` makes one job however often it is sent; a waiter subscribes before it reads, so it cannot
miss the end. Leaves what happens to a job afterwards to the stations.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from app.access.callers import DEFAULT_TENANT, OPEN_HOUSE, Caller
from app.access.trail import Act, act_of, note_act
from app.announcing.endpoints import check_callback
from app.crash_points import CrashPoint
from app.errors import Conflict, Gone, InvalidInput, NotFound, Overloaded
from app.intake import Asked, Intake
from app.intake.forecast import Forecast, Forecaster
from app.kinds import get_kind
from app.line import Line
from app.notify import RECOVERY, job_topic
from app.outbound import Outbound
from app.views import JobView, Views
from app.workspace import Disks
from db import attempts as attempt_rows
from db import events as event_rows
from db import jobs as job_rows
from db.ids import make_id
from db.search.pages import JobFilter, Place, list_jobs
from db.session import Transaction
from db.states import JobState
from db.tables import Event, Job

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a caller asks for, before it is checked against its kind."""

    kind: str
    input: dict[str, Any]
    metadata: dict[str, Any]
    provider: str = "auto"
    deadline_s: float | None = None
    priority: int = 0
    tenant: str = DEFAULT_TENANT
    callback_url: str | None = None
    """Where the job's end is announced."""
    retention_s: float | None = None


class Jobs:
    """The commands. One object a runtime."""

    def __init__(
        self, *, line: Line, providers: Mapping[str, int | None], disks: Disks, outbound: Outbound
    ) -> None:
        """`providers` that are configured, with how many predictions each takes at once, if bounded."""
        self._line = line
        self._disks = disks
        self._outbound = outbound
        self._providers = providers
        self._views = Views(line.database)
        self._intake = Intake(line=line)
        self._forecaster = Forecaster(line=line, slots=providers)
        self._closing = False

    async def forecast(self, request: JobRequest) -> Forecast:
        """What would become of this request. Stores nothing. Raises InvalidInput naming the field."""
        job = self._job(request)
        await self._check_callback(request)
        return await self._forecaster.look(job)

    async def submit(self, request: JobRequest, *, idempotency_key: str | None = None) -> JobView:
        """Accept a job. Raises InvalidInput naming the field, Conflict, Overloaded, BudgetExceeded."""
        job = self._job(request)
        await self._check_callback(request)
        await self._refuse_without_room()
        asked = Asked(job, idempotency_key, _fingerprint(request) if idempotency_key is not None else "")
        job_id = await self._intake.accept(asked)
        self._line.reach(CrashPoint.JOB_COMMITTED)
        if job_id != job.id:
            return await self.get(job_id, tenant=job.tenant)
        self._note_accepted(job)
        return JobView(job, [], {})

    def _job(self, request: JobRequest) -> Job:
        """The job of a request that makes sense. Raises InvalidInput naming the field."""
        checked, now = self._check(request), self._line.clock.now()
        return Job(
            id=make_id("job"),
            kind=request.kind,
            tenant=request.tenant,
            state=JobState.QUEUED,
            input=checked,
            caller_metadata=request.metadata,
            provider=request.provider,
            priority=request.priority,
            retention_s=request.retention_s,
            turn_at=job_rows.turn_of(now, request.priority),
            created_at=now,
            deadline_at=now + timedelta(seconds=request.deadline_s or self._line.settings.job_deadline_s),
            run_after=now,
            seq=event_rows.FIRST_SEQ,
            callback_url=request.callback_url,
        )

    async def _check_callback(self, request: JobRequest) -> None:
        if request.callback_url is not None:
            await check_callback(self._outbound, request.callback_url)

    async def get(self, job_id: str, *, tenant: str = DEFAULT_TENANT) -> JobView:
        """Read a job. Raises NotFound, in the same words for another tenant's."""
        view = await self._views.find(job_id)
        if view is None or view.job.tenant != tenant:
            raise _no_job(job_id)
        return view

    async def wait(self, job_id: str, *, timeout_s: float, tenant: str = DEFAULT_TENANT) -> JobView:
        """Read a job once it has ended, or as it stands after the timeout or at a stop. Raises NotFound."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        has_waited = False
        with self._line.notifier.subscribe(job_topic(job_id)) as subscription:
            while True:
                # Subscribed before reading: an end between the two is heard, not missed.
                view = await self.get(job_id, tenant=tenant)
                left_s = deadline - asyncio.get_running_loop().time()
                if view.is_ended or left_s <= 0 or self._closing:
                    break
                has_waited = True
                await subscription.wait(left_s)
        if has_waited:
            self.note_woken(view)
        return view

    def note_woken(self, view: JobView) -> None:
        """A waiter has read this job's end: count how long after it that was."""
        if view.job.finished_at is not None:
            woken_s = (self._line.clock.now() - view.job.finished_at).total_seconds()
            self._line.metrics.wake_seconds.observe(max(0.0, woken_s))

    @property
    def is_closing(self) -> bool:
        """Whether this process is about to stop: nobody waits here any longer."""
        return self._closing

    def release_waiters(self) -> None:
        """Answer everybody who waits with the job as it stands, from now on at once."""
        self._closing = True
        self._line.notifier.publish_all()

    async def list_jobs(self, wanted: JobFilter, *, limit: int) -> tuple[list[JobView], Place | None]:
        """Newest first, and the `before` of the next page; None when there is none."""
        async with self._line.database.reading() as tx:
            jobs, place = await list_jobs(tx, wanted, limit=limit)
            return await self._views.of(tx, jobs), place

    async def list_events(
        self, job_id: str, *, tenant: str = DEFAULT_TENANT, after_seq: int = 0, limit: int = 1000
    ) -> list[Event]:
        """The job's events after `after_seq`. Raises NotFound."""
        async with self._line.database.reading() as tx:
            job = await job_rows.find_job(tx, job_id)
            if job is None or job.tenant != tenant:
                raise _no_job(job_id)
            return await event_rows.list_events(tx, job_id, after_seq=after_seq, limit=limit)

    async def cancel(self, job_id: str, *, by: Caller = OPEN_HOUSE) -> JobView:
        """End a job as canceled. Raises NotFound, and Conflict when it ended otherwise before.

        A prediction under way is asked to stop by recovery, which is told to look at once: the row says
        canceled from now on, whatever the provider still answers.
        """
        now = self._line.clock.now()

        async def end(tx: Transaction) -> bool:
            job = await job_rows.find_job(tx, job_id, lock=True)
            if job is None or job.tenant != by.tenant:
                raise _no_job(job_id)
            refuse_child(job)
            moved = await self._line.end_job(tx, job, JobState.CANCELED, now=now)
            if moved:
                await note_act(tx, by, Act.JOB_CANCELED, job_id, at=now)
                for attempt in await attempt_rows.list_attempts(tx, job_id):
                    await attempt_rows.note_attempt(tx, attempt.id, check_at=now)
                self._line.notifier.announce(tx, RECOVERY)
            return moved

        # Idempotent: canceling what is canceled already is answered alike.
        moved = await self._line.database.transact(end, is_idempotent=True)
        if moved:
            self._line.reach(CrashPoint.JOB_CANCELED)
        view = await self.get(job_id, tenant=by.tenant)
        if not moved and view.job.state != JobState.CANCELED:
            raise Conflict(f"the job has ended as {view.job.state}")
        return view

    async def retry(
        self, job_id: str, *, by: Caller = OPEN_HOUSE, idempotency_key: str | None = None
    ) -> JobView:
        """Ask again for what a failed or canceled job asked: a new job that names the old one.

        The same key makes one new job, as with `submit`. Raises NotFound, Conflict while the job is alive or
        when it succeeded, Gone when it was expunged, and as `submit`.
        """
        old = (await self.get(job_id, tenant=by.tenant)).job
        refuse_child(old)
        if old.expunged_at is not None:
            raise Gone("what it asked for was expunged")
        if old.state not in (JobState.FAILED, JobState.CANCELED):
            raise Conflict(f"only a failed or canceled job can be retried; this one is {old.state}")
        return await self.submit_again(
            old, {"retry_of": old.id}, by=by, act=Act.JOB_RETRIED, idempotency_key=idempotency_key
        )

    async def submit_again(
        self,
        old: Job,
        values: Mapping[str, Any],
        *,
        by: Caller,
        act: Act,
        idempotency_key: str | None = None,
    ) -> JobView:
        """A new job like an old one but for these values, all of its life before it. Raises as `submit`."""
        await self._refuse_without_room()
        now = self._line.clock.now()
        span = old.deadline_at - old.created_at
        job = old.model_copy(
            update={
                "id": make_id("job"),
                "state": JobState.QUEUED,
                "created_at": now,
                "turn_at": job_rows.turn_of(now, old.priority),
                "run_after": now,
                "deadline_at": now + span,
                **dict.fromkeys(_FORGOTTEN_ON_RETRY),
                "progress": 0.0,
                "crashes": 0,
                "seq": event_rows.FIRST_SEQ,
                **values,
            }
        )
        asked = Asked(
            job,
            idempotency_key,
            _digest(act, old.id, sorted(values.items())),
            act=act_of(by, act, old.id, at=now),
        )
        if (known_id := await self._intake.accept(asked)) != job.id:
            return await self.get(known_id, tenant=by.tenant)
        self._note_accepted(job)
        return JobView(job, [], {})

    async def aclose(self) -> None:
        """Returns once every job that was handed in is stored or refused."""
        await self._intake.aclose()

    def _check(self, request: JobRequest) -> dict[str, Any]:
        get_kind(request.kind)
        if request.provider != "auto" and request.provider not in self._providers:
            known = ", ".join(["auto", *self._providers])
            raise InvalidInput(f"no such provider here; there are {known}", field="provider")
        if request.provider == "auto" and not self._providers:
            raise InvalidInput("no provider is configured", field="provider")
        if not self._line.router.can_take(request.kind, request.provider):
            who = request.provider if request.provider != "auto" else "what is configured here"
            raise InvalidInput(f"{who} has no model for {request.kind}", field="provider")
        if not _is_storable(request.metadata):
            raise InvalidInput(_UNSTORABLE.format("metadata"), field="metadata")
        if len(json.dumps(request.metadata)) > 16_384:
            raise InvalidInput("metadata may take at most 16 kB as JSON", field="metadata")
        return self.check_input(request.kind, request.input)

    def check_input(self, kind_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """An input as its kind takes it. Raises InvalidInput naming the field."""
        kind = get_kind(kind_name)
        try:
            checked = kind.input_model.model_validate(given).model_dump(mode="json")
        except ValidationError as exc:
            first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
            field = ".".join(["input", *(str(part) for part in first["loc"])])
            raise InvalidInput(f"{field}: {first['msg']}", field=field) from exc
        for name, value in checked.items():
            if not _is_storable(value):
                raise InvalidInput(_UNSTORABLE.format(f"input.{name}"), field=f"input.{name}")
        return checked

    def _note_accepted(self, job: Job) -> None:
        self._line.metrics.jobs_submitted.labels(job.kind).inc()
        log.info("job.submitted", job_id=job.id, kind=job.kind)

    async def _refuse_without_room(self) -> None:
        """Jobs under way need the last of a disk to come to their end."""
        shortage = await self._disks.find_shortage(within_s=_LOOK_AT_DISKS_S)
        if shortage is not None:
            raise Overloaded(f"the disk is nearly full ({shortage})", retry_after_s=30)


_LOOK_AT_DISKS_S = 0.5
"""How old a look at the disks may be: a burst of jobs shares one."""

_FORGOTTEN_ON_RETRY = (
    "stage",
    "waiting_reason",
    "waiting_for",
    "started_at",
    "finished_at",
    "lease",
    "lease_until",
    "leased_by",
    "error_code",
    "error_message",
    "expires_at",
    "rerun_of",
    "result_of",
    "reserved_micros",
    "measured",
)


_UNSTORABLE = "{}: no NUL, half surrogate pair, NaN or infinity, and no deep nesting, can be stored"


def _is_storable(value: object, depth: int = 32) -> bool:
    """Whether JSON can say it and both databases can hold it and search in it."""
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
        case float():
            return math.isfinite(value)
        case dict():
            inner: list[object] = [*value.keys(), *value.values()]
            return depth > 0 and all(_is_storable(each, depth - 1) for each in inner)
        case list():
            return depth > 0 and all(_is_storable(each, depth - 1) for each in value)
        case _:
            return True


def _fingerprint(request: JobRequest) -> str:
    """SHA-256 of the request in one canonical spelling."""
    return _digest(
        request.kind,
        request.input,
        request.metadata,
        request.provider,
        request.deadline_s,
        request.priority,
        # Only where they were given: what was asked before there were any keeps its fingerprint.
        *([request.callback_url] if request.callback_url is not None else []),
        *([{"retention_s": request.retention_s}] if request.retention_s is not None else []),
    )


def _digest(*parts: object) -> str:
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def refuse_child(job: Job) -> None:
    """What a caller does, it does to the job that it asked for. Raises Conflict for a part of one."""
    if job.parent_id is not None:
        raise Conflict(f"it is a part of {job.parent_id}: act on that")


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id[:64]}")
