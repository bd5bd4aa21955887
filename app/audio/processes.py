"""One way to run a foreign program: bounded in time, memory, processor, files and talk.

Owns draining, limiting, killing and reaping. Promises that when `run` returns or raises, the program and
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
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from app.audio.starting import STARTER, Program, start
from app.errors import EngineUnavailable

_STDERR_TAIL_BYTES = 8 * 1024
_READ_BYTES = 64 * 1024
"""What a pipe of Linux holds."""


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
    program is not there. On cancellation the group is killed and reaped before the cancellation goes on; a
    program that is only just being started then, as soon as it has been.
    """
    limits = limits or Limits()
    program = await _start(argv)
    exited = asyncio.ensure_future(asyncio.to_thread(program.wait))
    pipes = (
        _Pipe(program.stdout, keep=lambda held: held[:stdout_bytes]),
        _Pipe(program.stderr, keep=lambda held: held[-_STDERR_TAIL_BYTES:]),
    )
    try:
        _limit(program.pid, limits)
        await asyncio.wait({exited}, timeout=timeout_s)
        if not exited.done():
            raise TimeoutError(f"the program ran longer than {timeout_s:g} s")
    finally:
        await _end(program.pid, exited, pipes, limits.reap_s)
    stdout, stderr = (pipe.held for pipe in pipes)
    return Finished(exited.result(), stdout, stderr.decode("utf-8", "replace"))


class _Pipe:
    """Reads a pipe as it fills (a full one would stop the program) and keeps what was asked for.

    Owns the descriptor and closes it once. Not `connect_read_pipe`: on uvloop both libuv and the file object
    close it, and between the two another thread may have been given its number (a file of SQLite's, or the
    pipe of the next program, as was seen). Nor `asyncio.subprocess`, which has no public way to give up on a
    pipe that somebody else still holds.
    """

    def __init__(self, end: int, *, keep: Callable[[bytes], bytes]) -> None:
        self.held = b""
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._end = end
        self._keep = keep
        os.set_blocking(end, False)
        self._loop.add_reader(end, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._end, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self.held = self._keep(self.held + data)
        else:
            self.give_up()

    def give_up(self) -> None:
        """Read no more: at the end, or because something outside the group may still hold the other end."""
        if not self.closed.done():
            self._loop.remove_reader(self._end)
            os.close(self._end)
            self.closed.set_result(None)


async def _start(argv: Sequence[str]) -> Program:
    """Start the program, off the loop."""
    path = shutil.which(argv[0])
    if path is None:
        raise EngineUnavailable(f"the program {argv[0]!r} is not there or may not be run")
    # Nothing of ours goes along: no secrets, and no FFREPORT that would make ffmpeg write a log file.
    env = {"LC_ALL": "C", "PATH": os.defpath}
    # Not `run_in_executor`: its future forgets a start that is under way when it is cancelled.
    starting = STARTER.submit(start, [*_die_with_parent(), path, *argv[1:]], env)
    try:
        return await asyncio.shield(asyncio.wrap_future(starting))
    except asyncio.CancelledError:
        if not starting.cancel():
            starting.add_done_callback(_end_unwanted)
        raise
    except OSError as exc:
        raise EngineUnavailable(f"the program {argv[0]!r} cannot be started: {exc.strerror}") from exc


def _end_unwanted(starting: Future[Program]) -> None:
    """Nobody waits any more for a program that was just being started."""
    if starting.exception() is None:
        program = starting.result()
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        os.close(program.stdout)
        os.close(program.stderr)


async def _end(pid: int, exited: asyncio.Future[int], pipes: Sequence[_Pipe], reap_s: float) -> None:
    """Kill the whole group, also after a good end: what outlived the program must not keep writing."""
    # The group id cannot have been given away, unless the kernel went round all process ids in between.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    try:
        ends: list[asyncio.Future[Any]] = [exited, *(pipe.closed for pipe in pipes)]
        await asyncio.wait(ends, timeout=reap_s)
    finally:
        for pipe in pipes:
            pipe.give_up()


def _die_with_parent() -> list[str]:
    # posix_spawn has no such attribute; setpriv execs in place and keeps the pid.
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
        _run_in_batches(pid)
        for name, value in wanted.items():
            if value is not None:
                # A container may have set a harder limit: below it we may go, above it not.
                _, hardest = resource.prlimit(pid, name)
                lower = value if hardest == resource.RLIM_INFINITY else min(value, hardest)
                resource.prlimit(pid, name, (lower, lower))


def _run_in_batches(pid: int) -> None:
    """Let its threads run on when they wake each other: SCHED_BATCH, which Linux alone has.

    ffmpeg's threads hand on one frame of 26 ms at a time, and each that is handed one stops the one that
    works: 1,240 times in a clip of 10 s. So there are 40, and a quarter less system time (measured).
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a sandbox may forbid it, musl has it not: slower, and no fault
            os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
