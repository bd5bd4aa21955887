"""SIGKILL of whoever the dice name: a process of the service, one of its children, or a whole machine."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from tests.crash.laboratory.members import Member
from tests.crash.laboratory.world import World

HUNT_S = 1.0
"""How long a victim that lives for milliseconds (ffmpeg) is looked for before another is taken."""
HUNT_LOOK_S = 0.004
STARTS_KILLED = 0.25
ODDS = {"process": 40, "cog server": 15, "cog worker": 15, "ffmpeg": 15, "machine": 15}


@dataclass(frozen=True, slots=True)
class Kill:
    """One death that was brought about."""

    at: datetime
    what: str
    """`machine 1 worker`, `cog server`, `ffmpeg`, `machine 2`, …"""
    owners: frozenset[str]
    """The processes that died and ran stations, by the names that the rows know them by."""


class Killer:
    """Chooses and kills. `before` sees the victims' own names just before they die."""

    def __init__(
        self, world: World, dice: random.Random, *, before: Callable[[], Awaitable[Any]] | None = None
    ) -> None:
        self.world = world
        self._dice = dice
        self._before = before
        self.kills: list[Kill] = []

    async def kill(self) -> Kill | None:
        """One kill; None when nothing of what the dice named was alive."""
        odds = dict(ODDS)
        while odds:
            kind = self._dice.choices(list(odds), list(odds.values()))[0]
            if (kill := await self._kill_one(kind)) is not None:
                return kill
            del odds[kind]
        return None

    async def _kill_one(self, kind: str) -> Kill | None:
        if kind == "machine":
            machine = self._dice.choice(self.world.machines)
            spared = self._spares(machine.members)
            return None if spared else await self._strike(machine.name, machine.members, machine.tree)
        if kind == "process":
            member = self._dice.choice(self.world.members)
            spared = self._spares([member])
            return None if spared else await self._strike(member.name, [member], lambda: member.tree()[:1])
        found = (
            await self._hunt() if kind == "ffmpeg" else [each for each in self._children() if _is(kind, each)]
        )
        if not found:
            return None
        victim = self._dice.choice(found)
        return await self._strike(kind, [], lambda: [victim])

    def _spares(self, members: list[Member]) -> bool:
        """Most starts get through: who is always killed while it starts has nothing to lose any more."""
        starting = all(member.process_id() is None for member in members)
        return starting and self._dice.random() > STARTS_KILLED

    def _children(self) -> list[psutil.Process]:
        # A service whose Cog server dies while it starts gives the start up.
        members = [member for member in self.world.members if not self._spares([member])]
        return [process for member in members for process in member.tree()[1:]]

    async def _hunt(self) -> list[psutil.Process]:
        """An ffmpeg, which is gone again in a moment: among the processes that are new at each look."""
        known = set(psutil.pids())
        until = time.monotonic() + HUNT_S
        while time.monotonic() < until:
            await asyncio.sleep(HUNT_LOOK_S)
            now = set(psutil.pids())
            for pid in now - known:
                if self._is_ffmpeg(pid):
                    with suppress(psutil.Error):
                        return [psutil.Process(pid)]
            known = now
        return []

    def _is_ffmpeg(self, pid: int) -> bool:
        """By its own words: the folder is in them, and also those of the program that becomes it."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        except OSError:
            return False
        return "ffmpeg" in words and str(self.world.folder) in words

    async def _strike(
        self, what: str, members: list[Member], victims: Callable[[], list[psutil.Process]]
    ) -> Kill | None:
        owners = frozenset(filter(None, (each.process_id() for each in members if each.works)))
        if owners and self._before:
            await self._before()
        at = datetime.now(UTC)
        dead = 0
        for process in victims():
            try:
                process.send_signal(signal.SIGKILL)
                dead += 1
            except psutil.Error:
                continue
        if not dead:
            return None
        self.kills.append(Kill(at, what, owners))
        return self.kills[-1]


def _is(kind: str, process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    if kind == "cog server":
        return "cog.server.http" in words and "setpriv" not in words[0]
    return any("coglet" in word for word in words) and "cog.server.http" not in words
