"""What the predictor may be asked, by kind: names, types, bounds and defaults.

Cog has no schema of ours and checks nothing, so all of it is checked here, before an engine is imported.
"""

from __future__ import annotations

import secrets
from typing import Any

from app.engines.base import EngineError

KINDS = {
    "sound_effect": ("prompt", "duration_s", "seed", "loop"),
    "background_music": ("prompt", "duration_s", "seed"),
    "speech": ("text", "language", "voice", "speed", "seed"),
    "transcription": ("audio", "language"),
    "translation": ("text", "segments", "source", "target", "allow_poorer"),
    "stem_separation": ("audio",),
    "voice_transfer": ("audio", "voice_audio", "pitch_shift", "strength", "transpose"),
}
"""The inputs of each kind; any other input given to it is refused, so that a slip is seen at once."""

FILES = ("audio", "voice_audio")
"""The inputs that are addresses of files; a kind that has one needs it."""

MAX_SEED = 2**31 - 1
MAX_PROMPT_CHARACTERS = 2_000
MAX_TEXT_CHARACTERS = 100_000
MAX_ADDRESS_CHARACTERS = 2_000
MAX_DURATION_S = 600.0
MAX_PITCH_SHIFT = 12
TRANSPOSITIONS = ("octaves", "semitones", "none")


def check_inputs(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The inputs of `kind` with defaults filled in and a seed. Raises EngineError naming the input at fault.

    None stands for an input that was not given.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise EngineError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in KINDS[kind]:
            raise EngineError(f"{name}: is not an input of {kind}, which takes {', '.join(KINDS[kind])}")
    checked = _CHECKS[kind](given)
    if "seed" in KINDS[kind]:
        checked["seed"] = _whole(given, "seed", secrets.randbelow(MAX_SEED + 1), MAX_SEED)
    return checked


def _check_sound_effect(given: dict[str, Any]) -> dict[str, Any]:
    loop = given.get("loop", False)
    if not isinstance(loop, bool):
        raise EngineError(f"loop: {loop!r} is neither true nor false")
    duration_s = _number(given, "duration_s", 5.0, (0.1, MAX_DURATION_S))
    return {"prompt": _words(given, "prompt", MAX_PROMPT_CHARACTERS), "duration_s": duration_s, "loop": loop}


def _check_background_music(given: dict[str, Any]) -> dict[str, Any]:
    duration_s = _number(given, "duration_s", 30.0, (1.0, MAX_DURATION_S))
    return {"prompt": _words(given, "prompt", MAX_PROMPT_CHARACTERS), "duration_s": duration_s}


def _check_speech(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "text": _words(given, "text", None),  # the engine knows its own limit
        "language": _words({"language": "en", **given}, "language", 50),
        "voice": _words(given, "voice", 100) if "voice" in given else None,
        "speed": _number(given, "speed", 1.0, (0.5, 2.0)),
    }


def _check_transcription(given: dict[str, Any]) -> dict[str, Any]:
    language = _words(given, "language", 3) if "language" in given else None
    return {"audio": _words(given, "audio", MAX_ADDRESS_CHARACTERS), "language": language}


def _check_translation(given: dict[str, Any]) -> dict[str, Any]:
    segments, poorer = given.get("segments"), given.get("allow_poorer", False)
    if ("text" in given) == (segments is not None):
        raise EngineError("text: either a text or segments is needed, not both")
    if segments is not None and not (isinstance(segments, list) and all(map(_has_text, segments))):
        raise EngineError("segments: a list of objects with a text each is needed")
    if not isinstance(poorer, bool):
        raise EngineError(f"allow_poorer: {poorer!r} is neither true nor false")
    return {
        "text": _words(given, "text", MAX_TEXT_CHARACTERS) if segments is None else None,
        "segments": segments,
        "source": _words(given, "source", 50),
        "target": _words(given, "target", 50),
        "allow_poorer": poorer,
    }


def _has_text(segment: object) -> bool:
    return isinstance(segment, dict) and isinstance(segment.get("text"), str)


def _check_stem_separation(given: dict[str, Any]) -> dict[str, Any]:
    return {"audio": _words(given, "audio", MAX_ADDRESS_CHARACTERS)}


def _check_voice_transfer(given: dict[str, Any]) -> dict[str, Any]:
    transpose, shift = given.get("transpose", TRANSPOSITIONS[0]), given.get("pitch_shift", 0)
    if transpose not in TRANSPOSITIONS:
        raise EngineError(f"transpose: {transpose!r} is not one of {', '.join(TRANSPOSITIONS)}")
    if isinstance(shift, bool) or not isinstance(shift, int) or abs(shift) > MAX_PITCH_SHIFT:
        raise EngineError(f"pitch_shift: {shift!r} is not a whole number of at most {MAX_PITCH_SHIFT}")
    return {
        "audio": _words(given, "audio", MAX_ADDRESS_CHARACTERS),
        "voice_audio": _words(given, "voice_audio", MAX_ADDRESS_CHARACTERS),
        "pitch_shift": shift,
        "strength": _number(given, "strength", 0.5, (0.0, 1.0)),
        "transpose": transpose,
    }


_CHECKS = {
    "sound_effect": _check_sound_effect,
    "background_music": _check_background_music,
    "speech": _check_speech,
    "transcription": _check_transcription,
    "translation": _check_translation,
    "stem_separation": _check_stem_separation,
    "voice_transfer": _check_voice_transfer,
}


def _words(given: dict[str, Any], name: str, longest: int | None) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise EngineError(f"{name}: a text that is not empty is needed")
    if longest is not None and len(value) > longest:
        raise EngineError(f"{name}: {len(value)} characters are too many, at most {longest} are taken")
    return value


def _number(given: dict[str, Any], name: str, default: float, span: tuple[float, float]) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EngineError(f"{name}: {value!r} is not a number")
    if not span[0] <= value <= span[1]:  # also false for NaN
        raise EngineError(f"{name}: {value} is not between {span[0]:g} and {span[1]:g}")
    return float(value)


def _whole(given: dict[str, Any], name: str, default: int, largest: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise EngineError(f"{name}: {value!r} is not a whole number between 0 and {largest}")
    return value
