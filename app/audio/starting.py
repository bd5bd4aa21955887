"""Starts a foreign program without stopping the event loop for it.

Owns the system call: `posix_spawn` of the C library, on one thread that lives as long as the process.
Promises a program in a process group of its own, with stdin closed, two pipes of its own, the environment it
was given and nothing else of ours. Leaves limits, reading, killing and reaping to `app.audio.processes`.

Why not a session of its own: where Linux schedules by sessions (autogroup, see sched(7)), niceness says
nothing outside of one. Three nice ffmpegs then got three quarters of two busy processors, and the event loop
waited up to 48 ms for its turn; webhooks beside them took 41 ms at the 99th percentile, and take 20 now.

Why not `subprocess`: a spawn suspends the caller until the new program has been executed, which takes until
the scheduler gives it a processor, and `subprocess` holds the interpreter's lock meanwhile. On two processors
busy with ffmpeg that was 8 ms in one start of ten and the whole service stood still for it. A foreign call by
ctypes gives the lock away: the loop's own delay at the 99th percentile fell from 9.6 ms to 3.7 (measured).
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

_SETPGROUP = 0x02
_SETSIGDEF = 0x04
"""POSIX_SPAWN_SETPGROUP and POSIX_SPAWN_SETSIGDEF of <spawn.h>: glibc, musl and macOS agree."""

_Opaque = ctypes.c_byte * 1024
"""Room for the C library's own structures: 336 bytes are the largest (glibc's attributes)."""

_libc = ctypes.CDLL(None)

STARTER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts-programs")
"""The only thread that starts programs: "dies with its parent" means the thread that started it (Linux)."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that was started: its process id, which is its group's too, and our ends of its pipes.

    Descriptors, for whoever reads them to close.
    """

    pid: int
    stdout: int
    stderr: int

    def wait(self) -> int:
        """Wait for its end and reap it; the exit code, negative for a signal. Blocks; called once."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def start(argv: Sequence[str], env: Mapping[str, str]) -> Program:
    """Start `argv`, whose first is the program's path. Blocks; run on `STARTER`. Raises OSError."""
    ours: list[int] = []
    theirs = [os.open(os.devnull, os.O_RDONLY)]
    try:
        for _ in ("stdout", "stderr"):
            read_end, write_end = os.pipe()
            ours.append(read_end)
            theirs.append(write_end)
        pid = _spawn(argv, env, theirs)
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(theirs)
    return Program(pid, *ours)


def _spawn(argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int]) -> int:
    """Start it with `descriptors` as its 0, 1, 2. All others of ours are closed by the exec."""
    pid = ctypes.c_int()
    with _file_actions(descriptors) as actions, _attributes() as attributes:
        failed = _libc.posix_spawn(
            ctypes.byref(pid),
            os.fsencode(argv[0]),
            actions,
            attributes,
            _strings(argv),
            _strings([f"{name}={value}" for name, value in env.items()]),
        )
    if failed:
        raise OSError(failed, os.strerror(failed), argv[0])
    return pid.value


@contextmanager
def _file_actions(descriptors: Sequence[int]) -> Iterator[ctypes.Array[ctypes.c_byte]]:
    actions = _Opaque()
    _checked(_libc.posix_spawn_file_actions_init(actions))
    try:
        for number, descriptor in enumerate(descriptors):
            _checked(_libc.posix_spawn_file_actions_adddup2(actions, descriptor, number))
        yield actions
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)


@contextmanager
def _attributes() -> Iterator[ctypes.Array[ctypes.c_byte]]:
    """Its own group, so that one kill reaches all it forks; and the signals that Python ignores, heard."""
    attributes, heard = _Opaque(), _Opaque()
    _checked(_libc.posix_spawnattr_init(attributes))
    try:
        _libc.sigemptyset(heard)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            _libc.sigaddset(heard, int(number))
        _checked(_libc.posix_spawnattr_setsigdefault(attributes, heard))
        _checked(_libc.posix_spawnattr_setpgroup(attributes, 0))
        _checked(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETPGROUP | _SETSIGDEF)))
        yield attributes
    finally:
        _libc.posix_spawnattr_destroy(attributes)


def _strings(values: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(values) + 1))(*map(os.fsencode, values), None)


def _checked(failed: int) -> None:
    if failed:
        raise OSError(failed, os.strerror(failed))


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
