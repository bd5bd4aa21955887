"""Forms to ask for jobs, made from the kinds' own input models: what a kind takes is said in one place.

A field becomes a control by its JSON schema. What no control stands for (a list of timed segments) is left to
the API; what only one of several may be given is checked by the service, as for anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.kinds import KINDS
from app.web.openapi.jobs import EXAMPLES

LONG_TEXT = 500
"""From so many characters on a text has a box of its own."""
FIRST = ("sound_effect", "background_music", "speech", "transcription", "stem_separation")


@dataclass(frozen=True, slots=True)
class Control:
    """One field of a form."""

    name: str
    control: str
    """`text`, `area`, `number`, `switch`, `choice`, `file` or `voice`."""
    meaning: str
    is_needed: bool
    default: Any
    example: str
    bounds: Mapping[str, Any]
    """`min`, `max`, `step`, `minlength`, `maxlength` or `pattern`, as HTML has them."""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """How to ask for a kind: what comes first, and what may be left as it is."""

    kind: str
    meaning: str
    first: tuple[Control, ...]
    more: tuple[Control, ...]


@cache
def list_forms() -> tuple[Form, ...]:
    """One a kind, the usual ones first."""
    names = [*(name for name in FIRST if name in KINDS), *(name for name in KINDS if name not in FIRST)]
    return tuple(_form(name) for name in names)


def _form(kind: str) -> Form:
    schema = KINDS[kind].input_model.model_json_schema()
    controls = list(_controls(schema, EXAMPLES.get(kind, {})))
    first = tuple(each for each in controls if each.is_needed or each.name in ("duration_s", "text"))
    return Form(kind, _first_line(kind), first, tuple(each for each in controls if each not in first))


def _first_line(kind: str) -> str:
    module = __import__(KINDS[kind].input_model.__module__, fromlist=["__doc__"])
    text = " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())
    return text.partition(": ")[2] or text


def _controls(schema: Mapping[str, Any], examples: Mapping[str, Any]) -> Iterator[Control]:
    for name, field in schema["properties"].items():
        said = _without_null(field)
        control = _control_of(said)
        if control is None:
            continue
        example = examples.get(name, "")
        yield Control(
            name=name,
            control=control,
            meaning=field.get("description", ""),
            is_needed=name in schema.get("required", ()),
            default=field.get("default"),
            example=example if isinstance(example, str) else "",
            bounds=_bounds(said),
            choices=tuple(str(each) for each in said.get("enum", ())),
        )


def _without_null(field: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of what may also be left out."""
    either = [each for each in field.get("anyOf", ()) if each.get("type") != "null"]
    return either[0] if len(either) == 1 else field


def _control_of(said: Mapping[str, Any]) -> str | None:
    if said.get("enum"):
        return "choice"
    match said.get("type"):
        case "string" if str(said.get("pattern", "")).startswith("^(upl|ast)_"):
            return "file"
        case "string" if str(said.get("pattern", "")).startswith("^voi_"):
            return "voice"
        case "string":
            return "area" if said.get("maxLength", 0) >= LONG_TEXT else "text"
        case "number" | "integer":
            return "number"
        case "boolean":
            return "switch"
        case _:
            return None


def _bounds(said: Mapping[str, Any]) -> dict[str, Any]:
    named = {"minimum": "min", "maximum": "max", "minLength": "minlength", "maxLength": "maxlength"}
    found = {html: said[schema] for schema, html in named.items() if schema in said}
    if "exclusiveMaximum" in said:
        found["max"] = said["exclusiveMaximum"] - 1
    if said.get("type") in ("number", "integer"):
        found["step"] = "1" if said["type"] == "integer" else "any"
    return found
