"""Objects as files in a folder: written aside, synced, renamed, and the folders synced too.

A power cut or a full disk at any moment leaves either no object or the whole one; what was written aside
stays beside it as `NAME#DIGITS`, which no listing shows and the sweep removes. Everything here blocks: call
it in a thread. Raises OSError; `app.storage` says in words what it means.
"""

from __future__ import annotations

import filecmp
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_ASIDE = re.compile(r".+#\d+")
"""Our own, and what obstore calls a file that it has not finished."""


def write(path: Path, content: Path | bytes) -> None:
    """Put a file's bytes, or bytes at hand, under this name: whole and on the disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}#{secrets.randbelow(10**12)}")
    try:
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            shutil.copyfile(content, aside)
        # Before the rename: a disk that turns out to be full at the sync must not leave a name without bytes.
        _sync(aside)
        aside.replace(path)
        sync_names(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def sync_names(path: Path) -> None:
    """The entry in its folder, and the folder's own in the one above."""
    _sync(path.parent)
    _sync(path.parent.parent)


def holds(path: Path, source: Path) -> bool:
    """Whether the object is there with the very bytes of `source`, and on the disk."""
    try:
        same = filecmp.cmp(source, path, shallow=False)
    except FileNotFoundError:
        # Which of the two is gone matters: without a source there is nothing to store.
        source.stat()
        return False
    if same:
        # There by its name is not there on the disk: whoever wrote it may have died before the sync.
        _sync(path)
        sync_names(path)
    return same


def open_object(path: Path) -> tuple[BinaryIO, int]:
    """The open file and its size: it can be read to its end even when its name goes meanwhile."""
    file = path.open("rb", buffering=0)
    return file, os.fstat(file.fileno()).st_size


def list_aside(root: Path) -> Iterator[tuple[Path, datetime]]:
    """Files that a killed writer left beside the objects, with the time of their last byte."""
    for folder in (root, *(path for path in root.iterdir() if path.is_dir())):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and _ASIDE.fullmatch(path.name):
                    yield path, datetime.fromtimestamp(found.st_mtime, UTC)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
