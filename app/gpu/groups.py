"""Which engines share one Cog server: data, and how a kind finds its group.

A group is loaded and unloaded as a whole, so engines that should come and go by themselves have groups of
their own. What a group needs of memory decides who must make room for it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.engines.base import EngineError
from app.engines.inputs import KINDS
from app.engines.neural.catalog import Named, read_models
from app.engines.neural.placement import needed_bytes
from app.engines.supervisor import OUR_PREDICTOR
from app.errors import StartupError
from app.settings import Settings

NEURAL_PREDICTOR = f"{Path(__file__).parents[1] / 'engines' / 'neural' / 'predict.py'}:Runner"


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


def groups_for(settings: Settings, kinds: Sequence[str]) -> list[Group]:
    """The groups that make these kinds: a neural engine where one is named, else the installation's.

    Each neural engine has a group of its own, so that it can be unloaded by itself. Raises StartupError.
    """
    try:
        models = read_models(settings.neural_models, allow_noncommercial=settings.neural_allow_noncommercial)
    except EngineError as error:
        raise StartupError(f"NEURAL_MODELS: {error}") from error
    groups = [_neural_group(settings, named) for kind, named in models.items() if kind in kinds]
    embedded = tuple(kind for kind in KINDS if kind in kinds and kind not in models)
    if embedded:
        groups.append(Group("embedded", embedded, OUR_PREDICTOR))
    return groups


def _neural_group(settings: Settings, named: Named) -> Group:
    if importlib.util.find_spec("torch") is None:
        raise StartupError("NEURAL_MODELS: PyTorch is not installed; scripts/setup --neural does it")
    kind = named.family.kind
    environment = {"NEURAL_MODELS": json.dumps({kind: named.name})}
    if settings.neural_allow_noncommercial:
        environment["NEURAL_ALLOW_NONCOMMERCIAL"] = "true"
    if settings.hf_token is not None:
        environment["HF_TOKEN"] = settings.hf_token.get_secret_value()
    need = needed_bytes(named.need, named.need.precisions[0])
    return Group(kind, (kind,), NEURAL_PREDICTOR, need_bytes=need, environment=environment)


def find_group(groups: Sequence[Group], kind: object) -> Group | None:
    """The group that makes `kind`. One group alone may be told no kind at all."""
    for group in groups:
        if kind in group.kinds:
            return group
    if len(groups) == 1 and (kind is None or not groups[0].kinds):
        return groups[0]
    return None
