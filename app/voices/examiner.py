"""Has a recording measured in a process of its own, and understands what that says.

A process, for what is measured takes seconds of processor and libraries in C that a hostile file may bring
down: the event loop never waits for it, it dies with whoever asked, and its memory goes with it. Not a job: a
recording that is refused should leave nothing behind, and whoever sent it waits for the answer. One at a time
in each process of the service, and a few that wait.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Protocol

from app.audio.processes import Limits, run
from app.engines.voice.examining import Examined
from app.errors import AudioRejected, EngineUnavailable, Overloaded

ROOT = Path(__file__).resolve().parents[2]
MOST_WAITING = 8
_MEMORY_BYTES = 4 << 30
"""Of addresses: onnxruntime maps far more than it uses (about 300 MB for a minute of sound)."""
_MOST_SAID_BYTES = 64 * 1024
# Isolated from the environment and the folder it is started in; our own code is where this file lies.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from app.engines.voice.examining import main; main(sys.argv[2])"
)


class Examiner(Protocol):
    """The port: tests have one that says what they want to hear."""

    async def examine(self, recording: Path) -> Examined:
        """Raises AudioRejected, EngineUnavailable, Overloaded."""
        ...


class ProcessExaminer:
    """The real one."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._turn = asyncio.Semaphore(1)
        self._asking = 0

    async def examine(self, recording: Path) -> Examined:
        """Raises AudioRejected, EngineUnavailable, Overloaded."""
        if self._asking > MOST_WAITING:
            raise Overloaded("too many recordings are being examined", retry_after_s=5)
        self._asking += 1
        try:
            async with self._turn:
                return await self._run(recording)
        finally:
            self._asking -= 1

    async def _run(self, recording: Path) -> Examined:
        argv = [sys.executable, "-I", "-c", _PROGRAM, str(ROOT), str(recording)]
        limits = Limits(address_space_bytes=_MEMORY_BYTES, file_bytes=0, cpu_s=self._timeout_s)
        try:
            ended = await run(argv, timeout_s=self._timeout_s, limits=limits, stdout_bytes=_MOST_SAID_BYTES)
        except TimeoutError as exc:
            raise Overloaded("examining the recording took too long", retry_after_s=30) from exc
        try:
            said = json.loads(ended.stdout)
        except ValueError as exc:
            raise AudioRejected(f"examining it ended with {ended.exit_code}") from exc
        if "error" not in said:
            return Examined(**said)
        if said["unavailable"]:
            raise EngineUnavailable(said["error"])
        raise AudioRejected(said["error"])
