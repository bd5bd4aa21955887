"""The words of the doctor: a check, what it found, how bad that is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from app.settings import Settings


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, and something should be known or done."""
    FAIL = "fail"
    """Jobs would fail, or news be lost."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `hint` says what to do, and is empty when all is well."""

    name: str
    level: Level
    detail: str
    hint: str = ""

    @classmethod
    def ok(cls, name: str, detail: str) -> Finding:
        return cls(name, Level.OK, detail)

    @classmethod
    def warn(cls, name: str, detail: str, hint: str) -> Finding:
        return cls(name, Level.WARN, detail, hint)

    @classmethod
    def fail(cls, name: str, detail: str, hint: str) -> Finding:
        return cls(name, Level.FAIL, detail, hint)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; `hint` is for when it fails in a way that it did not foresee."""

    name: str
    look: Callable[[Settings], Awaitable[list[Finding]]]
    limit_s: float
    hint: str
