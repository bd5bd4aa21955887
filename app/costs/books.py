"""Reading the books: what was spent, in groups, and what went to one provider since a time.

Promises: groups come in the order of their names, a bounded page at a time; the total is of the whole time,
also where a page is not. Leaves the adding up to `db.costs`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from app.errors import InvalidInput
from db.costs import GROUPS, METADATA, Sums, list_costs, sum_costs, sum_provider
from db.session import Database

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Report:
    """A page of groups, and the total."""

    groups: list[tuple[str, Sums]]
    after: str | None
    """The name to go on after; None when there is no more."""
    total: Sums


class Books:
    """The reading side of costs. Raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def report(
        self,
        group_by: str,
        *,
        tenant: str | None = None,
        since: datetime,
        until: datetime,
        after: str | None = None,
        limit: int = 100,
    ) -> Report:
        """What attempts cost that ended from `since` until before `until`, of one tenant or of all.

        Raises InvalidInput.
        """
        check_group(group_by)
        if until <= since:
            raise InvalidInput("until must be later than since", field="until")
        async with self._database.reading() as tx:
            groups = await list_costs(
                tx, group_by, tenant=tenant, since=since, until=until, after=after, limit=limit + 1
            )
            total = await sum_costs(tx, tenant=tenant, since=since, until=until)
        more = len(groups) > limit
        return Report(groups[:limit], groups[limit - 1][0] if more else None, total)

    async def used(self, provider: str, *, since: datetime) -> Sums:
        """What went to this provider since then, in every unit that a quota may be in; `jobs` is 0."""
        async with self._database.reading() as tx:
            return await sum_provider(tx, provider, since=since)


def check_group(group_by: str) -> None:
    """Raises InvalidInput unless attempts can be grouped by it."""
    if group_by in GROUPS:
        return
    if not group_by.startswith(METADATA):
        known = ", ".join([*GROUPS, f"{METADATA}NAME"])
        raise InvalidInput(f"group_by must be one of {known}", field="group_by")
    if not _NAME.fullmatch(group_by.removeprefix(METADATA)):
        message = "group_by: a name in the metadata is 1-64 letters, digits, dashes or underscores"
        raise InvalidInput(message, field="group_by")
