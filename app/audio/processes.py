"""One way to run a foreign program: bounded in time, memory, processor, files and talk.

Owns spawning, draining, limiting and killing. Promises that when `run` returns or raises, the program and
everything it forked into its group is dead and reaped, and that it dies with us even when we are SIGKILLed
(where util-linux's `setpriv` is there; 0.4 ms a start, measured). Leaves to the caller what an exit code or a
last line means: nothing here knows ffmpeg.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import EngineUnavailable

_STDERR_TAIL_BYTES = 8 * 1024
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may take. The defaults suit a media tool on a machine that also serves requests."""

    address_space_bytes: int = 2 << 30
    """RLIMIT_AS: ffmpeg 9 needs 0.5-1 GB of it for thread stacks and arenas alone (500 MB failed once)."""
    file_bytes: int | None = None
    """RLIMIT_FSIZE: any single file the program writes."""
    cpu_s: float | None = None
    """RLIMIT_CPU, over all threads."""
    niceness: int = 10
    reap_s: float = 5.0
    """How long pipes that an escaped grandchild still holds are read after the end."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended. `exit_code` is negative for a signal, as in `subprocess`."""

    exit_code: int
    stdout: bytes
    """The first `stdout_bytes` that were asked for; the rest was read and dropped."""
    stderr_tail: str
    """The last 8 kB."""


async def run(
    argv: Sequence[str], *, timeout_s: float, limits: Limits | None = None, stdout_bytes: int = 0
) -> Finished:
    """Run `argv` with stdin closed and an empty environment; wait for its end.

    Raises TimeoutError once `timeout_s` has passed (the group is dead by then) and EngineUnavailable when the
    program is not there. On cancellation the group is killed and reaped before the cancellation goes on.
    """
    limits = limits or Limits()
    transport, watch = await _spawn(argv, stdout_bytes)
    pid = transport.get_pid()
    try:
        _limit(pid, limits)
        await asyncio.wait({watch.exited}, timeout=timeout_s)
        if not watch.exited.done():
            raise TimeoutError(f"the program ran longer than {timeout_s:g} s")
    finally:
        await _end(pid, transport, watch, limits.reap_s)
    return Finished(transport.get_returncode() or 0, watch.stdout, watch.stderr.decode("utf-8", "replace"))


class _Watch(asyncio.SubprocessProtocol):
    """Reads both pipes as they fill (a full one would stop the program) and keeps what was asked for.

    A protocol and not `asyncio.subprocess`: that has no public way to give up on a pipe that somebody else
    still holds, and its `wait` may wait for the pipes too.
    """

    def __init__(self, stdout_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.stdout = b""
        self.stderr = b""
        self._stdout_bytes = stdout_bytes

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            self.stderr = (self.stderr + data)[-_STDERR_TAIL_BYTES:]
        elif len(self.stdout) < self._stdout_bytes:
            self.stdout = (self.stdout + data)[: self._stdout_bytes]

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Reaped, and both pipes read to their ends."""
        if not self.closed.done():
            self.closed.set_result(None)


async def _spawn(argv: Sequence[str], stdout_bytes: int) -> tuple[asyncio.SubprocessTransport, _Watch]:
    program = shutil.which(argv[0])
    if program is None:
        raise EngineUnavailable(f"the program {argv[0]!r} is not there or may not be run")
    try:
        return await asyncio.get_running_loop().subprocess_exec(
            lambda: _Watch(stdout_bytes),
            *_die_with_parent(),
            program,
            *argv[1:],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # its own group, so that one kill reaches all it forks
            # Nothing of ours goes along: no secrets, and no FFREPORT that would make ffmpeg write a log file.
            env={"LC_ALL": "C", "PATH": os.defpath},
        )
    except OSError as exc:
        raise EngineUnavailable(f"the program {argv[0]!r} cannot be started: {exc.strerror}") from exc


async def _end(pid: int, transport: asyncio.SubprocessTransport, watch: _Watch, reap_s: float) -> None:
    """Kill the whole group, also after a good end: what outlived the program must not keep writing, and under
    uvloop it holds our pipes open (that loop leaks copies of them into children)."""
    # The group id cannot have been given away, unless the kernel went round all process ids in between.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    try:
        await asyncio.wait({watch.closed}, timeout=reap_s)
    finally:
        transport.close()  # gives up on pipes that something outside the group holds


def _die_with_parent() -> list[str]:
    # A preexec_fn would do the same by a fork that blocks the loop; setpriv execs in place and keeps the pid.
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _limit(pid: int, limits: Limits) -> None:
    """Apply `limits` from outside, right after the spawn: the first milliseconds run without them."""
    wanted = {
        resource.RLIMIT_AS: limits.address_space_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_CPU: None if limits.cpu_s is None else math.ceil(limits.cpu_s),
        resource.RLIMIT_CORE: 0,
    }
    with contextlib.suppress(ProcessLookupError):  # it may be over already
        os.setpriority(os.PRIO_PROCESS, pid, limits.niceness)
        for name, value in wanted.items():
            if value is not None:
                # A container may have set a harder limit: below it we may go, above it not.
                _, hardest = resource.prlimit(pid, name)
                lower = value if hardest == resource.RLIM_INFINITY else min(value, hardest)
                resource.prlimit(pid, name, (lower, lower))
