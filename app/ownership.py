"""One process tree on a database that is not shared: who serves it, and where.

The lock is the kernel's (`flock`), so it goes with the process however that ends; the file's text says
where the holder listens, so that commands on the same machine find the running service. That is all for a
SQLite file. A MySQL server is reached from other machines too, and has a lock of its own: `sole_use`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.engine import make_url

from app.errors import StartupError
from app.settings import Settings
from db.mysql.owner import LOOK_EVERY_S, OwnerLock

log = structlog.get_logger()

_TRIES, _PAUSE_S = 10, 0.01
_MOUNTS = Path("/proc/self/mountinfo")
_SHARED = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs")
"""Kinds of file systems that other machines may write as well, by how their names begin."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that serves this database now."""

    pid: int
    url: str


class Ownership:
    """Held by the process that runs the stations of an embedded database."""

    def __init__(self, settings: Settings) -> None:
        """Take the lock. Raises StartupError naming the process that has it."""
        self._path = lock_path(settings)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as exc:
            raise StartupError(f"DATABASE_URL: {exc.filename} cannot be made: {exc.strerror}") from exc
        try:
            _take(self._handle)
        except BlockingIOError as exc:
            os.close(self._handle)
            owner = find_owner(settings)
            who = f"process {owner.pid} at {owner.url}" if owner else "another process"
            raise StartupError(f"DATABASE_URL: {who} serves this database already") from exc

        kind = shared_file_system(self._path)
        if kind is not None:
            # The lock above may have been granted to two machines at once; nobody could tell.
            log.warning("ownership.shared_file_system", path=str(self._path.parent), kind=kind)
        # A predecessor that was killed left its address here, and ours is not known yet.
        os.ftruncate(self._handle, 0)

    def publish(self, url: str) -> None:
        """Say where the service listens."""
        text = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text, 0)

    def close(self) -> None:
        os.ftruncate(self._handle, 0)
        os.close(self._handle)


@asynccontextmanager
async def sole_use(
    settings: Settings, *, on_loss: Callable[[], None], look_every_s: float = LOOK_EVERY_S
) -> AsyncIterator[None]:
    """Be the only process that works on this MySQL database while the block lasts; elsewhere do nothing.

    `on_loss` is called once if the lock was lost with its connection and another process took it: what
    both do meanwhile is fenced by the rows. Raises StartupError when another process has it.
    """
    if settings.is_sqlite or settings.is_shared:
        yield
        return
    lock = OwnerLock(settings.database_url)
    try:
        try:
            is_ours = await lock.hold()
        except OSError as exc:
            raise StartupError(f"DATABASE_URL: the server does not answer: {exc}") from exc
        if not is_ours:
            raise StartupError("DATABASE_URL: a process elsewhere serves this database already")
        ended = asyncio.Event()
        watching = asyncio.create_task(_watch(lock, on_loss, look_every_s, ended))
        try:
            yield
        finally:
            # Both: on Python 3.11 a cancel that meets the driver's answer within its `wait_for` is lost.
            ended.set()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    finally:
        await lock.aclose()


async def _watch(
    lock: OwnerLock, on_loss: Callable[[], None], look_every_s: float, ended: asyncio.Event
) -> None:
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), look_every_s)
        if ended.is_set():
            return
        try:
            if await lock.hold():
                continue
        except OSError as exc:
            # Away for us: nobody else can have it from there either, and no row can be moved.
            log.warning("ownership.unknown", reason=str(exc))
            continue
        log.critical("ownership.lost")
        on_loss()
        return


def _take(handle: int) -> None:
    """Take the lock. `find_owner` of another process may have it, for less than the pauses here."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_PAUSE_S)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def find_owner(settings: Settings) -> Owner | None:
    """The process that serves this database, if one does and has said where."""
    try:
        handle = os.open(lock_path(settings), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 4096, 0)
        return Owner(**json.loads(text)) if text else None
    finally:
        os.close(handle)
    return None


def lock_path(settings: Settings) -> Path:
    """Beside the SQLite file; for a server's database, under a name of its own among the temporary files."""
    url = make_url(settings.database_url)
    if settings.is_sqlite and url.database:
        return Path(f"{url.database}.lock")
    if settings.is_shared:
        return settings.var_dir / "service.lock"  # has no owner: never written
    place = f"{url.host}:{url.port}/{url.database}".encode()
    return settings.var_dir / f"service-{hashlib.sha256(place).hexdigest()[:16]}.lock"


def shared_file_system(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of file system, if the path is on one whose locks and shared memory SQLite cannot rely on.

    None as well where the machine does not say what is mounted.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    kinds = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        # The field writes a blank as \040.
        kinds[Path(before.split()[4].replace("\\040", " "))] = after.split()[0]
    resolved = path.resolve()
    kind = next((kinds[place] for place in (resolved, *resolved.parents) if place in kinds), "")
    return kind if kind.startswith(_SHARED) else None
