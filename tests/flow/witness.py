"""Who stands by in every flow test, and says at its end which invariants did not hold.

What the caller was answered while the test ran, and the rows that are there when it has ended:

- I1: what was answered with 2xx, a job or a callback, is stored.
- I2: only what succeeded has a result. (One row of a piece of news: the key of its table.)
- I3: an end is told once, and the state says what the last event says.
- I4: no answer is an error of ours.
- I7: no answer holds a secret of the service's.
- and every attempt that has ended has its bill.

I5, I6 and I8 are about what does not happen, about bounds and about time: tests of their own hold them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlalchemy import select
from sqlmodel import SQLModel

from db.session import Database, DatabaseUnavailable
from db.tables import Asset, Attempt, Delivery, Event, Job, Output
from tests.fakes.provider import SECRET, TOKEN
from tests.laws import Rows, costs_booked, events_told_once, only_results

HONEST = {501, 502, 503, 504, 507}
"""What is said of troubles that are not ours."""


@dataclass
class Witness:
    """Sees every answer to the test's client."""

    accepted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Ids that were answered with 2xx, by `jobs` and `deliveries`."""
    broken: list[str] = field(default_factory=list)
    excused: frozenset[str] = frozenset()
    """Those that the test itself breaks from outside, by its mark `breaks`."""

    async def see(self, response: httpx.Response) -> None:
        """A hook of the client's, called before the test has the answer."""
        asked = f"{response.request.method} {response.request.url.path} → {response.status_code}"
        if response.status_code >= 500 and response.status_code not in HONEST:
            self.broken.append(f"I4: {asked}")
        if "json" not in response.headers.get("content-type", ""):
            return
        said = await response.aread()
        if any(secret.encode() in said for secret in (TOKEN, SECRET.removeprefix("whsec_"))):
            self.broken.append(f"I7: {asked} holds a secret")
        if response.is_success and response.request.method == "POST":
            self._note(response.request.url.path, response.json())

    def _note(self, path: str, said: Any) -> None:
        if path == "/v1/jobs" and "id" in said:
            self.accepted["jobs"].add(said["id"])
        elif path.startswith("/v1/webhooks/"):
            self.accepted["deliveries"].add(said["delivery_id"])

    async def verdict(self, database: Database) -> list[str]:
        """The laws that are broken now, in words. None where the test has left no database to be read."""
        broken = list(self.broken)
        try:
            rows = await _read(database)
        except DatabaseUnavailable:
            return self._counted(broken)
        found = {"jobs": rows.jobs, "deliveries": rows.deliveries}
        for name, ids in self.accepted.items():
            gone = ids - {row["id"] for row in found[name]}
            broken += [f"I1: {each} was accepted and is gone" for each in sorted(gone)]
        broken += [f"I2: {each}" for each in only_results(rows)]
        broken += [f"I3: {each}" for each in events_told_once(rows)]
        return self._counted(broken + [f"bill: {each}" for each in costs_booked(rows)])

    def _counted(self, broken: Sequence[str]) -> list[str]:
        return [each for each in broken if each.partition(":")[0] not in self.excused]


async def _read(database: Database) -> Rows:
    async with database.reading() as tx:
        return Rows(
            *[
                (await tx.execute(select(_table(each)))).mappings().all()
                for each in (Job, Attempt, Delivery, Event, Output, Asset)
            ]
        )


def _table(model: type[SQLModel]) -> Any:
    return model.__table__  # type: ignore[attr-defined]
