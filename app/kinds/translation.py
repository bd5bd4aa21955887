"""`translation`: a text, or timed segments, in another language.

No model at Replicate is known that translates and only that: a language model given a prompt may answer
anything. The kind runs on our worker, or on a Cog server that COG_URLS names for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.errors import ProviderBadResponse
from app.kinds.base import Kind, KindInput, Text, as_data_uri

JSON = "application/json"
MOST_CHARACTERS = 100_000
_TAG = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"


class SegmentInput(KindInput):
    """A phrase and when it is said, in seconds; as a transcript's segments, their words left out."""

    text: str = Field(max_length=10_000)
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    end: float | None = Field(None, ge=0, allow_inf_nan=False)


class TranslationInput(KindInput):
    """What a caller may ask of a translation."""

    text: str | None = Field(
        None, min_length=1, max_length=MOST_CHARACTERS, description="What is translated; or `segments`"
    )
    segments: list[SegmentInput] | None = Field(
        None,
        min_length=1,
        max_length=10_000,
        description="`[{text, start?, end?}]` instead of `text`: translated each, their times kept",
    )
    source: str = Field(pattern=_TAG, description="Its language, BCP 47, such as `en`")
    target: str = Field(pattern=_TAG, description="The language wanted, such as `es`")
    allow_poorer: bool = Field(
        False, description="Take an engine that gives no more than the gist where there is no better one"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> TranslationInput:
        if (self.text is None) == (self.segments is None):
            raise ValueError("either text or segments is needed, not both")
        if sum(len(segment.text) for segment in self.segments or ()) > MOST_CHARACTERS:
            raise ValueError(f"the segments have more than {MOST_CHARACTERS} characters")
        if self.source.lower() == self.target.lower():
            raise ValueError("source and target are the same language")
        return self


class Segment(BaseModel):
    """A translated phrase."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = Field(max_length=100_000)
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    end: float | None = Field(None, ge=0, allow_inf_nan=False)


class Translation(BaseModel):
    """The `text` output."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str | None = Field(None, max_length=64)
    target: str | None = Field(None, max_length=64)
    text: str = Field(min_length=1, max_length=10 * MOST_CHARACTERS)
    segments: list[Segment] | None = Field(None, max_length=10_000)
    engine: str | None = Field(None, max_length=256)
    poorer: bool = False
    """Whether an engine made it that gives no more than the gist."""


def read_answer(output: object) -> object:
    """A model's answer as `text`: ours, an object like it, or the text alone. Raises ProviderBadResponse."""
    found: object = output.get("text") if isinstance(output, Mapping) else output
    if isinstance(found, str) and found.startswith(("https://", "http://", "data:")):
        return {"text": found}
    if isinstance(output, Mapping) and isinstance(found, str) and "engine" in output:
        content = found.encode()
    elif isinstance(output, Mapping):
        content = json.dumps(output).encode()
    elif isinstance(output, str):
        content = json.dumps({"text": output}).encode()
    else:
        raise ProviderBadResponse("the translation is neither an object nor a text")
    return {"text": as_data_uri(check_translation(content), JSON)}


def check_translation(content: bytes) -> bytes:
    """A translation in the one spelling that is stored. Raises ProviderBadResponse."""
    try:
        return Translation.model_validate_json(content).model_dump_json(exclude_none=True).encode()
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "it"
        raise ProviderBadResponse(f"the translation cannot be read: {place}: {first['msg']}"[:500]) from exc


def _ask_worker(wanted: TranslationInput) -> dict[str, Any]:
    return wanted.model_dump(mode="json", exclude_none=True)


TRANSLATION = Kind(
    name="translation",
    input_model=TranslationInput,
    hosted=None,
    ask_worker=_ask_worker,
    read=read_answer,
    outputs={"text": Text(JSON, ".json", check_translation)},
)
