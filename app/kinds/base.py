"""What a job kind is: its input, its models at each provider, its finishing recipe.

Owns the `Kind` type. Leaves to each kind's own module what a caller may ask and what a model is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.errors import ProviderBadResponse


class KindInput(BaseModel):
    """The base of every kind's input: unknown fields are refused, so that a typing error is not silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A Replicate model that can do a kind, and how it wants to be asked."""

    name: str
    """`owner/name`, or `owner/name:version` where the model is not an official one."""
    ask: Callable[[Any], dict[str, Any]]
    """The kind's input as the model's own input."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One job kind."""

    name: str
    input_model: type[KindInput]
    hosted: HostedModel
    ask_worker: Callable[[Any], dict[str, Any]]
    """The kind's input as our own Cog predictor takes it."""
    outputs: tuple[str, ...]
    """The names of the files it ends with."""
    trims_silence: Callable[[Any], bool]
    """Whether both ends of the finished clip are trimmed, for this input."""
    other_ways: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By provider: the model inputs that differ when a failed prediction is asked for once more."""

    def has_other_way(self, provider: str) -> bool:
        """Whether a failed prediction may be asked for there with other parameters."""
        return provider in self.other_ways

    def ask(self, provider: str, wanted: Any, *, differently: bool = False) -> dict[str, Any]:
        """The input as that provider's model takes it."""
        asked = self.hosted.ask(wanted) if provider == "replicate" else self.ask_worker(wanted)
        return {**asked, **self.other_ways.get(provider, {})} if differently else asked

    def find_outputs(self, output: object) -> dict[str, str]:
        """Where each named output lies: a URL or a data URI.

        Providers answer with a string, a list of one, an object by name, or such things nested. Raises
        ProviderBadResponse when a named output is not there.
        """
        places = _collect(output)
        if len(self.outputs) == 1 and self.outputs[0] not in places and len(places) == 1:
            places = {self.outputs[0]: next(iter(places.values()))}
        missing = [name for name in self.outputs if name not in places]
        if missing:
            raise ProviderBadResponse(f"the output has no {', '.join(missing)}: {_shape(output)}")
        return {name: places[name] for name in self.outputs}


def _collect(output: object, depth: int = 0) -> dict[str, str]:
    """Every address in an output, by its key where it has one, else by its position."""
    if isinstance(output, str):
        return {"0": output} if output.startswith(("https://", "http://", "data:")) else {}
    if depth > 3:
        return {}
    pairs: list[tuple[str, object]] = []
    if isinstance(output, Mapping):
        pairs = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, list):
        pairs = [(str(index), value) for index, value in enumerate(output)]
    found: dict[str, str] = {}
    for key, value in pairs:
        for inner, place in _collect(value, depth + 1).items():
            found.setdefault(key if inner == "0" else inner, place)
    return found


def _shape(output: object) -> str:
    """The output's shape in a few words: never its content, which may be a signed URL or megabytes."""
    match output:
        case Mapping():
            return "an object with " + (", ".join(sorted(map(str, output))[:8]) or "no keys")
        case list():
            return f"a list of {len(output)}"
        case str():
            return "a string that is no address"
        case _:
            return type(output).__name__
