"""Temporary folders that never outlive their step, nor the process, nor its death.

Each process has one folder under `VAR_DIR/tmp` and holds a lock in it; each step gets a folder of its own
inside, removed when the step ends however it ends. A process that starts removes the folders of processes
whose lock is free: those that were killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
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
