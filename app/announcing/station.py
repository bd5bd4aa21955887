"""The announce station: post what is due, signed, and note what came back.

One step is one try: claim the row under a lease, post it through the one guarded door (which judges the
address again), note the attempt. Promises: an announcement that was written with its job's end is sent until
it is answered 2xx, its schedule is spent or its endpoint is disabled; a process that dies between sending and
noting leads to the same bytes under the same `webhook-id` again, never to silence; one receiver that hangs
holds `ANNOUNCE_PER_RECEIVER` turns and no more. What follows an answer is `schedule`'s to say.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from random import random
from typing import Any

import structlog

from app.announcing.endpoints import address_of
from app.announcing.schedule import Wait, is_steady, judge, wait_after
from app.announcing.signing import secrets_of
from app.announcing.turns import Turns
from app.crash_points import CrashPoint
from app.errors import OutputRejected, ProviderUnavailable
from app.line import Line
from app.outbound import Outbound
from app.provider.signature import WebhookSecrets
from app.work import Station
from db.announcements import sending
from db.announcements.endpoints import find_endpoint, lock_endpoint, save_endpoint
from db.session import DatabaseUnavailable, Transaction
from db.states import AnnouncementOutcome, AnnouncementState
from db.tables import Announcement, AnnouncementAttempt, Endpoint

log = structlog.get_logger()

Outcome = AnnouncementOutcome
LEASE_MARGIN_S = 15.0
"""How much longer than a try a lease lasts: for the commits around it."""
KEPT_BODY_BYTES = 4096
KEPT_HEADERS = 32
KEPT_HEADER_CHARS = 256
_NOT_KEPT = frozenset({"set-cookie", "authorization", "www-authenticate", "proxy-authenticate"})


@dataclass(frozen=True, slots=True)
class Claimed:
    """An announcement under a lease of ours, and what signs it."""

    row: Announcement
    lease: str
    signer: WebhookSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try, and what came of it."""

    at: datetime
    latency_ms: int
    outcome: Outcome
    status: int | None = None
    error: str | None = None
    told_s: float | None = None
    sent: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Announcer:
    """The station. One a process."""

    def __init__(self, *, line: Line, outbound: Outbound) -> None:
        self._line = line
        self._outbound = outbound
        self._turns = Turns(line.settings.announce_per_receiver)

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]:
        return await sending.list_due_announcements(
            tx, now=now, limit=limit, per_receiver=self._line.settings.announce_per_receiver
        )

    async def step(self, announcement_id: str) -> None:
        """One try at an announcement, if it is due and its receiver has a turn left.

        Raises DatabaseUnavailable; what was not noted by then is sent again when the lease has run out.
        """
        async with self._line.database.reading() as tx:
            waiting = await sending.find_announcement(tx, announcement_id)
        early = self._line.clock.now() + timedelta(seconds=sending.EARLY_S)
        if waiting is None or waiting.state != AnnouncementState.PENDING or waiting.run_after > early:
            return
        if not self._turns.take(waiting.receiver):
            return  # Whoever has one looks for what is due after it.
        try:
            with structlog.contextvars.bound_contextvars(announcement_id=waiting.id, job_id=waiting.job_id):
                await self._step(waiting)
        finally:
            self._turns.give_back(waiting.receiver)
        await self._hand_on(waiting.receiver)

    async def _hand_on(self, receiver: str) -> None:
        """Let the next one that is due there have the turn.

        By an item of its own, not a hint: one for a row whose item is being worked on is left out, and that
        step may have found no turn a moment ago.
        """
        async with self._line.database.reading() as tx:
            following = await sending.list_due_of(tx, receiver, now=self._line.clock.now(), limit=1)
        if following:
            async with self._line.database.transaction() as tx:
                self._line.engine.enqueue(tx, Station.ANNOUNCE, *following)

    async def _step(self, waiting: Announcement) -> None:
        lease = secrets.token_hex(16)
        try:
            claimed = await self._claim(waiting, lease)
            if claimed is None:
                return
            self._line.reach(CrashPoint.ANNOUNCEMENT_CLAIMED)
            tried = await self._send(claimed)
            self._line.reach(CrashPoint.ANNOUNCEMENT_SENT)
            await self._note(claimed, tried)
            self._line.reach(CrashPoint.ANNOUNCEMENT_NOTED)
        except asyncio.CancelledError:
            # Handed back at a stop: the next process need not wait for the lease.
            await self._let_go(waiting.id, lease)
            raise

    async def _claim(self, waiting: Announcement, lease: str) -> Claimed | None:
        """Take the lease; None when it is not to be sent now. What ended its process too often never is."""
        lease_s = self._line.settings.announce_timeout_s + LEASE_MARGIN_S

        async def claim(tx: Transaction) -> tuple[Announcement, list[str]] | None:
            now = self._line.clock.now()
            row = await sending.claim_announcement(tx, waiting.id, lease=lease, now=now, lease_s=lease_s)
            if row is None:
                return None
            endpoint = await find_endpoint(tx, row.endpoint_id)
            if endpoint is not None and await self._is_barred(tx, row, endpoint, lease, now):
                return None
            return row, [each.value for each in await secrets_of(tx, row.tenant, now=now)]

        found = await self._line.database.transact(claim)
        if found is None:
            return None
        row, live = found
        if row.crashes > self._line.settings.max_crashes:
            error = f"sending it ended the process {row.crashes - 1} times"
            tried = Try(at=self._line.clock.now(), latency_ms=0, outcome=Outcome.ABANDONED, error=error)
            await self._note(Claimed(row, lease, WebhookSecrets(live)), tried)
            return None
        return Claimed(row, lease, WebhookSecrets(live))

    async def _is_barred(
        self, tx: Transaction, row: Announcement, endpoint: Endpoint, lease: str, now: datetime
    ) -> bool:
        """Whether its endpoint wants nothing now: then it waits, or is held, and no try is counted."""
        if endpoint.disabled_at is not None:
            error = f"the endpoint is disabled ({endpoint.disabled_reason})"
            held = {"state": AnnouncementState.HELD, "settled_at": now, "error": error}
            return await sending.note_announcement(tx, row.id, lease=lease, **held)
        if endpoint.paused_until is not None and endpoint.paused_until > now:
            return await sending.note_announcement(tx, row.id, lease=lease, run_after=endpoint.paused_until)
        return False

    async def _send(self, claimed: Claimed) -> Try:
        """Post it once. Never raises but for a fault of ours."""
        row, body = claimed.row, claimed.row.payload.encode()
        at, began = self._line.clock.now(), time.perf_counter()
        timestamp_s = int(time.time())  # Not the line's clock: the receiver holds it against its own.
        plain = {
            "webhook-id": row.id,
            "webhook-timestamp": str(timestamp_s),
            "content-type": "application/json",
        }
        signed = {**plain, "webhook-signature": claimed.signer.sign(row.id, timestamp_s, body)}
        answer: dict[str, Any]
        try:
            with self._line.metrics.outside_call("receiver", "announce"):
                reply = await self._outbound.post(
                    row.url,
                    content=body,
                    headers=signed,
                    timeout_s=self._line.settings.announce_timeout_s,
                    max_response_bytes=KEPT_BODY_BYTES,
                )
        except OutputRejected as exc:
            answer = {"outcome": Outcome.BLOCKED, "error": exc.message}
        except ProviderUnavailable as exc:
            answer = {"outcome": Outcome.UNREACHABLE, "error": exc.message}
        else:
            outcome = judge(reply.status)
            answer = {
                "outcome": outcome,
                "status": reply.status,
                "error": None if outcome is Outcome.DELIVERED else _words(reply.status),
                "told_s": reply.retry_after_s,
                "headers": _kept(reply.headers),
                "body": reply.body,
            }
        latency_ms = round((time.perf_counter() - began) * 1000)
        return Try(at=at, latency_ms=latency_ms, sent=plain, **answer)

    async def _note(self, claimed: Claimed, tried: Try) -> None:
        """Write down the try and what follows it, in one transaction."""
        # Idempotent by the lease: a second time finds it given back, and changes nothing.
        work = partial(self._note_in, claimed=claimed, tried=tried, chance=random())
        state = await self._line.database.transact(work, is_idempotent=True)
        facts = {"outcome": tried.outcome, "status": tried.status, "latency_ms": tried.latency_ms}
        host = address_of(claimed.row.tenant, claimed.row.url).url.split("/")[2]
        log.info("announcement.tried", host=host, error=tried.error, state=state, **facts)

    async def _note_in(
        self, tx: Transaction, *, claimed: Claimed, tried: Try, chance: float
    ) -> AnnouncementState | None:
        row, now = claimed.row, self._line.clock.now()
        # First, always: whoever pauses an endpoint's announcements holds it, and then asks for those.
        shown = address_of(row.tenant, row.url).url
        endpoint = await lock_endpoint(tx, row.endpoint_id, tenant=row.tenant, url=shown, now=now)
        wait = self._wait(row, endpoint, tried, chance)
        disabled = self._find_reason(endpoint, tried, now)
        state = _state_after(tried.outcome, wait, disabled)
        ended = state is not AnnouncementState.PENDING
        next_at = None if ended else now + timedelta(seconds=wait.again_s or 0.0)
        noted = await sending.note_announcement(
            tx,
            row.id,
            lease=claimed.lease,
            state=state,
            tries=row.tries + 1,
            attempts=row.attempts + 1,
            run_after=next_at or now,
            settled_at=now if ended else None,
            error=tried.error,
        )
        if not noted:
            return None
        await sending.insert_attempt(tx, _as_row(row, tried, next_at))
        await self._note_endpoint(tx, endpoint, tried, wait, disabled)
        tx.after_commit(partial(self._count, tried.outcome, state))
        return state

    def _wait(self, row: Announcement, endpoint: Endpoint, tried: Try, chance: float) -> Wait:
        failures = endpoint.failures + 1
        return wait_after(
            tried.outcome, tries=row.tries + 1, told_s=tried.told_s, failures=failures, chance=chance
        )

    def _find_reason(self, endpoint: Endpoint, tried: Try, now: datetime) -> str | None:
        """Why the endpoint is given up with this try, if it is."""
        if tried.outcome is Outcome.GONE:
            return "gone"
        if tried.outcome in (Outcome.DELIVERED, Outcome.ABANDONED):
            return None
        after_s = self._line.settings.announce_disable_after_s
        since = endpoint.failing_since or now
        return "failing" if is_steady(since, endpoint.failures + 1, now=now, after_s=after_s) else None

    async def _note_endpoint(
        self, tx: Transaction, endpoint: Endpoint, tried: Try, wait: Wait, disabled: str | None
    ) -> None:
        now = self._line.clock.now()
        if tried.outcome is Outcome.ABANDONED:
            return
        if tried.outcome is Outcome.DELIVERED:
            fine = {"failures": 0, "failing_since": None, "paused_until": None, "last_success_at": now}
            await save_endpoint(tx, endpoint.id, **fine)
            return
        until = now + timedelta(seconds=wait.pause_s) if wait.pause_s else None
        values: dict[str, Any] = {
            "failures": endpoint.failures + 1,
            "failing_since": endpoint.failing_since or now,
            "last_failure_at": now,
            "last_error": (tried.error or "")[:500],
            "paused_until": until,
        }
        if disabled is not None and endpoint.disabled_at is None:
            values |= {"disabled_at": now, "disabled_reason": disabled}
        await save_endpoint(tx, endpoint.id, **values)
        if disabled is not None:
            error = f"the endpoint is disabled ({disabled})"
            held = await sending.hold_announcements(tx, endpoint.id, error=error, now=now)
            tx.after_commit(partial(self._tell_disabled, endpoint, disabled, held))
        elif until is not None:
            await sending.pause_announcements(tx, endpoint.id, until=until)

    def _tell_disabled(self, endpoint: Endpoint, reason: str, held: int) -> None:
        self._line.metrics.endpoints_disabled.labels(reason).inc()
        host = endpoint.url.split("/")[2]
        log.warning("endpoint.disabled", endpoint_id=endpoint.id, host=host, reason=reason, held=held)

    def _count(self, outcome: Outcome, state: AnnouncementState) -> None:
        self._line.metrics.announcements_tried.labels(outcome.value).inc()
        if state is not AnnouncementState.PENDING:
            self._line.metrics.announcements_ended.labels(state.value).inc()

    async def _let_go(self, announcement_id: str, lease: str) -> None:
        try:
            async with self._line.database.transaction() as tx:
                await sending.note_announcement(tx, announcement_id, lease=lease)
        except DatabaseUnavailable as exc:
            log.warning("announcement.not_let_go", reason=str(exc))


def _state_after(outcome: Outcome, wait: Wait, disabled: str | None) -> AnnouncementState:
    if outcome is Outcome.DELIVERED:
        return AnnouncementState.DELIVERED
    if outcome is Outcome.ABANDONED:
        return AnnouncementState.FAILED
    if disabled is not None:
        return AnnouncementState.HELD
    return AnnouncementState.FAILED if wait.again_s is None else AnnouncementState.PENDING


def _as_row(row: Announcement, tried: Try, next_at: datetime | None) -> AnnouncementAttempt:
    return AnnouncementAttempt(
        announcement_id=row.id,
        number=row.attempts + 1,
        at=tried.at,
        outcome=tried.outcome,
        status=tried.status,
        latency_ms=tried.latency_ms,
        error=(tried.error or "")[:500] or None,
        request_headers=dict(tried.sent),
        response_headers=dict(tried.headers),
        response_body=tried.body,
        next_at=next_at,
    )


def _words(status: int) -> str:
    redirect = "; redirects are not followed" if 300 <= status < 400 else ""
    return f"the receiver answered {status}{redirect}"


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The first of an answer's headers, each cut, without those that may hold a secret."""
    kept = [(name, value) for name, value in headers.items() if name.lower() not in _NOT_KEPT]
    return {
        name.lower()[:KEPT_HEADER_CHARS]: value.replace("\0", "")[:KEPT_HEADER_CHARS]
        for name, value in kept[:KEPT_HEADERS]
    }
