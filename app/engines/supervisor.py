"""Keeps one Cog server, and the worker inside it, alive.

Owns the child's whole life: its port, environment, health, output, restarts and end. Promises that `start`
returns with a server that is READY or raises EngineUnavailable and leaves nothing running; that a dead,
unhealthy or silent server is replaced, with growing pauses; that whoever needs to know hears after each
restart before which moment nothing survived; and that no process outlives `stop`, nor a SIGKILL of ours.

Leaves to callers: what predictions are (the server remembers none), and how long one may run: a server that
is BUSY is well, however long it stays so, until a caller condemns it.

Why it must be watched at all: coglet keeps running when its worker crashes, and refuses every prediction
with 409 from then on, as if it were busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx
from structlog.typing import FilteringBoundLogger

from app.errors import EngineUnavailable

OUR_PREDICTOR = f"{Path(__file__).with_name('predict.py')}:Runner"

_ROOT = Path(__file__).resolve().parents[2]
_WELL = {"READY", "BUSY"}
_SICK = {"UNHEALTHY", "DEFUNCT", "SETUP_FAILED"}
_POLL_S = 0.5
_STARTING_POLL_S = 0.05
_HEALTH_TIMEOUT_S = 2.0
_SILENT_POLLS = 5  # unanswered in a row: a stopped or thrashing process, not one slow answer
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 30.0
_STABLE_S = 60.0
_GRACE_S = 3.0
_GROUP_GONE_S = 0.5
_PIPE_CLOSED_S = 2.0
_TAIL_LINES = 50
_LONGEST_LINE = 2_000

# The worker runs engines and models: it needs the machine, not our secrets. The exception is Cog's own, the
# bearer token that its webhooks carry.
_SECRET = re.compile(r"^(?!WEBHOOK_AUTH_TOKEN$)(REPRISE_|AWS_|.*(TOKEN|SECRET|PASSWORD|_KEY|_URL|_DSN)$)")

# Below WARN, or the warning of every start: we ship no schema, our predictor checks its inputs itself.
_CALM = re.compile(r'\{.*("level":"(TRACE|DEBUG|INFO)"|No schema file at )')

OnRestart = Callable[[datetime], Awaitable[object]]
"""Told, once a new server is READY, the moment before which nothing survived."""


class CogSupervisor:
    """One Cog server of a predictor on a loopback port.

    `start`, then `run` for as long as the service lives, then `stop`; `run` may be cancelled at any time.
    All three belong to one event loop on a thread that lives as long: Linux ties a parent's death to the
    thread that started the child.
    """

    def __init__(
        self,
        *,
        python: Path | str = sys.executable,
        predictor: str = OUR_PREDICTOR,
        port: int = 0,
        tmp: Path,
        setup_timeout_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
        on_restart: OnRestart,
        log: FilteringBoundLogger,
    ) -> None:
        """`predictor` is `path.py:Class`; port 0 picks a free one; `tmp` is this server's alone.

        `environment` is what the server is told beside our own, which loses its secrets on the way.
        """
        self._port = port or _free_port()
        self._python = Path(python).absolute()  # not resolved: a link is what makes it a venv's
        self._environment = _environment(predictor, self._port, tmp, setup_timeout_s, environment or {})
        self._tmp = tmp
        self._setup_timeout_s = setup_timeout_s
        self._on_restart = on_restart
        self._log = log.bind(port=self._port)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ready_at = 0.0
        self._stopping = asyncio.Event()
        self._condemned: str | None = None
        # Spawning and killing take turns, so that a stop can never miss a child that is just being born.
        self._turn = asyncio.Lock()

    @property
    def url(self) -> str:
        """Where the server listens: the same from construction on, whatever happens to the process."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id, which is its process group's too; None while there is none."""
        return self._process.pid if self._process is not None else None

    @property
    def tail(self) -> str:
        """The last lines that the server printed."""
        return "\n".join(self._tail)

    async def start(self) -> None:
        """Start the server, wait until it is READY. Raises EngineUnavailable with its last output."""
        try:
            await self._spawn()
            await self._await_ready()
        except BaseException:
            await self._kill(grace_s=0.0)
            raise
        self._ready_at = time.monotonic()
        self._condemned = None
        self._log.info("engine.ready", pid=self.pid)

    async def run(self) -> None:
        """Watch the server and replace it when it fails, until `stop`."""
        failures = 0
        while (reason := await self._await_trouble()) is not None:
            failures = 0 if time.monotonic() - self._ready_at >= _STABLE_S else failures
            self._log.warning(
                "engine.failed", reason=reason, failures=failures, tail=self.tail[-_LONGEST_LINE:]
            )
            await self._kill(grace_s=0.0)
            # After the kill: whatever the old server still accepted while it was sick is gone as well.
            gone_at = datetime.now(UTC)
            failures = await self._replace(failures)
            if not self._stopping.is_set():
                await self._announce(gone_at)

    def condemn(self, reason: str) -> None:
        """Have the server replaced: somebody else knows that what it is busy with will never end."""
        self._condemned = reason

    async def stop(self) -> None:
        """End the server and everything that it started: politely, then by force. May be called twice."""
        self._stopping.set()
        await self._kill(grace_s=_GRACE_S)

    async def _replace(self, failures: int) -> int:
        """Start servers until one is READY or we are stopping; the number of failures so far."""
        while not self._stopping.is_set():
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures, 10))
            failures += 1
            if await self._stopped_within(pause_s):
                break
            try:
                await self.start()
                break
            except EngineUnavailable as error:
                self._log.warning("engine.restart_failed", failures=failures, error=error.message)
        return failures

    async def _announce(self, gone_at: datetime) -> None:
        try:
            await self._on_restart(gone_at)
        except Exception as error:  # noqa: BLE001 - the server must go on being watched
            self._log.exception("engine.restart_not_announced", error=str(error))

    async def _spawn(self) -> None:
        async with self._turn:
            if self._stopping.is_set():
                raise EngineUnavailable("the engine is being stopped")
            self._tail.clear()
            _check_free(self._port)
            try:
                _write_worker_python(self._tmp / "bin" / "python", self._python)
                self._process = await asyncio.create_subprocess_exec(
                    *_tied(_with_parent([str(self._python), "-m", "cog.server.http", "--host", "127.0.0.1"])),
                    cwd=self._tmp,
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineUnavailable(f"the Cog server cannot be started: {error}") from error
            self._reader = asyncio.create_task(self._read(self._process))

    async def _await_ready(self) -> None:
        deadline = time.monotonic() + self._setup_timeout_s
        async with self._client() as client:
            while (status := await self._health(client)) not in _WELL:
                if self._has_exited():
                    raise EngineUnavailable(f"the Cog server exited while it started:\n{self.tail}")
                if status in _SICK:
                    raise EngineUnavailable(f"the Cog server's setup failed ({status}):\n{self.tail}")
                if time.monotonic() > deadline:
                    limit = f"{self._setup_timeout_s:g} s"
                    raise EngineUnavailable(f"the Cog server was not ready within {limit}:\n{self.tail}")
                await asyncio.sleep(_STARTING_POLL_S)

    async def _await_trouble(self) -> str | None:
        """Why the server needs replacing; None when we are stopping."""
        silent = 0
        async with self._client() as client:
            while not self._stopping.is_set():
                if self._has_exited():
                    return "exited"
                if self._condemned is not None:
                    return self._condemned
                status = await self._health(client)
                silent = 0 if status else silent + 1
                if status in _SICK:
                    return status
                if silent >= _SILENT_POLLS:
                    return "silent"
                await self._stopped_within(_POLL_S)
        return None

    async def _health(self, client: httpx.AsyncClient) -> str:
        """The status word of /health-check; empty when there is no answer."""
        try:
            answer = await client.get("/health-check")
            return str(answer.json().get("status", ""))
        except (httpx.HTTPError, ValueError):
            return ""

    def _client(self) -> httpx.AsyncClient:
        # trust_env: a proxy from the environment must never see a loopback request.
        return httpx.AsyncClient(base_url=self.url, timeout=_HEALTH_TIMEOUT_S, trust_env=False)

    def _has_exited(self) -> bool:
        return self._process is None or self._process.returncode is not None

    async def _stopped_within(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), limit_s)
        return self._stopping.is_set()

    async def _kill(self, *, grace_s: float) -> None:
        """End the process group: SIGTERM where there is a grace, then SIGKILL; reap; close the pipe."""
        async with self._turn:
            process, self._process = self._process, None
            if process is None:
                return
            if grace_s and process.returncode is None:
                _signal_group(process.pid, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), grace_s)
            # Also when the server has exited: its worker notices that only some time later.
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
            await _await_group_gone(process.pid)
            if self._reader is not None:
                # The pipe ends with its last holder; one that left the group must not hold us up.
                await asyncio.wait({self._reader}, timeout=_PIPE_CLOSED_S)
                self._reader.cancel()
                self._reader = None

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Keep the pipe empty (a full one would block the server), line by line, each cut to a limit."""
        assert process.stdout is not None  # noqa: S101 - we asked for the pipe
        rest = b""
        while chunk := await process.stdout.read(8192):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[:_LONGEST_LINE]
            for line in lines:
                self._keep(line)
        if rest:
            self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode(errors="replace").rstrip()
        self._tail.append(text)
        # A server that is being stopped complains that its worker is gone.
        calm = self._stopping.is_set() or _CALM.match(text)
        (self._log.debug if calm else self._log.warning)("engine.output", line=text)


def _tied(argv: list[str]) -> list[str]:
    """`argv`, killed by the kernel when the process that starts it dies, where util-linux is there.

    Elsewhere a SIGKILL of ours leaves the server running until someone ends it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is not None and _can_tie(setpriv):
        return [setpriv, "--pdeathsig", "KILL", "--", *argv]
    return argv


def _with_parent(argv: list[str]) -> list[str]:
    """`argv`, unless we are dead by the time it starts: a tie only works for a death that comes later."""
    script = 'test "$PPID" = "$0" && exec "$@"'
    return ["/bin/sh", "-c", script, str(os.getpid()), *argv]


@functools.lru_cache(maxsize=1)
def _can_tie(setpriv: str) -> bool:
    try:
        tried = subprocess.run([setpriv, "--pdeathsig", "KILL", "--", "true"], timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def _write_worker_python(script: Path, python: Path) -> None:
    """What the server finds as `python` when it starts its worker: the right one, tied to the server.

    The worker would notice a dead server by itself, but not in the middle of a prediction: measured, one in
    a loop lived on and burned a core. Raises OSError.
    """
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(_tied([str(python)]))} "$@"\n')
    script.chmod(0o755)


def _environment(
    predictor: str, port: int, tmp: Path, setup_timeout_s: float, more: Mapping[str, str]
) -> dict[str, str]:
    file, _, name = predictor.rpartition(":")
    kept = {key: value for key, value in os.environ.items() if not _SECRET.match(key)} | dict(more)
    paths = [str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        # The server starts its worker as bare `python`, whichever that is.
        "PATH": f"{tmp.absolute() / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "PYTHONPATH": os.pathsep.join(paths),
        "COG_PREDICT_TYPE_STUB": f"{Path(file).absolute()}:{name}",
        "COG_SETUP_TIMEOUT": str(max(1, round(setup_timeout_s))),
        "COG_LOG_LEVEL": "warn",
        "PORT": str(port),
        "REPRISE_WORKER_TMP": str(tmp.absolute() / "worker"),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _check_free(port: int) -> None:
    """Raise EngineUnavailable where someone listens already: their READY must not pass for our server's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EngineUnavailable(f"port {port} cannot be used: {error.strerror}") from error


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


async def _await_group_gone(group: int) -> None:
    """Until nothing is left of it. A killed orphan stays until init reaps it, some seconds or for ever."""
    deadline = time.monotonic() + _GROUP_GONE_S
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            await asyncio.sleep(0.01)
