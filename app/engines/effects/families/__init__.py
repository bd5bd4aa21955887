"""The table of every family, in a fixed order.

Owns: the order, which ties and the last fallback of `prompts` rely on. Promises: names and words are
unique (a test holds it). Leaves each recipe to the module of its nature.
"""

from __future__ import annotations

from app.engines.effects.families import (  # each is a module of this package
    animals,
    impacts,
    machines,
    people,
    scifi,
    signals,
    water,
    weather,
)
from app.engines.effects.take import Family

FAMILIES: tuple[Family, ...] = (
    *weather.FAMILIES,
    *water.FAMILIES,
    *animals.FAMILIES,
    *impacts.FAMILIES,
    *machines.FAMILIES,
    *signals.FAMILIES,
    *people.FAMILIES,
    *scifi.FAMILIES,
)

__all__ = ["FAMILIES"]
