"""A real MariaDB for tests, from the server that the machine has: no wheel ships one.

`scripts/setup --test` installs it where it may. Like PostgreSQL here, it runs under an unprivileged uid in a
temporary folder of its own, on a free loopback port, without the machine's configuration.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres import _as_unprivileged, _free_port

START_LIMIT_S = 30.0
_PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/local/bin"])
"""Servers are not on everybody's path."""
_OPTIONS = {
    "bind-address": "127.0.0.1",
    # A file is synced when the server likes: only tests may lose what they have committed.
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-doublewrite": "OFF",
    "innodb-flush-method": "nosync",
    "innodb-file-per-table": "OFF",
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "64M",
    "max-connections": "300",
    "performance-schema": "OFF",
}


@contextmanager
def running_mariadb() -> Iterator[int]:
    """Start a server; yields its port. Skips, with the reason, where there is none."""
    server, install = (shutil.which(name, path=_PLACES) for name in ("mariadbd", "mariadb-install-db"))
    if server is None or install is None:
        pytest.skip("MariaDB: no mariadbd and mariadb-install-db on this machine (mariadb-server-core)")
    folder = Path(tempfile.mkdtemp(prefix="reprise-maria-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        if os.geteuid() == 0:
            unprivileged = _as_unprivileged()
            os.chown(folder, int(unprivileged["user"]), int(unprivileged["group"]))  # type: ignore[arg-type]
        _install(install, folder)
        port = _free_port()
        process = _start(server, folder, port)
        _await_ready(process, folder / "log")
        yield port
    finally:
        if process is not None:
            process.kill()  # nothing of it is kept
            process.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def _install(install: str, folder: Path) -> None:
    done = subprocess.run(
        [install, "--no-defaults", f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal",
         "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=64M", f"--tmpdir={folder}"],
        check=False, capture_output=True, text=True, cwd=folder, **_as_unprivileged(),  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"MariaDB: its files could not be made: {(done.stdout + done.stderr)[-500:]}")


def _start(server: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    argv = [
        server,
        "--no-defaults",
        f"--datadir={folder / 'data'}",
        f"--socket={folder / 'socket'}",
        f"--pid-file={folder / 'pid'}",
        f"--tmpdir={folder}",
        f"--port={port}",
        "--skip-log-bin",
        "--skip-name-resolve",
        *(f"--{name}={value}" for name, value in _OPTIONS.items()),
    ]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, **_as_unprivileged())  # type: ignore[call-overload,no-any-return]


def _await_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server takes connections, or fail with the end of its log."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until and process.poll() is None:
        if "ready for connections" in log.read_text(errors="replace"):
            return
        time.sleep(0.02)
    raise RuntimeError(f"MariaDB did not start: {log.read_text(errors='replace')[-2000:]}")
