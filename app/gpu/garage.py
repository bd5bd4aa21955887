"""Which Cog servers are up: started at first use, and taken down when others need the room or nobody calls.

Promises: one server is started or taken down at a time, so that what was measured as free is still free; a
server in use is never taken down for another; of the idle ones the one least recently used goes first. When
that is not enough the server is started all the same: its engines look for themselves what they fit on, and
tell when it is nothing. Leaves a server's life to `app.engines.supervisor`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from structlog.typing import FilteringBoundLogger

from app.engines.supervisor import CogSupervisor
from app.errors import EngineUnavailable
from app.gpu.groups import Group

IDLE_LOOKS = 4
"""How often in the idle time it is looked for idle servers."""

FreeBytes = Callable[[], Awaitable[int]]


class Bay:
    """The place of one group's server."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.users = 0
        self.used_at = 0.0
        self.state: Literal["down", "starting", "up"] = "down"
        self.replaced = asyncio.Event()
        """Set when the server has been replaced since somebody last cleared it: its prediction is gone."""
        self.supervisor: CogSupervisor | None = None
        self.watch: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Raises EngineUnavailable while the server is down."""
        if self.supervisor is None:
            raise EngineUnavailable("the engine is not loaded")
        return self.supervisor.url

    def condemn(self, reason: str) -> None:
        """Have the server replaced, whatever it does."""
        if self.supervisor is not None:
            self.supervisor.condemn(reason)


class Garage:
    """All bays. `open` before a prediction, `leave` after it, `tidy` for as long as the worker lives."""

    def __init__(
        self,
        *,
        groups: Sequence[Group],
        tmp: Path,
        free_bytes: FreeBytes,
        setup_s: float,
        idle_s: float,
        log: FilteringBoundLogger,
    ) -> None:
        """`setup_s` is what a server may take to start, `idle_s` how long an unused one stays."""
        self.bays = {group.name: Bay(group) for group in groups}
        self._tmp = tmp
        self._free_bytes = free_bytes
        self._setup_s = setup_s
        self._idle_s = idle_s
        self._log = log
        self._turn = asyncio.Lock()
        self._closed = False

    async def open(self, bay: Bay) -> None:
        """The server of this bay, up and kept until `leave`. Raises EngineUnavailable with its last words.

        When it raises there is nothing to leave.
        """
        bay.users += 1  # before the lock: nobody may take it down from here on
        try:
            async with self._turn:
                if bay.supervisor is None:
                    await self._make_room(bay)
                    await self._start(bay)
        except BaseException:
            self.leave(bay)
            raise

    def leave(self, bay: Bay) -> None:
        bay.users -= 1
        bay.used_at = time.monotonic()

    async def take_down(self, bay: Bay) -> None:
        """End a server that does not come back; the next `open` starts another."""
        async with self._turn:
            await self._end(bay)

    async def tidy(self) -> None:
        """Take servers down that nobody has used for the idle time, until cancelled."""
        while True:
            await asyncio.sleep(self._idle_s / IDLE_LOOKS)
            async with self._turn:
                for bay in self._idle():
                    if time.monotonic() - bay.used_at >= self._idle_s:
                        self._log.info("engine.unloaded", group=bay.group.name, reason="idle")
                        await self._end(bay)

    async def aclose(self) -> None:
        """End every server, also one that is being started."""
        self._closed = True
        await asyncio.gather(*(bay.supervisor.stop() for bay in self.bays.values() if bay.supervisor))
        async with self._turn:
            for bay in self.bays.values():
                await self._end(bay)

    async def _make_room(self, wanted: Bay) -> None:
        need = wanted.group.need_bytes
        while need and await self._free_bytes() < need and (idle := self._idle()):
            self._log.info(
                "engine.unloaded", group=idle[0].group.name, reason=f"room for {wanted.group.name}"
            )
            await self._end(idle[0])

    def _idle(self) -> list[Bay]:
        """Those that could go, the least recently used first."""
        idle = [bay for bay in self.bays.values() if bay.supervisor is not None and not bay.users]
        return sorted(idle, key=lambda bay: bay.used_at)

    async def _start(self, bay: Bay) -> None:
        if self._closed:
            raise EngineUnavailable("the worker is stopping")

        async def on_restart(_gone_at: datetime) -> None:
            bay.replaced.set()

        supervisor = CogSupervisor(
            predictor=bay.group.predictor,
            tmp=self._tmp / bay.group.name,
            setup_timeout_s=self._setup_s,
            environment=bay.group.environment,
            on_restart=on_restart,
            log=self._log.bind(group=bay.group.name),
        )
        bay.supervisor, bay.state = supervisor, "starting"
        try:
            await supervisor.start()
        except BaseException:
            bay.supervisor, bay.state = None, "down"
            await supervisor.stop()
            raise
        bay.state = "up"
        bay.watch = asyncio.create_task(supervisor.run())

    async def _end(self, bay: Bay) -> None:
        supervisor, bay.supervisor = bay.supervisor, None
        watch, bay.watch = bay.watch, None
        bay.state = "down"
        if supervisor is not None:
            await supervisor.stop()
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
