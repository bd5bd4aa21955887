"""The looks at each part outside, named as `/readyz` and the metrics name them.

The database and the store are needed: without them nothing can be promised. Jobs wait for a provider that
is away, and rows are found without hints, only later.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from app.notify import Notifier
from app.provider.base import Provider
from app.storage import Storage
from app.watch.dependencies import Dependency, Standing
from app.work import WorkEngine
from db.session import Database

PROVIDER_FRESH_S = 2.0
"""How long a provider's word is good for: asking may be a request over the internet."""


def make_dependencies(
    *,
    database: Database,
    storage: Storage,
    providers: Mapping[str, Provider],
    engine: WorkEngine,
    notifier: Notifier,
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
            partial(_look_at_provider, provider), is_needed=False, fresh_s=PROVIDER_FRESH_S
        )
    return found


async def _look_at_database(database: Database) -> Standing:
    health = await database.health()
    return Standing(health.ok, health.detail, {"latency_ms": round(health.latency_ms, 2)})


async def _look_at_storage(storage: Storage) -> Standing:
    wrong = await storage.check()
    return Standing(wrong is None, wrong or "")


async def _look_at_provider(provider: Provider) -> Standing:
    health = await provider.health()
    return Standing(health.state in ("ready", "busy"), health.detail, {"state": health.state})


async def _look_at_line(line: Notifier | WorkEngine) -> Standing:
    wrong = line.trouble()
    return Standing(wrong is None, wrong or "")
