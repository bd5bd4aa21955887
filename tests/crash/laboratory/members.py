"""A process of `reprise` in one life after another, and the machine that it is on.

Promises: whatever is killed is started again at once, on the same folder and port; a process that ends by
itself while it should live is remembered as a fault. Leaves who is killed, and when, to `kills`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.crash.child import ROOT, START_LIMIT_S

STOP_LIMIT_S = 40.0
GAVE_UP_AT_START = "the embedded worker did not start"
"""How a service ends whose Cog server was killed while it started: its keeper starts it again."""


@dataclass
class Member:
    """One process: `python -m app …` with an environment of its own."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    works: bool
    """Whether it runs stations, so that work may die with it."""
    process: asyncio.subprocess.Process | None = None
    lives: int = 0
    gave_up: int = 0
    faults: list[str] = field(default_factory=list)
    ending: bool = False
    _began_at: int = 0
    """Where this life begins in the log."""
    _process_id: str | None = None

    @property
    def pid(self) -> int | None:
        alive = self.process is not None and self.process.returncode is None
        return self.process.pid if alive and self.process else None

    async def live(self) -> None:
        """One life after the other, until `end`."""
        while not self.ending:
            code = await self._one_life()
            if self.ending or code == -signal.SIGKILL:
                continue
            said = self._said()
            if code in (1, 2) and GAVE_UP_AT_START in said:
                self.gave_up += 1
            else:
                self.faults.append(f"{self.name} ended by itself with {code}: {said[-600:]}")
                return

    async def _one_life(self) -> int:
        with self.log.open("ab") as log:
            self._began_at, self._process_id = log.tell(), None
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app", *self.command,
                cwd=ROOT, env=self.environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.lives += 1
        return await self.process.wait()

    async def is_up(self) -> None:
        """Wait until this life says so in its log. Raises TimeoutError."""
        async with asyncio.timeout(START_LIMIT_S):
            while self.process_id() is None:
                await asyncio.sleep(0.05)

    def process_id(self) -> str | None:
        """By which name the rows know this life; None while it has not said that it is up."""
        if self.pid is None:
            return None
        if self._process_id is None:
            for line in self._said().splitlines():
                if '.up"' in line and '"process_id"' in line:
                    self._process_id = json.loads(line)["process_id"]
        return self._process_id

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._began_at)
            return log.read().decode(errors="replace")

    def tree(self) -> list[psutil.Process]:
        """The process first, then everything that it started."""
        try:
            me = psutil.Process(self.pid) if self.pid else None
            return [me, *me.children(recursive=True)] if me else []
        except psutil.Error:
            return []

    async def end(self) -> None:
        """As an operator ends it: SIGTERM, and a limit."""
        self.ending = True
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                code = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            self.faults.append(f"{self.name} did not end within {STOP_LIMIT_S:.0f} s of SIGTERM")
            return
        if code != 0:
            self.faults.append(f"{self.name} ended with {code} after SIGTERM")


@dataclass
class Machine:
    """The processes that share a folder for temporary files, and die together when the power goes."""

    name: str
    var_dir: Path
    members: list[Member]

    def tree(self) -> list[psutil.Process]:
        return [process for member in self.members for process in member.tree()]
