"""The two clocks of a process: the database's time for rows, the machine's for the world outside.

Rows of one database are written and compared by many machines whose clocks need not agree, so everything
that goes into a row is dated by `LineClock.now`: the database's time, known from a measured offset to a
counter of this machine that nobody can set. Signatures and expiry dates are the world's, and go by `wall`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import structlog

from db.figures import read_clock
from db.session import Database, DatabaseUnavailable

log = structlog.get_logger()

CATCH_UP = 0.1
"""How fast a process without a server follows its machine's clock after that was set: 6 s a minute."""
SKEW_WARN_S = 2.0
"""A difference to the database's clock that is worth a line in the log."""


class Clock(Protocol):
    """The port: the machine's clocks."""

    def wall(self) -> datetime:
        """The time of day, which an operator or NTP may set."""
        ...

    def elapsed_s(self) -> float:
        """A counter that nobody sets, and that goes on while the machine is suspended."""
        ...


class MachineClock:
    """The clocks of this machine."""

    def wall(self) -> datetime:
        return datetime.now(UTC)

    def elapsed_s(self) -> float:
        # Where the kernel has it: the monotonic clock stands still in a suspended machine, leases do not.
        return time.clock_gettime(_COUNTER)


_COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class LineClock:
    """The time that rows are written and compared by. One a runtime."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MachineClock()
        self._offset_s = self._wall_offset_s()
        self._looked_at_s = self._clock.elapsed_s()
        self.skew_s: float | None = None
        """How far this machine's clock is ahead of the database's; None where they are one, or unmeasured."""
        self.doubt_s = 0.0
        """Half the round trip of the measurement: what `skew_s` may be wrong by."""

    def now(self) -> datetime:
        """The database's time, as well as this process knows it."""
        return datetime.fromtimestamp(self._clock.elapsed_s() + self._offset_s, UTC)

    def wall(self) -> datetime:
        """This machine's time: for what the world outside has signed or dated."""
        return self._clock.wall()

    def elapsed_s(self) -> float:
        """A counter that nobody sets: for differences."""
        return self._clock.elapsed_s()

    def of_wall(self, moment: datetime) -> datetime:
        """What `now` was when this machine's clock showed `moment`."""
        return self.now() - (self.wall() - moment)

    async def measure(self, database: Database) -> None:
        """Compare with the database's clock and follow it. Raises DatabaseUnavailable."""
        async with database.reading() as tx:
            # The connection is there and in its transaction before the clock is asked: one round trip.
            theirs = await read_clock(tx)
            if theirs is None:
                self._follow_wall()
                return
            asked_s = self._clock.elapsed_s()
            theirs = await read_clock(tx) or theirs
            answered_s = self._clock.elapsed_s()
        self._follow(theirs, (asked_s + answered_s) / 2, (answered_s - asked_s) / 2)

    async def keep_time(self, database: Database) -> None:
        """The same for whoever repeats it: a database that is away is no reason to stop."""
        try:
            await self.measure(database)
        except DatabaseUnavailable as exc:
            log.debug("clock.unmeasured", reason=str(exc))

    def _follow(self, theirs: datetime, middle_s: float, doubt_s: float) -> None:
        offset_s = theirs.timestamp() - middle_s
        skew_s = self._wall_offset_s() - offset_s
        if abs(skew_s) - doubt_s > SKEW_WARN_S and (
            self.skew_s is None or abs(skew_s - self.skew_s) > doubt_s + SKEW_WARN_S
        ):
            log.warning("clock.skewed", ahead_of_database_s=round(skew_s, 3))
        # A difference that the round trip can explain is none: the time that rows get does not jitter.
        if abs(offset_s - self._offset_s) > doubt_s:
            self._offset_s = offset_s
        self.skew_s, self.doubt_s = skew_s, doubt_s

    def _follow_wall(self) -> None:
        """Alone on its database: the rows stay comparable also when the machine's clock is set.

        Following the step at once would end every deadline and delay in the rows early, or stop them all.
        """
        now_s = self._clock.elapsed_s()
        passed_s, self._looked_at_s = now_s - self._looked_at_s, now_s
        behind_s = self._wall_offset_s() - self._offset_s
        most_s = CATCH_UP * max(0.0, passed_s)
        self._offset_s += max(-most_s, min(most_s, behind_s))

    def _wall_offset_s(self) -> float:
        return self._clock.wall().timestamp() - self._clock.elapsed_s()
