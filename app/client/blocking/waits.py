"""How the blocking client lets time pass. Written by hand, as the one module here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

sleep = time.sleep


def in_thread(act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it here: whoever calls waits anyway."""
    return act(*args, **kwargs)
