"""The looks at each part outside, named as `/readyz` and the metrics name them.

The database and the store are needed: without them nothing can be promised. Jobs wait for a provider that
is away, and rows are found without hints, only later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from app.notify import Notifier
from app.provider.base import Provider
from app.routing.circuits import Circuit, CircuitState
from app.routing.router import Router
from app.storage import Storage
from app.watch.dependencies import Dependency, Standing
from app.work import WorkEngine
from db.session import Database, DatabaseUnavailable

PROVIDER_FRESH_S = 2.0
"""How long a provider's word is good for: asking may be a request over the internet."""
CIRCUIT_LIMIT_S = 0.5
"""A database that hangs must not keep the provider's own word from being heard."""


def make_dependencies(
    *,
    database: Database,
    storage: Storage,
    providers: Mapping[str, Provider],
    engine: WorkEngine,
    notifier: Notifier,
    router: Router,
) -> dict[str, Dependency]:
    """What a runtime stands on, by name."""
    found = {
        "database": Dependency(partial(_look_at_database, database)),
        "storage": Dependency(partial(_look_at_storage, storage)),
    }
    if database.is_shared:
        found["hints"] = Dependency(partial(_look_at_line, notifier), is_needed=False)
        found["engine"] = Dependency(partial(_look_at_line, engine), is_needed=False)
    for name, provider in providers.items():
        found[name] = Dependency(
            partial(_look_at_provider, provider, database, router), is_needed=False, fresh_s=PROVIDER_FRESH_S
        )
    return found


async def _look_at_database(database: Database) -> Standing:
    health = await database.health()
    return Standing(health.ok, health.detail, {"latency_ms": round(health.latency_ms, 2)})


async def _look_at_storage(storage: Storage) -> Standing:
    wrong = await storage.check()
    return Standing(wrong is None, wrong or "")


async def _look_at_provider(provider: Provider, database: Database, router: Router) -> Standing:
    """Its own word, and what all processes together hold against it."""
    health = await provider.health()
    circuit = await _find_circuit(provider.name, database, router)
    facts: dict[str, Any] = {"state": health.state, "circuit": circuit}
    if circuit is not None and circuit["state"] != CircuitState.CLOSED:
        return Standing(False, f"circuit {circuit['state']}: {circuit['reason']}", facts)
    return Standing(health.state in ("ready", "busy"), health.detail, facts)


async def _find_circuit(name: str, database: Database, router: Router) -> dict[str, Any] | None:
    """The circuit as people see it; None while the database does not say."""
    try:
        async with asyncio.timeout(CIRCUIT_LIMIT_S), database.reading() as tx:
            circuit, now = (await router.circuits(tx)).get(name, Circuit(name)), await tx.now()
    except (DatabaseUnavailable, TimeoutError):
        return None
    return {
        "state": circuit.state(now).value,
        "failures": circuit.failures,
        "until": circuit.open_until.isoformat() if circuit.open_until else None,
        "reason": circuit.reason,
    }


async def _look_at_line(line: Notifier | WorkEngine) -> Standing:
    wrong = line.trouble()
    return Standing(wrong is None, wrong or "")
