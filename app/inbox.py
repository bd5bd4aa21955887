"""The one door in: every piece of outside news is stored here before it is understood, then applied once.

`receive` stores and does nothing else; `step` understands a stored delivery, asks `lifecycle` what it means
and carries the decision out in one transaction together with settling the delivery. Promises: news that
was received is durable and deduplicated by the database; however often it comes, by whatever postman, it
has one effect; what is not understood is quarantined, never lost and never a crash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cache, partial

import structlog

from app.backoff import backoff_s, jittered
from app.crash_points import CrashPoint
from app.errors import Overloaded, ProviderBadResponse, ProviderUnavailable
from app.incoming import Incoming, Receipt, as_row
from app.lifecycle import Decision, Ignore, News, Silence, Standing, decide, find_trouble
from app.line import Line
from app.moves import Moves
from app.notify import DELIVERIES
from app.provider.base import LARGE_BYTES, Provider, understand
from app.routing.recovery import Case
from app.work import Station
from db import attempts as attempt_rows
from db import jobs as job_rows
from db.group_commit import GroupCommit, GroupCommitFull
from db.inbox import (
    SILENCE,
    Settlement,
    begin_delivery,
    find_delivery,
    find_known,
    list_due_deliveries,
    list_open_deliveries,
    lock_deliveries,
    note_conflict,
    postpone_delivery,
    settle_deliveries,
)
from db.ingress import NewDelivery, open_ingress
from db.session import DatabaseUnavailable, Transaction
from db.states import AttemptStatus, DeliveryOutcome, DeliverySource, JobState
from db.tables import Attempt, Delivery, Job

log = structlog.get_logger()

MOST_TRIES = 5
"""How often applying a delivery may fail, or end its process, before it is quarantined."""
MOST_REMEMBERED = 10_000
_FROM_OUTSIDE = (DeliverySource.WEBHOOK, DeliverySource.REPLAY)
"""Whose message ids are the provider's: a limit of ours may be told in other words."""


class Inbox:
    """The inbox station."""

    def __init__(self, *, line: Line, providers: Mapping[str, Provider]) -> None:
        self._line = line
        self._providers = providers
        self._moves = Moves(line=line, providers=providers)
        items_for = line.engine.items_for and partial(line.engine.items_for, Station.APPLY)
        self._ingress = open_ingress(line.database, items_for)
        self._group = GroupCommit(self._ingress.write)
        # The metric by its labels, a handful: finding it anew costs each delivery a lock and three texts.
        self._received = cache(line.metrics.deliveries_received.labels)
        self._began_at = line.clock.now()
        self._survived: dict[str, int] = {}
        """The tries of deliveries that the database left in the middle: those were no ends of a process."""

    async def receive(self, incoming: Incoming) -> Receipt:
        """Store news durably; returns after the commit. Raises Overloaded, DatabaseUnavailable."""
        delivery = as_row(incoming, self._line.clock.now())
        try:
            is_new = await self._group.submit(delivery)
        except GroupCommitFull as exc:
            raise Overloaded("too many deliveries are waiting to be stored", retry_after_s=1) from exc
        self._line.reach(CrashPoint.DELIVERY_COMMITTED)
        self._received(incoming.source.value, incoming.provider, "true" if is_new else "false").inc()
        if not is_new:
            return Receipt(await self._known(delivery), is_new=False)
        self._line.notifier.publish(DELIVERIES)
        if self._line.engine.items_for is None:
            # A hint only: if the process dies here, the first sweep of the next one finds the row.
            self._line.engine.hint(Station.APPLY, delivery.id)
        return Receipt(delivery.id, is_new=True)

    async def _known(self, again: NewDelivery) -> str:
        """The delivery that was there before; one that says something else under its id is held against it.

        The first stays what counts: whoever has our provider's secret and this id has said two things.
        """
        async with self._line.database.reading() as tx:
            known = await find_known(tx, again.dedupe_key, again.body)
        if known is None:
            return again.id  # deleted meanwhile
        if not known.is_same and again.source in _FROM_OUTSIDE:
            async with self._line.database.transaction() as tx:
                await note_conflict(tx, known.id)
            self._line.metrics.deliveries_conflicting.labels(again.source, again.provider).inc()
            log.warning("delivery.conflict", delivery_id=known.id, message_id=again.message_id)
        return known.id

    async def receive_news(self, source: DeliverySource, attempt: Attempt, body: bytes) -> Receipt:
        """Store what a provider answered to a question of ours about this attempt."""
        return await self.receive(Incoming(source, attempt.provider, attempt.id, body, job_id=attempt.job_id))

    async def receive_silence(self, silence: Silence, *, job_id: str, attempt: Attempt | None) -> Receipt:
        """Store that a limit of ours has passed."""
        limit = "job" if silence.whole_job else "attempt"
        return await self.receive(
            Incoming(
                DeliverySource.DEADLINE,
                attempt.provider if attempt else "reprise",
                attempt.id if attempt else "",
                _as_body(silence),
                message_id=f"{attempt.id if attempt else job_id}:{limit}",
                job_id=job_id,
            )
        )

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]:
        return await list_due_deliveries(tx, now=now, limit=limit)

    async def step(self, *delivery_ids: str) -> None:
        """Apply these deliveries; nothing is done to one that is settled already, by whoever.

        Those that nothing speaks against share a transaction. Raises DatabaseUnavailable; those that are not
        applied by then are due.
        """
        alone: Sequence[str] = delivery_ids
        if len(delivery_ids) > 1:
            alone = await self._step_together(delivery_ids)
        for delivery_id in alone:
            await self._step_alone(delivery_id)

    async def _step_together(self, delivery_ids: Sequence[str]) -> list[str]:
        """Apply what is small, understood and no danger; those that are left need a way of their own."""
        async with self._line.database.reading() as tx:
            found = await list_open_deliveries(tx, delivery_ids, most_bytes=LARGE_BYTES)
        left = set(delivery_ids) - {delivery.id for delivery in found}
        understood: list[tuple[Delivery, News]] = []
        for delivery in found:
            if delivery.received_at < self._began_at or not delivery.attempt_id:
                left.add(delivery.id)
                continue
            try:
                understood.append((delivery, await self._understand(delivery)))
            except Exception:  # noqa: BLE001 - on its own way it is said what is wrong with it
                left.add(delivery.id)
        try:
            if understood:
                await self._apply(understood)
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 - one of them is at fault: each for itself
            log.warning("deliveries.parted", reason=type(exc).__name__, count=len(understood))
            left.update(delivery.id for delivery, _ in understood)
        return sorted(left)

    async def _step_alone(self, delivery_id: str) -> None:
        async with self._line.database.reading() as tx:
            delivery = await find_delivery(tx, delivery_id)
        if delivery is None or delivery.settled_at is not None:
            return
        with structlog.contextvars.bound_contextvars(delivery_id=delivery.id, attempt_id=delivery.attempt_id):
            try:
                if await self._may_begin(delivery):
                    await self._understand_and_apply(delivery)
            except DatabaseUnavailable:
                if len(self._survived) < MOST_REMEMBERED:
                    self._survived[delivery.id] = delivery.tries
                raise
            except Exception as exc:  # noqa: BLE001 - one delivery must not hold up its neighbours
                await self._stumble(delivery, exc)

    async def _may_begin(self, delivery: Delivery) -> bool:
        """Count the try before it is made, where it may be the end of this process, and stop in time.

        That is: where the body is large, and where an earlier process left the delivery unsettled. Counting
        all would cost every webhook a commit more.
        """
        if len(delivery.body) < LARGE_BYTES and delivery.received_at >= self._began_at:
            return True
        delivery.tries = self._survived.pop(delivery.id, delivery.tries)
        if delivery.tries >= MOST_TRIES:
            await self._quarantine(delivery, f"applying it ended the process {MOST_TRIES} times")
            return False
        async with self._line.database.transaction() as tx:
            await begin_delivery(tx, delivery.id, tries=delivery.tries + 1)
        self._line.reach(CrashPoint.DELIVERY_BEGUN)
        return True

    async def _understand_and_apply(self, delivery: Delivery) -> None:
        try:
            news = await self._understand(delivery)
        except ProviderBadResponse as exc:
            await self._quarantine(delivery, exc.message)
            return
        except ProviderUnavailable as exc:
            # For a reason of its own, that is no fault of the delivery's.
            await self._postpone(delivery, exc.message, wait_s=jittered(30.0), tries=0)
            return
        await self._apply([(delivery, news)])

    async def foresee(self, tx: Transaction, job: Job, attempt: Attempt, news: News) -> Decision:
        """What this news would mean if it were applied now; nothing is changed."""
        now = self._line.clock.now()
        return decide(await self._standing(tx, job, attempt, news, now), news, now)

    async def aclose(self) -> None:
        await self._group.aclose()
        await self._ingress.aclose()

    async def _understand(self, delivery: Delivery) -> News:
        if delivery.source == DeliverySource.DEADLINE:
            return Silence(**json.loads(delivery.body))
        provider = self._providers.get(delivery.provider)
        if provider is None:
            # Not bad news: this process was started without the provider, another may have it.
            raise ProviderUnavailable(f"no provider {delivery.provider} is configured here")
        return await understand(provider, delivery.body)

    async def _stumble(self, delivery: Delivery, exc: Exception) -> None:
        """A fault of ours met this delivery: it waits longer each time, in the end for a person."""
        log.error("delivery.stumbled", delivery_id=delivery.id, tries=delivery.tries + 1, exc_info=exc)
        if delivery.tries + 1 >= MOST_TRIES:
            await self._quarantine(delivery, f"applying it failed {MOST_TRIES} times: {type(exc).__name__}")
            return
        tries = delivery.tries + 1
        wait_s = jittered(backoff_s(tries, first_s=2.0))
        await self._postpone(delivery, type(exc).__name__, wait_s=wait_s, tries=tries)

    async def _postpone(self, delivery: Delivery, detail: str, *, wait_s: float, tries: int) -> None:
        run_after = self._line.clock.now() + timedelta(seconds=wait_s)
        async with self._line.database.transaction() as tx:
            await postpone_delivery(tx, delivery.id, run_after=run_after, detail=detail, tries=tries)

    async def _quarantine(self, delivery: Delivery, reason: str) -> None:
        log.warning("delivery.quarantined", delivery_id=delivery.id, reason=reason)
        end = Settlement(delivery.id, DeliveryOutcome.QUARANTINED, reason, delivery.job_id)
        async with self._line.database.transaction() as tx:
            if await lock_deliveries(tx, [delivery.id]):
                await self._settle(tx, [end])

    async def _apply(self, news: Sequence[tuple[Delivery, News]]) -> None:
        """Apply these in one transaction."""
        self._line.reach(CrashPoint.DELIVERY_PARSED)
        # Idempotent by their settling: a second time finds them settled, and changes nothing.
        work = partial(self._apply_in, news=news)
        for delivery, end in await self._line.database.transact(work, is_idempotent=True):
            log.info(
                "delivery.applied",
                source=delivery.source,
                delivery_id=delivery.id,
                attempt_id=delivery.attempt_id,
                job_id=end.job_id,
                outcome=end.outcome,
                detail=end.detail,
            )
        self._line.reach(CrashPoint.DELIVERY_APPLIED)

    async def _apply_in(
        self, tx: Transaction, *, news: Sequence[tuple[Delivery, News]]
    ) -> list[tuple[Delivery, Settlement]]:
        """What became of each, but for those that somebody else has settled meanwhile."""
        now = self._line.clock.now()
        attempts = await attempt_rows.lock_attempts(tx, [delivery.attempt_id for delivery, _ in news])
        still_open = await lock_deliveries(tx, [delivery.id for delivery, _ in news])
        ends: list[tuple[Delivery, Settlement]] = []
        touched: set[str] = set()
        for delivery, told in news:
            if delivery.id not in still_open:
                continue
            pair = attempts.get(delivery.attempt_id)
            if pair and pair[0].id in touched:
                # News of its job before this has changed it.
                pair = (await attempt_rows.lock_attempts(tx, [delivery.attempt_id]))[delivery.attempt_id]
            if pair:
                touched.add(pair[0].id)
            ends.append((delivery, await self._apply_one(tx, delivery, told, pair, now)))
        await self._settle(tx, [end for _, end in ends])
        return ends

    async def _apply_one(
        self,
        tx: Transaction,
        delivery: Delivery,
        news: News,
        pair: tuple[Job, Attempt] | None,
        now: datetime,
    ) -> Settlement:
        if pair is None:
            return await self._apply_without_attempt(tx, delivery, news, now)
        job, attempt = pair
        decision = decide(await self._standing(tx, job, attempt, news, now), news, now)
        if await self._moves.carry_out(tx, decision, job, attempt, news, now, delivery):
            outcome, detail = DeliveryOutcome.APPLIED, type(decision).__name__.lower()
        elif isinstance(decision, Ignore):
            outcome, detail = decision.outcome, decision.detail
        else:
            outcome, detail = DeliveryOutcome.IGNORED, "another delivery had moved it"
        return Settlement(delivery.id, outcome, detail, job.id, _told(news))

    async def _apply_without_attempt(
        self, tx: Transaction, delivery: Delivery, news: News, now: datetime
    ) -> Settlement:
        """Nobody's news; or the job's deadline passed before it ever had an attempt."""
        job = await job_rows.find_job(tx, delivery.job_id, lock=True) if delivery.job_id else None
        if job is None:
            no_one = "no such attempt"
            return Settlement(delivery.id, DeliveryOutcome.ORPHANED, no_one, delivery.job_id, _told(news))
        if not isinstance(news, Silence) or JobState(job.state).is_terminal:
            said = f"the job is {job.state}"
            return Settlement(delivery.id, DeliveryOutcome.IGNORED, said, job.id, _told(news))
        await self._line.end_job(
            tx, job, JobState.FAILED, now=now, code="deadline_exceeded", message=news.detail
        )
        return Settlement(delivery.id, DeliveryOutcome.APPLIED, "fail", job.id, _told(news))

    async def _standing(
        self, tx: Transaction, job: Job, attempt: Attempt, news: News, now: datetime
    ) -> Standing:
        status, state = AttemptStatus(attempt.status), JobState(job.state)
        trouble = find_trouble(news)
        if trouble is None or status.is_terminal or state.is_terminal:
            # The remedy is not asked for: neither is what it would depend on.
            return Standing(status, state, Case(job.created_at, job.deadline_at, tries=1, max_tries=1))
        past = await attempt_rows.list_attempts(tx, job.id)
        return Standing(
            status,
            state,
            await self._line.router.case_of(tx, job, attempt, past, now=now, trouble=trouble),
        )

    async def _settle(self, tx: Transaction, ends: Sequence[Settlement]) -> None:
        """Write down what became of deliveries that this transaction has locked."""
        await settle_deliveries(tx, ends, now=self._line.clock.now())
        tx.after_commit(partial(self._count_settled, ends))

    def _count_settled(self, ends: Sequence[Settlement]) -> None:
        for end in ends:
            self._line.metrics.deliveries_settled.labels(end.outcome.value).inc()


def _told(news: News) -> str:
    """What the ledger keeps of it: the status word, or that it was our own clock."""
    return SILENCE if isinstance(news, Silence) else news.status[:32]


def _as_body(silence: Silence) -> bytes:
    """What is not said is left out: a release before this one knows fewer words."""
    facts = {name: value for name, value in asdict(silence).items() if value is not False}
    return json.dumps(facts).encode()
