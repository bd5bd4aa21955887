"""How it goes now: the queues and the clock of the database, and what a running service says of itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.cli.doctor.finding import Check, Finding
from app.cli.tools.connection import Origin, ServiceClient, running_url
from app.routing.circuits import Circuit
from app.settings import Settings
from app.watch.clocks import LineClock
from app.watch.figures import STATIONS, Queues
from app.wiring.openers import open_database
from db import schema
from db.circuits import list_circuits
from db.figures import read_queues
from db.session import DatabaseUnavailable

_SKEW_WARN_S, _SKEW_FAIL_S = 2.0, 60.0
_DUE_WARN_S, _DUE_FAIL_S = 60.0, 600.0
_LAG_WARN_S, _LAG_FAIL_S = 1.0, 5.0
_FDS_WARN, _FDS_FAIL = 0.8, 0.95


async def _check_database_clock(settings: Settings) -> list[Finding]:
    if not settings.is_shared:
        return [Finding.ok("database clock", "one process works on it: its rows go by this machine's clock")]
    clock, database = LineClock(), open_database(settings)
    try:
        await clock.measure(database)
    except DatabaseUnavailable as exc:
        return [Finding.fail("database clock", f"the database does not say: {exc}", "Check DATABASE_URL.")]
    finally:
        await database.aclose()
    return [_judge_skew(clock.skew_s or 0.0)]


def _judge_skew(skew_s: float) -> Finding:
    detail = f"this machine is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} the database"
    return _by_limits("database clock", detail, abs(skew_s), _SKEW_WARN_S, _SKEW_FAIL_S, _CLOCK_HINT)


async def _check_queues(settings: Settings) -> list[Finding]:
    """From the rows themselves: also where no service runs, or none that answers."""
    clock, database = LineClock(), open_database(settings)
    try:
        if await schema.current_revision(database) != schema.head_revision():
            return [Finding.ok("queues", "the schema is not there yet: nothing waits")]
        await clock.measure(database)
        now = clock.now()
        async with database.reading() as tx:
            queues = Queues(await read_queues(tx, now=now), now)
            circuits = [Circuit(**row.model_dump()) for row in await list_circuits(tx)]
    except DatabaseUnavailable as exc:
        return [Finding.fail("queues", f"the database does not say: {exc}", "Check DATABASE_URL.")]
    finally:
        await database.aclose()
    return [_judge_queues(queues), *(_judge_circuit(each, now) for each in circuits if each.open_until)]


def _judge_circuit(circuit: Circuit, now: datetime) -> Finding:
    """What is held against a provider, by all processes together."""
    state = circuit.state(now).replace("_", "-")
    detail = f"{circuit.provider} {state} until {circuit.open_until:%H:%M:%S} UTC: {circuit.reason}"
    return Finding.warn("circuit", detail, _CIRCUIT_HINT)


def _judge_queues(queues: Queues) -> Finding:
    depth = dict.fromkeys(STATIONS.values(), 0)
    late_s = dict.fromkeys(STATIONS.values(), 0.0)
    oldest_s = 0.0
    for (station, _), (rows, _due, due_s, age_s) in queues.by_station().items():
        depth[station] += rows
        late_s[station] = max(late_s[station], due_s)
        oldest_s = max(oldest_s, age_s)
    waiting = ", ".join(f"{rows} at {station}" for station, rows in depth.items())
    detail = f"{waiting}; {queues.live_jobs()['running']} at providers"
    slowest = max(late_s, key=lambda station: late_s[station])
    if sum(depth.values()):
        detail += f"; the oldest is {_span(oldest_s)} old"
    if late_s[slowest] >= 1:
        detail += f"; {slowest} is {_span(late_s[slowest])} late"
    return _by_limits("queues", detail, late_s[slowest], _DUE_WARN_S, _DUE_FAIL_S, _QUEUE_HINT)


async def _check_service(settings: Settings) -> list[Finding]:
    """What the running service says of itself."""
    url = running_url(settings)
    if url is None:
        return [Finding.ok("service", "none runs here: nothing to ask")]
    async with ServiceClient(Origin.RUNNING, url) as client:
        try:
            ready = await client.get("/readyz", timeout=5)
            shown = await client.get("/metrics", timeout=5)
        except httpx.TransportError as exc:
            return [Finding.fail("service", f"{url} does not answer: {type(exc).__name__}", _SERVICE_HINT)]
    if not shown.is_success:
        # From elsewhere it asks for a key with `admin`.
        return [*_judge_ready(url, ready.json()), Finding.warn("process", "it shows no figures", _KEY_HINT)]
    return [*_judge_ready(url, ready.json()), *_judge_process(_unlabelled(shown.text))]


def _judge_ready(url: str, said: dict[str, Any]) -> list[Finding]:
    pool, lag_s = said["checks"]["database"]["pool"], said["event_loop"]["lag_worst_s"]
    reasons = "; ".join(said["intake"]["reasons"])
    if not said["ready"]:
        service = Finding.fail("service", f"{url} is not ready: {reasons}", _SERVICE_HINT)
    elif not said["intake"]["open"]:
        service = Finding.warn("service", f"{url} takes no jobs: {reasons}", _INTAKE_HINT)
    else:
        service = Finding.ok("service", f"{url} is ready and takes jobs")
    findings = [
        service,
        _by_limits(
            "event loop", f"at worst {lag_s:.2f} s late in the last minute", lag_s, _LAG_WARN_S, _LAG_FAIL_S,
            _LAG_HINT,
        ),
    ]  # fmt: skip
    if pool:
        figures = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in pool.items())
        is_full = pool.get("in_use", 0) >= pool.get("size", 0) > 0
        findings.append(
            Finding.warn("connections", figures, _POOL_HINT)
            if is_full
            else Finding.ok("connections", figures)
        )
    return findings


def _judge_process(metrics: dict[str, float]) -> list[Finding]:
    open_fds, most_fds = metrics.get("process_open_fds"), metrics.get("process_max_fds")
    if not open_fds or not most_fds:
        return []
    resident_mb = metrics.get("process_resident_memory_bytes", 0.0) / 1e6
    detail = f"{open_fds:.0f} files open of {most_fds:.0f}, {resident_mb:.0f} MB resident"
    return [_by_limits("process", detail, open_fds / most_fds, _FDS_WARN, _FDS_FAIL, _FDS_HINT)]


def _by_limits(name: str, detail: str, value: float, warn: float, fail: float, hint: str) -> Finding:
    if value >= fail:
        return Finding.fail(name, detail, hint)
    return Finding.warn(name, detail, hint) if value >= warn else Finding.ok(name, detail)


def _unlabelled(text: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


_CIRCUIT_HINT = "Jobs go on along their route or wait; then one of them tries the provider again."
_CLOCK_HINT = "Set the clocks (NTP). Rows go by the database's; callbacks are believed by this machine's."
_QUEUE_HINT = (
    "Nobody works on them, or too few: start `reprise serve` or `reprise worker`, or raise the station's "
    "*_CONCURRENCY or GPU_WORKER_SLOTS."
)
_SERVICE_HINT = "See the log of `reprise serve`, and the findings above."
_KEY_HINT = "Set REPRISE_API_KEY to a key with the scope admin."
_INTAKE_HINT = "Wait until jobs have ended, add workers, or raise MAX_QUEUED_JOBS."
_LAG_HINT = "The log has `event_loop.blocked` with the place in the code; or this machine has too little CPU."
_POOL_HINT = "All connections are taken: raise DB_POOL_SIZE or lower the *_CONCURRENCY settings."
_FDS_HINT = "Raise the limit on open files (`ulimit -n`)."

RUNNING_CHECKS = (
    Check("database clock", _check_database_clock, 15, _CLOCK_HINT),
    Check("queues", _check_queues, 15, "Check DATABASE_URL."),
    Check("service", _check_service, 15, _SERVICE_HINT),
)
