"""Who owns a database and which temporary folders are alive, whatever was killed just now."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.errors import StartupError
from app.ownership import Ownership, find_owner, lock_path
from app.settings import Settings
from app.workspace import Workspace
from tests.conftest import make_settings
from tests.crash.child import ROOT, START_LIMIT_S, Child

HOLDER = """
import sys
from pathlib import Path
from app.ownership import Ownership
from app.workspace import Workspace
from tests.conftest import make_settings
settings = make_settings(Path(sys.argv[1]))
ownership, workspace = Ownership(settings), Workspace(settings.var_dir)
ownership.publish("http://127.0.0.1:4711")
print(workspace.root, flush=True)
sys.stdin.read()
"""


@dataclass
class Holder:
    """A process that owns the database of a folder and has a temporary folder there."""

    process: subprocess.Popen[str]
    root: Path

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(START_LIMIT_S)


@contextmanager
def holding(folder: Path) -> Iterator[Holder]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        yield Holder(process, Path(process.stdout.readline().strip()))
        process.kill()


async def test_a_second_service_on_one_database_refuses_with_one_line_that_names_the_first(
    tmp_path: Path, child: Child
) -> None:
    """Fault 47: a second process on the same file."""
    with holding(tmp_path) as first:
        await child.spawn()
        assert child.process is not None
        assert await child.process.wait() == 2
        assert child.log.splitlines() == [
            f"DATABASE_URL: process {first.process.pid} at http://127.0.0.1:4711 serves this database already"
        ]


def test_a_database_is_free_as_soon_as_its_owner_is_killed(tmp_path: Path, settings: Settings) -> None:
    with holding(tmp_path) as first:
        with pytest.raises(StartupError, match=str(first.process.pid)):
            Ownership(settings)
        first.kill()
        assert find_owner(settings) is None
        Ownership(settings).close()


def test_the_address_of_a_killed_owner_is_not_given_out_for_the_next_one(
    tmp_path: Path, settings: Settings
) -> None:
    with holding(tmp_path) as first:
        first.kill()
        following = Ownership(settings)
        assert find_owner(settings) is None
        following.publish("http://127.0.0.1:4712")
        owner = find_owner(settings)
        assert owner is not None
        assert (owner.pid, owner.url) == (os.getpid(), "http://127.0.0.1:4712")
        following.close()


def test_a_look_for_the_owner_does_not_keep_a_service_from_starting(settings: Settings) -> None:
    Ownership(settings).close()
    handle = os.open(lock_path(settings), os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)  # what a look holds, here for much longer than it does
    looking = threading.Timer(0.02, os.close, [handle])
    looking.start()
    Ownership(settings).close()
    looking.join()


def test_a_start_sweeps_the_folder_of_a_killed_process_and_never_one_of_a_living(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    living = Workspace(settings.var_dir)
    with holding(tmp_path) as first:
        (first.root / "step").mkdir()
        (first.root / "step" / "audio.fetched").write_bytes(b"half")
        beside = Workspace(settings.var_dir)
        assert first.root.is_dir()
        first.kill()
        following = Workspace(settings.var_dir)
    assert not first.root.exists()
    assert living.root.is_dir()
    assert beside.root.is_dir()
    for workspace in (living, beside, following):
        workspace.close()
    assert list((settings.var_dir / "tmp").iterdir()) == []


def test_a_folder_that_was_killed_before_it_had_its_lock_is_swept_whoever_has_its_process_id_now(
    tmp_path: Path,
) -> None:
    left = tmp_path / "tmp" / f"{os.getpid()}-abcdefgh"
    left.mkdir(parents=True)
    workspace = Workspace(tmp_path)
    assert not left.exists()
    workspace.close()


def test_processes_that_start_at_once_all_keep_their_folders(tmp_path: Path) -> None:
    gate = threading.Barrier(8)

    def claim(_: int) -> Workspace:
        gate.wait()
        return Workspace(tmp_path)

    for _ in range(10):
        with ThreadPoolExecutor(8) as pool:
            workspaces = list(pool.map(claim, range(8)))
        assert all((workspace.root / "lock").is_file() for workspace in workspaces)
        for workspace in workspaces:
            workspace.close()
