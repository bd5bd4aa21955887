"""What may be asked of jobs, as frozen values. Pure; `app.search.language` reads and prints them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Field(StrEnum):
    """A fact that a job has one of, compared as it is."""

    STATE = "state"
    KIND = "kind"
    PROVIDER = "provider"
    """Asked for, or tried."""
    ERROR = "error"
    ID = "id"


class Edge(StrEnum):
    """An end of a span of time."""

    SINCE = "since"
    """Made then or later."""
    UNTIL = "until"
    """Made before then."""


@dataclass(frozen=True, slots=True)
class Said:
    """These words stand beside each other in the prompt or text, as `db.search.words` has them."""

    words: tuple[str, ...]
    is_open: bool = False
    """Whether the last one is only a beginning."""


@dataclass(frozen=True, slots=True)
class Has:
    """A fact has this value."""

    field: Field
    value: str


@dataclass(frozen=True, slots=True)
class Tagged:
    """The caller's metadata has this text, number or truth value under this name."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Made:
    """On this side of a moment."""

    edge: Edge
    at: datetime


@dataclass(frozen=True, slots=True)
class Both:
    """All of these; at least two, none of them a `Both`."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Any of these; at least two, none of them an `Either`."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """Not this."""

    part: Node


Node = Said | Has | Tagged | Made | Both | Either | Without
