"""Which engines share one Cog server: data, and how a kind finds its group.

A group is loaded and unloaded as a whole, so engines that should come and go by themselves have groups of
their own. What a group needs of memory decides who must make room for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.engines.supervisor import OUR_PREDICTOR
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Group:
    """One Cog server: the kinds that it makes, and what it takes to run it."""

    name: str
    kinds: tuple[str, ...]
    """Empty: whatever is asked, told no kind."""
    predictor: str
    """`path.py:Class`."""
    need_bytes: int = 0
    """Memory that must be free before it is loaded; 0: it is small."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its process is told beside our own environment."""


EMBEDDED_KINDS = ("sound_effect", "background_music", "speech")
"""What the engines of the installation make."""


def groups_for(settings: Settings, kinds: Sequence[str]) -> list[Group]:
    """The groups that make these kinds."""
    embedded = tuple(kind for kind in EMBEDDED_KINDS if kind in kinds)
    return [Group("embedded", embedded, OUR_PREDICTOR)] if embedded else []


def find_group(groups: Sequence[Group], kind: object) -> Group | None:
    """The group that makes `kind`. One group alone may be told no kind at all."""
    for group in groups:
        if kind in group.kinds:
            return group
    if len(groups) == 1 and (kind is None or not groups[0].kinds):
        return groups[0]
    return None
