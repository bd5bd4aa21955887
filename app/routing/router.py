"""Routes as the settings say, held against the rows: what is next for a job, and what is open to it.

Owns the reading: past attempts as the pure rooms want them, circuits, which providers a kind can go to at
all. Promises that a question costs one small statement for the circuits and none where the caller has the
attempts. Leaves the decisions to `choice`, `recovery` and `circuits`, and moving rows to the stations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import structlog

from app.costs.prices import EMBEDDED
from app.kinds import get_kind
from app.routing.choice import ANY, Go, Past, Stop, Wait, arrange, choose, left_of
from app.routing.circuits import (
    PROBE_S,
    Circuit,
    CircuitState,
    Shut,
    after_failure,
    after_success,
    find_shut,
)
from app.routing.quotas import Quotas
from app.routing.recovery import NOT_TRIES, Action, Case, Trouble
from app.settings import RouteStop, Settings
from db.circuits import claim_probe, list_circuits, lock_circuit, save_circuit
from db.jobs import count_waiting_before
from db.session import Transaction
from db.states import AttemptStatus
from db.tables import Attempt, Job

log = structlog.get_logger()


class Router:
    """What a job's route is, and where on it the job stands. One a runtime."""

    def __init__(self, settings: Settings, providers: Sequence[str]) -> None:
        """`providers` are those that are configured anywhere, in the order in which `auto` prefers them."""
        self._settings = settings
        self._providers = list(providers)
        self._held: set[str] = set()
        self._quotas = Quotas()

    def stops(self, kind: str) -> list[RouteStop]:
        """The kind's route: as ROUTING says, else every provider in the usual order."""
        wanted = self._settings.routing.get(kind) or self._settings.routing.get("*")
        stops = wanted or [RouteStop(provider=name) for name in self._providers]
        return [stop for stop in stops if stop.provider in self._providers and can_go(kind, stop.provider)]

    async def route_of(self, tx: Transaction, job: Job, *, asked: Collection[str] | None = None) -> list[str]:
        """The job's own order; `asked`: only of these. With too long a line or no quota left one is last."""
        stops = [stop for stop in self.stops(job.kind) if asked is None or stop.provider in asked]
        last = set(await self._quotas.find_spent(tx, stops))
        for stop in stops:
            if stop.most_waiting is not None:
                waiting = await count_waiting_before(tx, stop.provider, job)
                last |= {stop.provider} if waiting >= stop.most_waiting else set()
        return arrange([Stop(stop.provider, stop.weight) for stop in stops], job.id, last=last)

    def can_take(self, kind: str, wanted: str) -> bool:
        """Whether a job of the kind has anywhere to go at all; of a family, whether all of its parts have."""
        family = get_kind(kind).family
        if family is not None:
            return all(self.can_take(part.kind, wanted) for part in family.parts)
        return bool(self.stops(kind)) if wanted == ANY else can_go(kind, wanted)

    def payee(self, provider: str) -> str:
        """The provider's name in the price list: a worker of ours is not a Cog server of somebody's."""
        return EMBEDDED if provider == "cog" and not self._settings.cog_urls else provider

    def model(self, kind: str, provider: str) -> str:
        """What the provider is asked for by name; a Cog server of ours is told the kind."""
        if provider != "replicate":
            return kind
        hosted = get_kind(kind).hosted
        return self._settings.replicate_models.get(kind) or (hosted.name if hosted else kind)

    async def next_for(
        self, tx: Transaction, job: Job, past: Sequence[Attempt], *, asked: Sequence[str], now: datetime
    ) -> Go | Wait | None:
        """The provider for the job's next attempt among those that are asked here; its probe is claimed."""
        circuits = await self.circuits(tx)
        choice = choose(
            job.provider,
            await self.route_of(tx, job, asked=asked),
            [as_past(each) for each in past],
            shut_of(circuits, now),
            created_at=job.created_at,
            deadline_at=job.deadline_at,
        )
        if isinstance(choice, Go) and self._is_half_open(circuits.get(choice.provider), now):
            until = now + timedelta(seconds=PROBE_S)
            if not await claim_probe(tx, choice.provider, now=now, until=until):
                return Wait(choice.provider, now + timedelta(seconds=2), "its circuit is being tried")
            log.info("circuit.probed", provider=choice.provider)
        return choice

    async def case_of(
        self,
        tx: Transaction,
        job: Job,
        attempt: Attempt,
        past: Sequence[Attempt],
        *,
        now: datetime,
        trouble: Trouble | None = None,
        wait_s: float = 0.0,
    ) -> Case:
        """What the table of remedies asks about a job whose attempt went wrong; `past` are all of its."""
        shut = shut_of(await self.circuits(tx), now)
        before = [each for each in past if each.id != attempt.id]
        left = left_of([as_past(each) for each in before]) | {attempt.provider, *shut}
        others = [stop.provider for stop in self.stops(job.kind) if stop.provider not in left]
        here = [each for each in before if each.provider == attempt.provider]
        tries = [each for each in before if each.trouble not in NOT_TRIES]
        tried = any(each.differently for each in (*here, attempt))
        return Case(
            created_at=job.created_at,
            deadline_at=job.deadline_at,
            tries=len(tries) + 1,
            max_tries=self._settings.max_attempts,
            has_other=job.provider == "auto" and bool(others),
            has_variant=not tried and get_kind(job.kind).has_other_way(attempt.provider),
            earlier=sum(each.trouble == trouble for each in here) if trouble else 0,
            wait_s=wait_s,
            fall_back_after_s=self._settings.fall_back_after_s,
        )

    async def circuits(self, tx: Transaction) -> dict[str, Circuit]:
        """Every circuit that anything is held against, by provider."""
        rows = [Circuit(**row.model_dump()) for row in await list_circuits(tx)]
        held = {circuit.provider: circuit for circuit in rows if not circuit.is_quiet}
        self._held = set(held)
        return held

    def is_held(self, provider: str) -> bool:
        """Whether anything was held against the provider when this process last looked."""
        return provider in self._held

    async def note_failure(
        self,
        tx: Transaction,
        provider: str,
        trouble: Trouble,
        now: datetime,
        *,
        reason: str,
        wait_s: float | None = None,
    ) -> Circuit:
        """Hold a failed create against the provider; its circuit afterwards."""
        facts: dict[str, Any] = {"reason": reason, "wait_s": wait_s, "circuit_s": self._settings.circuit_s}
        if after_failure(Circuit(provider), trouble, now, **facts) == Circuit(provider):
            return Circuit(provider)  # nothing of the provider's fault: no row is touched
        circuit = Circuit(**(await lock_circuit(tx, provider)).model_dump())
        changed = after_failure(circuit, trouble, now, **facts)
        if changed != circuit:
            await save_circuit(tx, provider, **_values(changed))
        if changed.open_until != circuit.open_until:
            log.warning("circuit.opened", provider=provider, until=changed.open_until, reason=reason)
        return changed

    async def note_success(self, tx: Transaction, provider: str) -> None:
        """A create was taken: what was held against the provider is forgotten."""
        await lock_circuit(tx, provider)
        await save_circuit(tx, provider, **_values(after_success(Circuit(provider))))
        log.info("circuit.closed", provider=provider)

    def _is_half_open(self, circuit: Circuit | None, now: datetime) -> bool:
        return circuit is not None and circuit.state(now) is CircuitState.HALF_OPEN


def can_go(kind: str, provider: str) -> bool:
    """Whether the provider has anything for this kind."""
    return provider != "replicate" or get_kind(kind).hosted is not None


def shut_of(circuits: Mapping[str, Circuit], now: datetime) -> dict[str, Shut]:
    """Those that must not be asked now."""
    found = {name: find_shut(circuit, now) for name, circuit in circuits.items()}
    return {name: shut for name, shut in found.items() if shut is not None}


def as_past(attempt: Attempt) -> Past:
    """An attempt's row as `choose` looks at it."""
    status = AttemptStatus(attempt.status)
    action = attempt.action
    if action is None and status is AttemptStatus.SUCCEEDED:
        # It had a result, which was lost on the way: the provider is as good as it was.
        action = Action.RETRY_SAME
    return Past(attempt.provider, status.is_terminal, attempt.trouble, action)


def _values(circuit: Circuit) -> dict[str, object]:
    values = asdict(circuit)
    del values["provider"]
    return values
