"""Find the silent and the overdue, ask the provider, and post what it says as a delivery.

Recovery moves no row of a job by itself: whatever it learns enters through the inbox like any webhook, so
running it twice, or beside a webhook that comes late after all, is harmless. A prediction is only ever
matched to an attempt by the callback URL that the provider echoes; nobody gets somebody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from app.backoff import RetryBudget
from app.crash_points import CrashPoint
from app.errors import AppError, PredictionUnknown, ProviderBadResponse, ProviderUnavailable
from app.inbox import Inbox
from app.lifecycle import HANDED_BACK, News, Silence, next_check
from app.line import Line
from app.provider.base import Prediction, Provider
from db import attempts as attempt_rows
from db import jobs as job_rows
from db.inbox import has_unsettled
from db.processes import list_orphaned_attempts
from db.states import AttemptStatus, DeliverySource, JobState
from db.tables import Attempt, Job

log = structlog.get_logger()

ASK_LIMIT_S = 15.0
"""How long one question to a provider may take."""
BATCH = 100
ASKED_AT_ONCE = 8


class Finding(StrEnum):
    """What recovery learned about one attempt."""

    ENDED = "ended"
    """The provider has an end for it: posted, or would be."""
    ALIVE = "alive"
    """Still at work there."""
    LOST = "lost"
    """The provider does not know it, or its time is over: another attempt follows, or the job fails."""
    UNASKED = "unasked"
    """This provider cannot be asked; only its limit can end it."""
    UNREACHABLE = "unreachable"
    """The provider did not answer; asked again later."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was learned about one attempt."""

    attempt_id: str
    finding: Finding
    detail: str
    news: News | None = None
    """What was posted about it, or would be; None where nothing is."""
    delivery_id: str | None = None


class Recovery:
    """The recovery station: on a schedule (`check`), one by hand (`look`), when a worker died (`forget`)."""

    def __init__(self, *, line: Line, providers: Mapping[str, Provider], inbox: Inbox) -> None:
        self._line = line
        self._providers = providers
        self._inbox = inbox
        self._budgets = {name: RetryBudget(per_s=line.settings.retries_per_s) for name in providers}
        self.condemn: Callable[[str], None] | None = None
        """Ends the worker of this process; set by who runs one."""

    async def check(self) -> int:
        """Ask about every attempt that has been silent past its time, then end what is past its deadline."""
        now = self._line.clock.now()
        async with self._line.database.reading() as tx:
            silent = await attempt_rows.list_silent_attempts(tx, now=now, limit=BATCH)
        silent.sort(key=lambda attempt: self._urgency(attempt, now))
        await self._look_at_all(await self._in_budget(silent, now), now)
        return len(silent) + await self._end_overdue(now)

    def _urgency(self, attempt: Attempt, now: datetime) -> tuple[bool, datetime]:
        """First what expires soonest at the provider, last what must be gone there by now."""
        life_s = self._line.settings.output_life_s(attempt.provider)
        end_at = attempt.limit_at or attempt.created_at
        return life_s is not None and end_at < now - timedelta(seconds=life_s), attempt.created_at

    async def _in_budget(self, silent: Sequence[Attempt], now: datetime) -> list[Attempt]:
        """Those that may be asked about now; after an outage of ours all of them are silent at once."""
        asked = []
        for attempt in silent:
            budget = self._budgets.get(attempt.provider)
            wait_s = budget.book(attempt.id) if budget else 0.0
            if not wait_s:
                asked.append(attempt)
                continue
            async with self._line.database.transaction() as tx:
                await attempt_rows.note_attempt(tx, attempt.id, check_at=now + timedelta(seconds=wait_s))
        return asked

    async def look(self, attempt: Attempt, *, dry_run: bool) -> Found:
        """Ask about one live attempt, due or not, when its turn comes; with `dry_run` change nothing."""
        now = self._line.clock.now()
        if _is_being_created(attempt, now):
            return Found(attempt.id, Finding.UNASKED, "it is being created")
        budget = self._budgets.get(attempt.provider)
        wait_s = budget.book(attempt.id) if budget else 0.0
        if budget and wait_s:
            await asyncio.sleep(wait_s)
            budget.book(attempt.id)
        return await self._look(attempt, now, dry_run=dry_run)

    async def forget(self, owner: str, before: datetime) -> int:
        """The worker of this process died: end every attempt of its own that was begun before."""
        async with self._line.database.reading() as tx:
            attempts = await attempt_rows.list_live_attempts(tx, owner=owner, until=before, limit=10_000)
        return await self._forget(attempts, "the worker was restarted")

    async def forget_orphans(self, *, silent_since: datetime) -> int:
        """End the attempts of processes that have not been heard of since, and their workers with them."""
        async with self._line.database.reading() as tx:
            attempts = await list_orphaned_attempts(tx, silent_since=silent_since, limit=10_000)
        return await self._forget(attempts, "the process that ran it is gone")

    async def hand_back(self, owner: str) -> int:
        """This process stops, and its worker with it: let others begin anew what it had in hand."""
        async with self._line.database.reading() as tx:
            attempts = await attempt_rows.list_live_attempts(tx, owner=owner, limit=10_000)
        return await self._forget(attempts, HANDED_BACK, handed_back=True)

    async def _forget(self, attempts: Sequence[Attempt], detail: str, *, handed_back: bool = False) -> int:
        forgotten = 0
        for attempt in attempts:
            async with self._line.database.reading() as tx:
                has_news = await has_unsettled(tx, attempt.id)
            # What it had told us goes first: it may be a result.
            if not has_news:
                await self._post_lost(attempt, detail, worker_died=True, handed_back=handed_back)
                forgotten += 1
        return forgotten

    async def _look_at_all(self, attempts: Sequence[Attempt], now: datetime) -> None:
        """Ask about several at once: one provider that hangs must not hold up the rest for minutes."""
        turns = asyncio.Semaphore(ASKED_AT_ONCE)

        async def look(attempt: Attempt) -> None:
            async with turns:
                await self._look(attempt, now, dry_run=False)

        await asyncio.gather(*(look(attempt) for attempt in attempts))

    async def _look(self, attempt: Attempt, now: datetime, *, dry_run: bool) -> Found:
        """Ask about one attempt and post what came of it."""
        with structlog.contextvars.bound_contextvars(attempt_id=attempt.id, job_id=attempt.job_id):
            try:
                prediction = await self._ask(attempt)
            except PredictionUnknown as exc:
                return await self._unknown(attempt, now, exc, dry_run=dry_run)
            except ProviderBadResponse as exc:
                if not dry_run:
                    await self._inbox.receive_news(DeliverySource.POLL, attempt, exc.raw)
                    await self._check_later(attempt, now)
                return Found(attempt.id, Finding.UNREACHABLE, exc.message)
            except (AppError, TimeoutError) as exc:
                if not dry_run:
                    await self._check_later(attempt, now)
                return Found(attempt.id, Finding.UNREACHABLE, str(exc) or "no answer in time")
            self._line.reach(CrashPoint.POLL_ANSWERED)
            return await self._heard(attempt, prediction, now, dry_run=dry_run)

    async def _ask(self, attempt: Attempt) -> Prediction:
        """The provider's word on it. Raises PredictionUnknown, ProviderUnavailable, TimeoutError."""
        provider = self._providers.get(attempt.provider)
        if provider is None:
            raise ProviderUnavailable(f"{attempt.provider} is not configured any more")
        call = "find" if attempt.prediction_id is None else "get"
        with self._line.metrics.outside_call(attempt.provider, call):
            async with asyncio.timeout(ASK_LIMIT_S):
                if attempt.prediction_id is not None:
                    return await provider.get(attempt.prediction_id)
                # How far the provider's clock may be behind ours is its adapter's to know.
                found = await provider.find(attempt.id, since=attempt.created_at)
        if found is None:
            raise PredictionUnknown("the provider has no prediction for this attempt")
        return found

    async def _heard(
        self, attempt: Attempt, prediction: Prediction, now: datetime, *, dry_run: bool
    ) -> Found:
        """Post what the provider told, and end what it has not begun or not ended in time."""
        silence = None if prediction.status in _ENDS else await self._find_silence(attempt, prediction, now)
        finding = Finding.ALIVE if silence is None else Finding.LOST
        found = Found(attempt.id, finding, prediction.status, silence or prediction)
        if prediction.status in _ENDS:
            found = replace(found, finding=Finding.ENDED)
        if silence is not None:
            found = replace(found, detail=silence.detail)
        if dry_run:
            return found
        if prediction.id and attempt.prediction_id is None:
            async with self._line.database.transaction() as tx:
                await attempt_rows.note_attempt(tx, attempt.id, prediction_id=prediction.id)
            self._line.reach(CrashPoint.PREDICTION_FOUND)
        receipt = await self._inbox.receive_news(DeliverySource.POLL, attempt, prediction.raw)
        if silence is None:
            await self._check_later(attempt, now)
            return replace(found, delivery_id=receipt.delivery_id)
        # Said before the provider's own "canceled" can come and say less.
        receipt = await self._inbox.receive_silence(silence, job_id=attempt.job_id, attempt=attempt)
        await self._cancel(attempt, prediction.id)
        return replace(found, delivery_id=receipt.delivery_id)

    async def _find_silence(self, attempt: Attempt, prediction: Prediction, now: datetime) -> Silence | None:
        """Which limit of ours a prediction that is still alive has passed."""
        if _is_cold(attempt, prediction, now):
            waited_s = (now - attempt.created_at).total_seconds()
            return Silence(f"not begun {waited_s:.0f} s after it was taken", cold=True)
        if await self._is_unwanted(attempt, now):
            return Silence(f"still {prediction.status} at its limit")
        return None

    async def _unknown(
        self, attempt: Attempt, now: datetime, error: PredictionUnknown, *, dry_run: bool
    ) -> Found:
        """No such prediction; of a provider that cannot be asked and had said yes, only the limit tells."""
        provider = self._providers[attempt.provider]
        past_limit = await self._is_unwanted(attempt, now)
        never_confirmed = attempt.status == AttemptStatus.PENDING
        if not provider.can_poll and not past_limit and not never_confirmed:
            if not dry_run:
                await self._check_later(attempt, now)
            return Found(attempt.id, Finding.UNASKED, error.message)
        silence = Silence(error.message if not past_limit else "silent past its limit")
        found = Found(attempt.id, Finding.LOST, error.message, silence)
        if dry_run:
            return found
        await self._cancel(attempt, attempt.prediction_id or attempt.id)
        receipt = await self._inbox.receive_silence(silence, job_id=attempt.job_id, attempt=attempt)
        if past_limit and self.condemn is not None and attempt.owner == self._line.process_id:
            # Our own engine, past all it may take: a hang in native code hears no cancel.
            self.condemn(f"{attempt.id} ran past its limit")
        return replace(found, delivery_id=receipt.delivery_id)

    async def _is_unwanted(self, attempt: Attempt, now: datetime) -> bool:
        """Whether the attempt's time is over, or its job has ended without it."""
        job = await self._find_job(attempt.job_id)
        if job is None or JobState(job.state).is_terminal:
            return True
        return now >= self._limit_at(attempt, job)

    def _limit_at(self, attempt: Attempt, job: Job | None) -> datetime:
        """When the attempt's time is over, at the latest with its job's."""
        # An attempt of an older release has no limit of its own.
        limit_s = self._line.settings.attempt_limit_s(job.kind if job else "")
        limit_at = attempt.limit_at or attempt.created_at + timedelta(seconds=limit_s)
        return min(limit_at, job.deadline_at) if job else limit_at

    async def _check_later(self, attempt: Attempt, now: datetime) -> None:
        job = await self._find_job(attempt.job_id)
        begun = attempt.status not in (AttemptStatus.PENDING, AttemptStatus.STARTING)
        check_at = next_check(
            attempt.created_at,
            now,
            silence_s=self._line.settings.silence_s,
            limit_at=self._limit_at(attempt, job),
            start_by=None if begun else attempt.start_by,
        )
        async with self._line.database.transaction() as tx:
            await attempt_rows.note_attempt(tx, attempt.id, check_at=check_at)

    async def _end_overdue(self, now: datetime) -> int:
        """Post the deadline of every live job that is past it; its prediction was asked about first."""
        async with self._line.database.reading() as tx:
            overdue = await job_rows.list_overdue_jobs(tx, now=now, limit=BATCH)
            attempts = await attempt_rows.list_attempts(tx, *(job.id for job in overdue))
        for job in overdue:
            live = [
                each
                for each in attempts
                if each.job_id == job.id and not AttemptStatus(each.status).is_terminal
            ]
            attempt = live[-1] if live else None
            if attempt and await self._has_end(attempt, now):
                continue
            reason = f" ({job.waiting_reason})" if job.waiting_reason else ""
            detail = f"the job's deadline passed while it was {job.state}{reason}"
            await self._inbox.receive_silence(Silence(detail, whole_job=True), job_id=job.id, attempt=attempt)
        return len(overdue)

    async def _has_end(self, attempt: Attempt, now: datetime) -> bool:
        """Whether the provider's own end of it is stored and about to be applied.

        An end that was applied, or quarantined, and left the job alive will not end it later either.
        """
        if (await self._look(attempt, now, dry_run=False)).finding is not Finding.ENDED:
            return False
        async with self._line.database.reading() as tx:
            return await has_unsettled(tx, attempt.id)

    async def _post_lost(
        self,
        attempt: Attempt,
        detail: str,
        *,
        worker_died: bool = False,
        handed_back: bool = False,
    ) -> None:
        silence = Silence(detail, worker_died=worker_died, handed_back=handed_back)
        await self._inbox.receive_silence(silence, job_id=attempt.job_id, attempt=attempt)

    async def _cancel(self, attempt: Attempt, prediction_id: str | None) -> None:
        """Stop paying for it, if the provider can be told; nothing hangs on it."""
        if prediction_id is None:
            return
        try:
            async with asyncio.timeout(ASK_LIMIT_S):
                await self._providers[attempt.provider].cancel(prediction_id)
            self._line.reach(CrashPoint.PREDICTION_CANCELED)
        except (AppError, TimeoutError) as exc:
            log.warning("attempt.cancel_failed", reason=str(exc))

    async def _find_job(self, job_id: str) -> Job | None:
        async with self._line.database.reading() as tx:
            return await job_rows.find_job(tx, job_id)


_ENDS = frozenset(status.value for status in AttemptStatus if status.is_terminal)


def _is_cold(attempt: Attempt, prediction: Prediction, now: datetime) -> bool:
    """Whether the provider has still not begun what another could have begun by now."""
    return (
        prediction.status == AttemptStatus.STARTING
        and attempt.start_by is not None
        and now >= attempt.start_by
    )


def _is_being_created(attempt: Attempt, now: datetime) -> bool:
    """The provider need not know it yet: calling it lost would make it twice."""
    return attempt.status == AttemptStatus.PENDING and attempt.check_at > now
