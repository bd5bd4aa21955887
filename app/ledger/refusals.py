"""What the webhook door refused, and why: for operators. The outside is told one text for every cause.

Owns a bounded memory that the door notes facts into, and the write that follows. Promises: noting never waits
and never fails; at most `MOST_A_SECOND` are kept of a second, the rest is counted; nothing of a body, a
header or a token is kept, only our words for the check, the seconds and the number of the secret. What is
noted and not written when a process dies is lost: it is a help, not a fact that anything stands on.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import datetime

import structlog

from app.access.callers import DEFAULT_TENANT
from app.errors import RequestError
from app.line import Line
from db.ids import make_id
from db.ledger.refusals import insert_refusals, list_refusals, tenants_of
from db.session import DatabaseUnavailable
from db.tables import Refusal

log = structlog.get_logger()

MOST_A_SECOND = 5
MOST_KEPT = 1000
"""Rows of a tenant in the table."""
PAUSE_S = 1.0
"""Between noting and writing: a burst is one transaction."""
_ATTEMPT = re.compile(r"att_[0-9a-f]{32}", re.ASCII)


class Refusals:
    """The memory, and the ledger's readers of it. One a runtime."""

    def __init__(self, line: Line, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = line
        self._clock = clock
        self._noted: list[Refusal] = []
        self._second, self._in_second, self._left_out = -1, 0, 0
        self._writing: asyncio.Task[None] | None = None

    def note(self, error: RequestError, *, provider: str, attempt_id: str) -> None:
        """Keep the facts of a refusal, if this second has room for it. Never waits."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > MOST_A_SECOND or len(self._noted) >= MOST_KEPT:
            self._leave_out(1)
            return
        self._noted.append(
            Refusal(
                id=make_id("rfs"),
                at=self._line.clock.now(),
                provider=provider,
                # A stranger's text is not kept; whether it is an attempt of ours is asked when it is written.
                attempt_id=attempt_id if _ATTEMPT.fullmatch(attempt_id) else None,
                tenant=DEFAULT_TENANT,
                failed=str(getattr(error, "failed", error.code))[:32],
                detail=str(getattr(error, "reason", error.message))[:300],
                skew_s=getattr(error, "skew_s", None),
                secret=getattr(error, "secret", None),
                left_out=self._left_out,
            )
        )
        self._left_out = 0
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def write(self) -> None:
        """Write what is noted. Where that cannot be, it is counted as left out."""
        noted, self._noted = self._noted, []
        if not noted:
            return
        try:
            async with self._line.database.transaction() as tx:
                named = [each.attempt_id for each in noted if each.attempt_id]
                tenants = await tenants_of(tx, named) if named else {}
                for each in noted:
                    each.tenant = tenants.get(each.attempt_id or "", DEFAULT_TENANT)
                    each.attempt_id = each.attempt_id if each.attempt_id in tenants else None
                await insert_refusals(tx, noted, most=MOST_KEPT)
        except DatabaseUnavailable as exc:
            log.warning("refusals.lost", count=len(noted), reason=str(exc))
            self._leave_out(len(noted))

    async def list_refusals(
        self,
        *,
        tenant: str,
        failed: str | None,
        since: datetime | None,
        before_id: str | None,
        limit: int,
    ) -> list[Refusal]:
        """Newest first; those of this process as of now, of others as of a second ago."""
        await self.write()
        async with self._line.database.reading() as tx:
            return await list_refusals(
                tx, tenant=tenant, failed=failed, since=since, before_id=before_id, limit=limit
            )

    async def aclose(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.write()

    async def _write_soon(self) -> None:
        while self._noted:
            await asyncio.sleep(PAUSE_S)
            await self.write()

    def _leave_out(self, count: int) -> None:
        self._left_out += count
        self._line.metrics.refusals_left_out.inc(count)
