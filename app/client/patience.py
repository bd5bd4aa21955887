"""When a call is repeated, and how long before: pure but for the clock.

In-call retries are few and short, because whoever called stands waiting: three at most, within the time that
the client was given. Streams, downloads and waits that are cut go on from where they were; their retries are
counted anew whenever something came.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from app.client.errors import RateLimited, RepriseError, Unavailable, UnderWay

MOST_RETRIES = 3
MOST_CUTS = 8
"""Without anything that came between them."""
FIRST_WAIT_S = 0.25
MOST_WAIT_S = 10.0


class Patience:
    """The retries of one call. Not to be shared."""

    def __init__(
        self,
        *,
        within_s: float,
        retries: int = MOST_RETRIES,
        now_s: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """`within_s`: no wait begins that would end later than so long after the first try."""
        self._within_s = within_s
        self._most = retries
        self._now_s, self._dice = now_s, dice
        self.refresh()

    def refresh(self) -> None:
        """Something came: count anew."""
        self._began_s = self._now_s()
        self._retries = 0

    def wait_s(self, failure: RepriseError, *, repeatable: bool = True) -> float | None:
        """How long to wait before the call is made once more; None: it is not.

        A wait that the service asked for is never shortened: if it is too long, its error is raised at once
        and says so.
        """
        if not may_repeat(failure, repeatable=repeatable) or self._retries >= self._most:
            return None
        self._retries += 1
        dice = self._dice()
        wait_s = _backoff_s(self._retries, dice)
        if failure.retry_after_s is not None:
            wait_s = failure.retry_after_s + FIRST_WAIT_S * dice
        elapsed_s = self._now_s() - self._began_s
        return wait_s if elapsed_s + wait_s <= self._within_s else None


def may_repeat(failure: RepriseError, *, repeatable: bool) -> bool:
    """Whether the same call may work later and would do nothing twice.

    `UnderWay` is the first try of the same call, which is still worked on.
    """
    match failure:
        case RateLimited():
            return True
        case Unavailable():
            return repeatable or failure.nothing_done
        case UnderWay():
            return repeatable
        case _:
            return False


def _backoff_s(retry: int, dice: float) -> float:
    """Doubling, and anywhere in the upper half of it: many clients that were cut at once come back apart."""
    most_s: float = min(MOST_WAIT_S, FIRST_WAIT_S * 2**retry)
    return most_s * (0.5 + dice / 2)
