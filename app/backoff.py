"""How long to wait before the next try: the same everywhere, and not the same for everybody.

`RetryBudget` is what keeps a provider that comes back from being met by all who waited for it at once.
"""

import time
from collections.abc import Callable
from random import uniform

SHARE = 0.5
"""How much of a wait is chance, at least: enough that those who failed together do not come back together."""


def backoff_s(tries: int, *, first_s: float = 1.0, most_s: float = 60.0) -> float:
    """Doubling waits: `first_s` after the first try, never more than `most_s`."""
    return float(min(most_s, first_s * 2 ** max(0, min(tries, 30) - 1)))


def jittered(wait_s: float) -> float:
    """Between half the wait and one and a half: for a wait that somebody asked for, or that paces."""
    return uniform(wait_s * (1 - SHARE), wait_s * (1 + SHARE))


def full_jitter_s(tries: int, *, first_s: float = 1.0, most_s: float = 60.0) -> float:
    """Anything up to the doubling wait: for many that failed for one reason at one moment."""
    return uniform(0.0, backoff_s(tries, first_s=first_s, most_s=most_s))


MOST_BOOKED = 10_000


class RetryBudget:
    """Retries at one provider: so many a second, and a share of the fresh work on top.

    Whoever comes too early is booked for a moment of its own and told how long that is; coming then, it may
    go. One process' own: several together spend as much each.
    """

    def __init__(
        self, *, per_s: float, share: float = 0.1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pause_s = 1.0 / per_s
        self._share = share
        self._clock = clock
        self._next_at = -float("inf")
        self._booked: dict[str, float] = {}

    def earn(self) -> None:
        """Fresh work was sent there: a part of a retry more may follow."""
        self._next_at -= self._share * self._pause_s

    def book(self, key: str) -> float:
        """0 if this retry may be made now, else the seconds until it may. At first, a second's worth may."""
        now = self._clock()
        booked_at = self._booked.get(key)
        if booked_at is None:
            booked_at = max(self._next_at, now - 1.0 + self._pause_s)
            self._next_at = booked_at + self._pause_s
        if booked_at <= now:
            self._booked.pop(key, None)
            return 0.0
        if len(self._booked) >= MOST_BOOKED:
            # Those that never came: others began them, or they ended.
            self._booked = {each: at for each, at in self._booked.items() if at > now}
        self._booked[key] = booked_at
        return booked_at - now
