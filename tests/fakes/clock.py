"""A machine's clocks that a test sets: the time of day by `shift_s`, the counter by `sleep_s`."""

from __future__ import annotations

from datetime import datetime, timedelta

from app.watch.clocks import MachineClock


class FakeClock:
    """Runs as the real ones do, shifted. Change the fields at any time."""

    def __init__(self, shift_s: float = 0.0) -> None:
        self.shift_s = shift_s
        """How far the time of day is ahead of the real one."""
        self.slept_s = 0.0
        """How much longer the machine was suspended than really: both clocks went on."""
        self._machine = MachineClock()

    def wall(self) -> datetime:
        return self._machine.wall() + timedelta(seconds=self.shift_s + self.slept_s)

    def elapsed_s(self) -> float:
        return self._machine.elapsed_s() + self.slept_s
