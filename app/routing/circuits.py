"""When a provider that failed is left alone, and how it is tried again. Pure; the rows are `db.circuits`.

A circuit is closed, open until a time, or half-open: the time is over and one job is let through as a probe.
Some troubles open it at once (no credit, credentials, a throttle with a time), failures to answer when there
were `FAILURES` in a row. A probe that fails opens it again, for twice as long; one that works closes it. All
processes on one database share it, so that an outage is found out once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.routing.recovery import Trouble

FAILURES = 3
"""Failures to answer in a row that open the circuit."""
FIRST_OPEN = {Trouble.NO_CREDIT: 12.0, Trouble.NO_ACCESS: 12.0, Trouble.AWAY: 1.0}
"""How long it is open first, in `CIRCUIT_S`: an operator takes longer than a server that comes up again."""
MOST_OPEN = {Trouble.NO_CREDIT: 120.0, Trouble.NO_ACCESS: 120.0, Trouble.AWAY: 12.0}
"""How long it may be open at a time, however often probes failed; in `CIRCUIT_S`."""
MOST_THROTTLED_S = 3600.0
PROBE_S = 35.0
"""How long one probe may take before another is let through: a create's limit, and a little."""


class CircuitState(StrEnum):
    """As shown to people and metrics."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """One provider's circuit, as it is stored."""

    provider: str
    failures: int = 0
    """Failures in a row; since it opened, probes that failed too."""
    opened: int = 0
    """Times in a row that it opened without having closed."""
    trouble: str | None = None
    reason: str | None = None
    open_until: datetime | None = None
    probe_until: datetime | None = None
    """Until when the job that tries it has it to itself."""

    @property
    def is_quiet(self) -> bool:
        """Nothing is held against the provider."""
        return not self.failures and self.open_until is None

    def state(self, now: datetime) -> CircuitState:
        if self.open_until is None:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now < self.open_until else CircuitState.HALF_OPEN


@dataclass(frozen=True, slots=True)
class Shut:
    """A provider that must not be asked before `until`."""

    trouble: Trouble
    until: datetime
    reason: str


def find_shut(circuit: Circuit, now: datetime) -> Shut | None:
    """Why it must not be asked; None when it may, as the probe where its circuit is half-open."""
    if circuit.open_until is None:
        return None
    trouble = Trouble(circuit.trouble or Trouble.AWAY)
    if now < circuit.open_until:
        until = circuit.open_until
    elif circuit.probe_until is not None and now < circuit.probe_until:
        # The probe may be back sooner: who waits for it looks again soon.
        until = min(circuit.probe_until, now + timedelta(seconds=2))
    else:
        return None
    reason = f"circuit open until {until:%H:%M:%S} UTC, {circuit.reason or trouble.value}"
    return Shut(trouble, until, reason)


def after_failure(
    circuit: Circuit,
    trouble: Trouble,
    now: datetime,
    *,
    reason: str,
    wait_s: float | None = None,
    circuit_s: float = 5.0,
) -> Circuit:
    """The circuit after a create that met this trouble; `wait_s` is what the provider asked for."""
    if trouble is Trouble.THROTTLED:
        # Without a time there is nothing to wait for together: each job backs off by itself.
        return circuit if wait_s is None else _opened(circuit, trouble, reason, now, wait_s)
    if trouble not in FIRST_OPEN or (trouble is Trouble.AWAY and wait_s is not None):
        return circuit  # one that says when it will be there is not away
    failures = circuit.failures + 1
    counted = replace(
        circuit, failures=failures, trouble=trouble.value, reason=reason[:300], probe_until=None
    )
    if trouble is Trouble.AWAY and circuit.open_until is None and failures < FAILURES:
        return counted
    if circuit.open_until is not None and now < circuit.open_until:
        return counted  # asked before it opened, and answered after
    units = min(MOST_OPEN[trouble], FIRST_OPEN[trouble] * 2.0 ** min(circuit.opened, 10))
    return _opened(counted, trouble, reason, now, circuit_s * units)


def after_success(circuit: Circuit) -> Circuit:
    """The circuit after a create that was taken."""
    return Circuit(circuit.provider)


def _opened(circuit: Circuit, trouble: Trouble, reason: str, now: datetime, open_s: float) -> Circuit:
    return replace(
        circuit,
        opened=circuit.opened + 1,
        trouble=trouble.value,
        reason=reason[:300],
        open_until=now + timedelta(seconds=min(open_s, MOST_THROTTLED_S)),
        probe_until=None,
    )
