"""Turns at a receiver: so many announcements on their way to it at once, in this process."""

from __future__ import annotations


class Turns:
    """Counts; whoever gets none leaves its row for the one who has one to find."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: dict[str, int] = {}

    def take(self, receiver: str) -> bool:
        """Whether there was one left."""
        taken = self._taken.get(receiver, 0)
        if taken >= self._most:
            return False
        self._taken[receiver] = taken + 1
        return True

    def give_back(self, receiver: str) -> None:
        left = self._taken[receiver] - 1
        if left:
            self._taken[receiver] = left
        else:
            del self._taken[receiver]
