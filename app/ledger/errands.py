"""The two things a recovery can do with an item: ask the provider about an attempt, send a delivery again.

An errand chooses its items once, says what one would do, and does it: the news goes through the inbox like
any other, and is applied before the errand is over, so that what is told of it is what came of it. Done
twice, because whoever did it first died before writing it down, it finds its traces and does nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.errors import ProviderBadResponse
from app.inbox import Inbox
from app.incoming import dedupe_key
from app.ledger.effects import MOVING, Effect, Foresight, Oracle, earliest_expiry, remember
from app.ledger.replay import copy_of
from app.lifecycle import News
from app.line import Line
from app.provider.base import Provider, understand
from app.recovery import Finding, Found, Recovery
from db.inbox import find_delivery, find_known
from db.ledger.candidates import Wanted, find_pair, list_live, list_stored
from db.session import Transaction
from db.states import AttemptStatus
from db.tables import Attempt, Job, RecoveryItem, RecoveryRun

_UNHEARD = {Finding.UNREACHABLE: Effect.UNREACHABLE, Finding.UNASKED: Effect.UNASKED}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item, or would."""

    effect: Effect
    detail: str
    rerun_micros: int | None = None
    finding: str | None = None
    """What the provider's answer was, where one was asked."""
    delivery_id: str | None = None

    @classmethod
    def of(cls, told: Foresight, *, finding: str | None = None, delivery_id: str | None = None) -> Outcome:
        return cls(told.effect, told.detail, told.rerun_micros, finding, delivery_id)


class Errand(Protocol):
    """One kind of work."""

    at_once: int
    """How many items may be done at the same time."""

    async def choose(self, tx: Transaction, wanted: Wanted) -> list[RecoveryItem]:
        """The items, the most urgent first."""
        ...

    async def do(self, item: RecoveryItem, run: RecoveryRun | None) -> Outcome:
        """Do it for this run; without one, only say what would come of it. Raises DatabaseUnavailable."""
        ...


class Asking:
    """Asks the providers about live attempts."""

    at_once = 8

    def __init__(self, *, line: Line, inbox: Inbox, recovery: Recovery, oracle: Oracle) -> None:
        self._line = line
        self._inbox = inbox
        self._recovery = recovery
        self._oracle = oracle

    async def choose(self, tx: Transaction, wanted: Wanted) -> list[RecoveryItem]:
        now, life_of = self._line.clock.now(), self._line.settings.output_life_s
        lives_s = {name: life_of(name) for name in ("replicate", "cog")}
        gone_before = {name: now - timedelta(seconds=life_s) for name, life_s in lives_s.items() if life_s}
        found = await list_live(tx, wanted, gone_before=gone_before)
        return [
            _item(attempt.id, attempt.id, job.id, attempt.provider,
                  earliest_expiry(attempt, life_of(attempt.provider)))
            for attempt, job in found
        ]  # fmt: skip

    async def do(self, item: RecoveryItem, run: RecoveryRun | None) -> Outcome:
        pair = await self._find(item.row_id)
        if pair is None:
            return Outcome(Effect.NOTHING, "it was deleted meanwhile")
        attempt, job = pair
        if AttemptStatus(attempt.status).is_terminal:
            return self._ended(item, attempt, job)
        found = await self._recovery.look(attempt, dry_run=run is None)
        if run is None:
            return await self._foresee(found, attempt, job)
        if found.delivery_id is None:
            return Outcome(_UNHEARD.get(found.finding, Effect.NOTHING), found.detail, finding=found.finding)
        await self._inbox.step(found.delivery_id)
        return await self._witness(found, found.delivery_id, attempt, job)

    def _ended(self, item: RecoveryItem, attempt: Attempt, job: Job) -> Outcome:
        """It has ended since it was chosen: by what an earlier try at this item posted, or without us."""
        if item.begun_at is None or attempt.ended_at is None or attempt.ended_at < item.begun_at:
            return Outcome(Effect.NOTHING, f"it had ended as {attempt.status}")
        effect, detail = remember(attempt), attempt.error or "the output is there"
        told = Foresight(effect, detail)
        if effect is Effect.EXPIRED:
            told = self._oracle.expired(job, attempt, detail)
        return Outcome.of(told, finding=Finding.ENDED)

    async def _foresee(self, found: Found, attempt: Attempt, job: Job) -> Outcome:
        if found.news is None:
            return Outcome(_UNHEARD.get(found.finding, Effect.NOTHING), found.detail, finding=found.finding)
        async with self._line.database.reading() as tx:
            told = await self._oracle.foresee(tx, job, attempt, found.news)
        return Outcome.of(told, finding=found.finding)

    async def _witness(self, found: Found, delivery_id: str, attempt: Attempt, job: Job) -> Outcome:
        async with self._line.database.reading() as tx:
            delivery = await find_delivery(tx, delivery_id)
            pair = await find_pair(tx, attempt.id)
        outcome, detail = (delivery.outcome, delivery.detail) if delivery else (None, None)
        after = pair[0] if pair else attempt
        told = self._oracle.witness(job, after, found.news, outcome=outcome, detail=detail)
        return Outcome.of(told, finding=found.finding, delivery_id=delivery_id)

    async def _find(self, attempt_id: str) -> tuple[Attempt, Job] | None:
        async with self._line.database.reading() as tx:
            return await find_pair(tx, attempt_id)


class Replaying:
    """Sends stored deliveries again: those that would change something."""

    # In the order in which they came: of two ends of one attempt the first counts.
    at_once = 1

    def __init__(
        self, *, line: Line, inbox: Inbox, providers: Mapping[str, Provider], oracle: Oracle
    ) -> None:
        self._line = line
        self._inbox = inbox
        self._providers = providers
        self._oracle = oracle

    async def choose(self, tx: Transaction, wanted: Wanted) -> list[RecoveryItem]:
        life_s = self._line.settings.replicate_output_life_s
        gone_before = self._line.clock.now() - timedelta(seconds=life_s)
        return [
            _item(each.id, each.attempt_id, each.job_id, each.provider, None)
            for each in await list_stored(tx, wanted, gone_before=gone_before)
        ]

    async def do(self, item: RecoveryItem, run: RecoveryRun | None) -> Outcome:
        async with self._line.database.reading() as tx:
            original = await find_delivery(tx, item.row_id)
            pair = await find_pair(tx, item.attempt_id)
        if original is None or pair is None:
            return Outcome(Effect.NOTHING, "it was deleted meanwhile")
        provider = self._providers.get(original.provider)
        if provider is None:
            return Outcome(Effect.UNREADABLE, f"no provider {original.provider} is configured here")
        try:
            news: News = await understand(provider, original.body)
        except ProviderBadResponse as exc:
            return Outcome(Effect.UNREADABLE, exc.message)
        attempt, job = pair
        copy = copy_of(original, wish=run.id if run else None)
        if run is not None and item.begun_at is not None:
            async with self._line.database.reading() as tx:
                sent = await find_known(tx, dedupe_key(copy), copy.body)
            if sent is not None:
                return await self._settled(sent.id, attempt.id, job, news)
        async with self._line.database.reading() as tx:
            told = await self._oracle.foresee(tx, job, attempt, news)
        if told.effect is Effect.ALIVE:
            told = Foresight(Effect.NOTHING, told.detail)
        if run is None or told.effect not in MOVING:
            return Outcome.of(told)
        receipt = await self._inbox.receive(copy)
        return await self._settled(receipt.delivery_id, attempt.id, job, news)

    async def _settled(self, delivery_id: str, attempt_id: str, job: Job, news: News) -> Outcome:
        await self._inbox.step(delivery_id)
        async with self._line.database.reading() as tx:
            copy = await find_delivery(tx, delivery_id)
            pair = await find_pair(tx, attempt_id)
        if copy is None or pair is None:
            return Outcome(Effect.NOTHING, "it was deleted meanwhile")
        told = self._oracle.witness(job, pair[0], news, outcome=copy.outcome, detail=copy.detail)
        return Outcome.of(told, delivery_id=delivery_id)


def only_first_moves(items: Sequence[RecoveryItem], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What would come of them one after the other: the first end of an attempt leaves the next nothing."""
    moved: set[str] = set()
    told = []
    for item, outcome in zip(items, outcomes, strict=True):
        if outcome.effect in MOVING and item.attempt_id in moved:
            told.append(Outcome(Effect.NOTHING, "another before it ends the attempt"))
            continue
        if outcome.effect in MOVING:
            moved.add(item.attempt_id)
        told.append(outcome)
    return told


def _item(
    row_id: str, attempt_id: str, job_id: str, provider: str, expires_at: datetime | None
) -> RecoveryItem:
    return RecoveryItem(
        recovery_id="", number=0, row_id=row_id, attempt_id=attempt_id, job_id=job_id, provider=provider,
        expires_at=expires_at,
    )  # fmt: skip
