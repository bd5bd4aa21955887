"""Models that are loaded when they are first needed, and let go when nobody has needed them for a minute.

Promises: one loaded model of a kind at a time; none goes while it is in use; what it took goes back to the
system, not only to the allocator. Leaves what a model is to the engine that names how to load it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

IDLE_S = 60.0

Model = TypeVar("Model")


class Resident(Generic[Model]):
    """One model, there or not."""

    def __init__(self, load: Callable[[], Model], *, idle_s: float = IDLE_S) -> None:
        self._load = load
        self._idle_s = idle_s
        self._model: Model | None = None
        self._users = 0
        self._used_at = 0.0
        self._timer: threading.Timer | None = None
        self._turn = threading.Lock()

    @property
    def is_loaded(self) -> bool:
        return self._model is not None

    @contextmanager
    def use(self) -> Iterator[Model]:
        """The model, loaded while the block lasts and for `idle_s` after it. Raises what loading does."""
        with self._turn:
            model = self._model if self._model is not None else self._load()
            self._model = model
            self._users += 1
        try:
            yield model
        finally:
            del model
            with self._turn:
                self._users -= 1
                self._used_at = time.monotonic()
                self._watch(self._idle_s)

    def let_go(self) -> bool:
        """Unload it now, unless it is in use; whether it is gone."""
        with self._turn:
            if self._users:
                return False
            self._model = None
        _return_memory()
        return True

    def _watch(self, wait_s: float) -> None:
        if self._timer is None and self._users == 0:
            self._timer = threading.Timer(wait_s, self._look)
            self._timer.daemon = True
            self._timer.start()

    def _look(self) -> None:
        with self._turn:
            self._timer = None
            left_s = self._used_at + self._idle_s - time.monotonic()
            if self._users or left_s > 0:
                # One timer at a time: the next use's end sets it again, or what is left of this one does.
                self._watch(max(left_s, 0.01))
                return
        self.let_go()


def _return_memory() -> None:
    gc.collect()
    # glibc keeps what was freed for the next one who asks; others have no such call, and no such habit.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
