"""What processes, folders and the database hold, looked at every few seconds, and whether it grows.

A leak is growth that goes on: the median of the last quarter of a run against the median of its second
quarter, the first being warm-up. The bounds are stated here, one for each thing that is measured.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import text

from tests.crash.laboratory.world import World

MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bound:
    """How much more there may be in the last quarter than in the second, and how much at any time."""

    growth: float
    share: float = 0.0
    """Of the earlier figure, where that allows more."""
    most: float = float("inf")


BOUNDS = {
    "rss MB": Bound(24, 0.10),
    # Callers keep connections open, and pools fill up to their limits: as many as may be at any moment.
    "fds": Bound(32),
    "threads": Bound(8),
    "connections": Bound(16, most=120),
    "temporary files": Bound(8, most=64),
    "wal MB": Bound(1200, most=1200),
}


@dataclass
class Series:
    """One thing over time: (seconds, figure)."""

    unit: str
    points: list[tuple[float, float]] = field(default_factory=list)

    def leak(self) -> str | None:
        """In words, when it grew beyond its bound."""
        bound, values = BOUNDS[self.unit], [value for _, value in self.points]
        if max(values) > bound.most:
            return f"{max(values):.0f}, and at most {bound.most:.0f} was to be"
        early, late = self._quarter(1), self._quarter(3)
        allowed = max(bound.growth, bound.share * early)
        return f"grew from {early:.1f} to {late:.1f}" if late - early > allowed else None

    def row(self) -> str:
        values = [value for _, value in self.points]
        figures = (values[0], values[-1], min(values), max(values))
        return " ".join(f"{figure:10.1f}" for figure in figures) + f" {self.slope():12.2f}"

    def slope(self) -> float:
        """Per hour, by least squares over what came after the first quarter."""
        points = self.points[len(self.points) // 4 :]
        if len({at for at, _ in points}) < 2:
            return 0.0
        return statistics.linear_regression(*zip(*points, strict=True)).slope * 3600

    def _quarter(self, number: int) -> float:
        size = max(1, len(self.points) // 4)
        return statistics.median(value for _, value in self.points[number * size : (number + 1) * size])


class Gauges:
    """Reads all of it every `every_s` until it is cancelled."""

    def __init__(self, world: World, *, every_s: float) -> None:
        self._world = world
        self._every_s = every_s
        self._began = time.monotonic()
        self.series: dict[tuple[str, str], Series] = {}

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        for member in self._world.members:
            for number, process in enumerate(member.tree()):
                name = member.name if number == 0 else f"{member.name}: {_role(process)}"
                if name.endswith("ffmpeg"):
                    continue
                self._read(name, process)
        for machine in self._world.machines:
            self._note(machine.name, "temporary files", _count_files(machine.var_dir))
        connections, wal = await self._database()
        if connections:
            self._note("database", "connections", connections)
        self._note("database", "wal MB", wal / MB)

    def leaks(self) -> list[str]:
        found = [(who, each.unit, each.leak()) for (who, _), each in self.series.items()]
        return [f"{who}: {unit} {leak}" for who, unit, leak in found if leak]

    def print(self) -> None:
        print(f"{'':44} {'start':>10} {'end':>10} {'min':>10} {'max':>10} {'slope / h':>12}")
        for (who, unit), series in sorted(self.series.items()):
            print(f"{who + ', ' + unit:44} {series.row()}")

    def _read(self, name: str, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                figures = {
                    "rss MB": process.memory_info().rss / MB,
                    "fds": process.num_fds(),
                    "threads": process.num_threads(),
                }
        except psutil.Error:
            return
        for unit, figure in figures.items():
            self._note(name, unit, figure)

    def _note(self, who: str, unit: str, figure: float) -> None:
        series = self.series.setdefault((who, unit), Series(unit))
        series.points.append((time.monotonic() - self._began, float(figure)))

    async def _database(self) -> tuple[int, int]:
        """Connections, and the bytes of the write-ahead log."""
        if self._world.database_url.startswith("sqlite"):
            wal = self._world.folder / "reprise.db-wal"
            return 0, wal.stat().st_size if wal.exists() else 0
        open_now = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
        wal_size = text("SELECT coalesce(sum(size), 0) FROM pg_ls_waldir()")
        return int((await self._world.ask(open_now))[0][0]), int((await self._world.ask(wal_size))[0][0])


def _role(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return "ffmpeg"
    if "cog.server.http" in words:
        return "cog server"
    return "cog worker" if "coglet" in words else "ffmpeg"


def _count_files(var_dir: Path) -> int:
    """Files of steps that are under way."""
    roots = [each for each in (var_dir / "tmp").iterdir() if each.is_dir()]
    steps = [step for root in roots for step in root.iterdir() if step.name not in ("lock", "worker")]
    return len(steps)
