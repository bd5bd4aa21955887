"""Temporary folders that never outlive their step, nor the process, nor its death; and the room for them.

Each process has one folder under `VAR_DIR/tmp` and holds a lock in it; each step gets a folder of its own
inside, removed when the step ends however it ends. A process that starts removes the folders of processes
whose lock is free: those that were killed. `Disks` tells how much room is left on every disk that a job is
written to, before it is full.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from app.errors import StartupError, StorageUnavailable

log = structlog.get_logger()
LOCK_NAME = "lock"
TURN_NAME = "tmp.lock"
"""Beside the folders: held while they are swept and claimed."""


class Workspace:
    """The temporary folders of one process."""

    def __init__(self, var_dir: Path) -> None:
        """Sweep what dead processes left, then claim a folder. Raises StartupError."""
        base = var_dir / "tmp"
        try:
            base.mkdir(parents=True, exist_ok=True)
            with _turn(var_dir / TURN_NAME):
                _sweep(base)
                self.root = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base)).resolve()
                self._lock = os.open(self.root / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise StartupError(f"VAR_DIR: {base} cannot be used: {exc.strerror}") from exc

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """A private folder for one step. Raises StorageUnavailable when the disk has no room for it."""
        try:
            path = Path(tempfile.mkdtemp(dir=self.root))
        except OSError as exc:
            raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc
        try:
            yield path
        finally:
            # Shielded: a cancelled step must not leave its files behind.
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)


class Disks:
    """The disks that a job is written to, by what they are for, and how full they may become."""

    def __init__(self, places: Mapping[str, Path], *, floor_bytes: int) -> None:
        """Below `floor_bytes` left on the disk of one of these folders there is a shortage."""
        self._places = dict(places)
        self._floor_bytes = floor_bytes
        self._shortage: str | None = None
        self._looked_at = float("-inf")

    async def disk_left(self) -> dict[str, int]:
        """Free bytes by what the disk is for."""
        return await asyncio.to_thread(lambda: {name: _free(path) for name, path in self._places.items()})

    async def find_shortage(self, *, within_s: float = 0.0) -> str | None:
        """What is short of room, in words; None when nothing is. May be a look of up to `within_s` ago."""
        now = time.monotonic()
        if now - self._looked_at >= within_s:
            left = await self.disk_left()
            short = {name: free for name, free in left.items() if free < self._floor_bytes}
            self._looked_at = now
            self._shortage = (
                ", ".join(f"{name}: {free >> 20} MiB left" for name, free in sorted(short.items()))
                + f", less than the {self._floor_bytes >> 20} MiB of MIN_FREE_BYTES"
                if short
                else None
            )
        return self._shortage


def _free(path: Path) -> int:
    """Of the folder itself, or of the nearest one above it that is there: it is made with the first file."""
    nearest = next(each for each in (path.resolve(), *path.resolve().parents) if each.exists())
    return shutil.disk_usage(nearest).free


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process at a time: a neighbour's folder is never seen before its lock is held."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sweep(base: Path) -> None:
    for path in base.iterdir():
        if path.is_dir() and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
            log.info("workspace.swept", folder=path.name)


def _is_abandoned(path: Path) -> bool:
    try:
        handle = os.open(path / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        return True  # killed between making the folder and its lock
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
