"""What a job kind is: its input, its models at each provider, its finishing recipe.

Owns the `Kind` type and the recipes `Sound` and `Text`: data that the finisher goes by. Leaves to each kind's
own module what a caller may ask, what a model is told and how its answer is read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.errors import ProviderBadResponse


class JsonBody(BaseModel):
    """The base of what callers send: values are taken as JSON has them, where `1.0` is a whole number."""

    @model_validator(mode="before")
    @classmethod
    def _as_json(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in given.items()
        }


class KindInput(JsonBody):
    """The base of every kind's input: unknown fields are refused, so that a typing error is not silence.

    Strict: `"5"` is no number, `1` is no truth value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, str_strip_whitespace=True)


AudioFile = Annotated[
    str,
    Field(
        pattern=r"^(upl|ast)_[0-9a-f]{32}$",
        description="The `upload_id` of an upload, or the id of an asset that a job of yours has",
    ),
]
"""An input that is a file. What is stored, and given back in the job, is the id of the asset."""

VoiceId = Annotated[
    str, Field(pattern=r"^voi_[0-9a-f]{32}$", description="The id of a voice profile of yours")
]
"""An input that is a voice. What is stored is its id: the model is sent the voice's recording."""


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A Replicate model that can do a kind, and how it wants to be asked."""

    name: str
    """`owner/name`, or `owner/name:version` where the model is not an official one."""
    ask: Callable[[Any], dict[str, Any]]
    """The kind's input as the model's own input."""


@dataclass(frozen=True, slots=True)
class Sound:
    """An output that is heard: stored as it came, but for tags, and its silent ends where it is trimmed."""

    trims_silence: Callable[[Any], bool] = lambda _: False
    """Whether both ends are cut, for this input."""
    may_be_silent: bool = False
    """Where silence is an answer: there is nobody to be heard in the vocals of an instrumental."""


@dataclass(frozen=True, slots=True)
class Text:
    """An output that is read: JSON or subtitles, stored as `check` gives it back."""

    media_type: str
    suffix: str
    """Of the stored file, with its dot."""
    check: Callable[[bytes], bytes]
    """What was fetched, as it is stored. Raises ProviderBadResponse for what it does not claim to be."""
    most_bytes: int = 8 * 1024 * 1024


Recipe = Sound | Text


_MOST_DETAILS_CHARS = 65_536

Made = Mapping[str, Mapping[str, str]]
"""What the steps of a family have made so far: by step and output name, the id of the asset."""


@dataclass(frozen=True, slots=True)
class Part:
    """One step of a family: a job of another kind."""

    name: str
    kind: str
    share: float
    """Of the whole, as the parent's progress counts it; what the parts leave is the joining's."""
    ask: Callable[[Any, Made], dict[str, Any]]
    """The parent's input and what was made as the child's input, files as ids of assets."""
    after: tuple[str, ...] = ()
    """The parts that must have ended well before this one begins."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One sound of the mix that a family ends with."""

    part: str
    output: str
    volume: float
    """0 to 2; 1 leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Family:
    """How a job's work is other jobs: their parts, and what is made of them here at the end."""

    parts: tuple[Part, ...]
    layers: Callable[[Any], tuple[Lane, ...]]
    """For an input, what lies under each other in the sound that is made here, its output `audio`."""
    places: Callable[[Any], dict[str, tuple[str, str]]]
    """For an input, the job's outputs that are outputs of a part: each as (part, output)."""
    ignored: tuple[str, ...] = ()
    """Inputs on which nothing depends that is made here, only what is given back."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One job kind."""

    name: str
    input_model: type[KindInput]
    hosted: HostedModel | None
    """None where no model at Replicate is known to do it: routing passes that provider by."""
    ask_worker: Callable[[Any], dict[str, Any]]
    """The kind's input as our own Cog predictor takes it."""
    outputs: Mapping[str, Recipe]
    """The files it ends with by name, and what is done with each before it is stored."""
    files: Mapping[str, float] = field(default_factory=dict)
    """The inputs that are files, and the longest in seconds that each may be."""
    voices: frozenset[str] = frozenset()
    """The inputs that are voice profiles: like files, they reach the model as an address."""
    read: Callable[[object], object] = lambda output: output
    """What a model answered, in our own words: `outputs` by name, each an address or a data URI. Raises
    ProviderBadResponse for what it cannot read; an answer that is in those words already passes."""
    other_ways: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By provider: the model inputs that differ when a failed prediction is asked for once more."""
    family: Family | None = None
    """Of a kind whose work is other jobs: no provider is ever asked for it."""
    figures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """What a model may have measured of its own work, by name its least and most: kept as its word."""

    def has_other_way(self, provider: str) -> bool:
        """Whether a failed prediction may be asked for there with other parameters."""
        return provider in self.other_ways

    def ask(self, provider: str, wanted: Any, *, differently: bool = False) -> dict[str, Any]:
        """The input as that provider's model takes it."""
        hosted = self.hosted if provider == "replicate" else None
        asked = hosted.ask(wanted) if hosted else self.ask_worker(wanted)
        return {**asked, **self.other_ways.get(provider, {})} if differently else asked

    def find_outputs(self, output: object) -> dict[str, str]:
        """Where each named output lies: a URL or a data URI.

        Providers answer with a string, a list of one, an object by name, or such things nested. Raises
        ProviderBadResponse when a named output is not there.
        """
        places = _collect(self.read(output))
        if len(self.outputs) == 1 and not places.keys() & self.outputs.keys() and len(places) == 1:
            places = dict(zip(self.outputs, places.values(), strict=True))
        missing = [name for name in self.outputs if name not in places]
        if missing:
            raise ProviderBadResponse(f"the output has no {', '.join(missing)}: {_shape(output)}")
        return {name: places[name] for name in self.outputs}

    def find_figures(self, output: object) -> dict[str, float | None] | None:
        """What the model says that it measured, in the `details` of its answer; None where it does not say,
        and for a kind of which nothing is measured."""
        if not self.figures:
            return None
        said = _details(output)
        return {name: _within(said.get(name), *bounds) for name, bounds in self.figures.items()}


def as_data_uri(content: bytes, media_type: str) -> str:
    """Content that a model gave within its answer, as an address like those of files."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


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


def _details(output: object) -> Mapping[str, object]:
    """The `details` of our own worker's answer: an object as text, since Cog's outputs are flat."""
    answer = output[0] if isinstance(output, list) and output else output
    told = answer.get("details") if isinstance(answer, Mapping) else None
    if isinstance(told, str) and len(told) <= _MOST_DETAILS_CHARS:
        with suppress(ValueError, RecursionError):
            told = json.loads(told)
    return told if isinstance(told, Mapping) else {}


def _within(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return None
    return float(value)


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
