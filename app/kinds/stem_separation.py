"""`stem_separation`: a song's voice, and all that is not voice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.kinds.base import AudioFile, HostedModel, Kind, KindInput, Sound

LONGEST_S = 600.0
_INSTRUMENTAL = ("instrumental", "accompaniment", "no_vocals")
"""What models call it: ours, Spleeter, Demucs with two stems."""


class StemSeparationInput(KindInput):
    """What a caller may ask of a separation."""

    audio: AudioFile


def read_answer(output: object) -> object:
    """A model's answer with its stems under our names."""
    if not isinstance(output, Mapping):
        return output
    instrumental = next((output[name] for name in _INSTRUMENTAL if output.get(name)), None)
    return {"vocals": output.get("vocals"), "instrumental": instrumental}


def _ask(wanted: StemSeparationInput) -> dict[str, Any]:
    return {"audio": wanted.audio}


STEM_SEPARATION = Kind(
    name="stem_separation",
    input_model=StemSeparationInput,
    hosted=HostedModel(
        "soykertje/spleeter:cd128044253523c86abfd743dea680c88559ad975ccd72378c8433f067ab5d0a", _ask
    ),
    ask_worker=_ask,
    files={"audio": LONGEST_S},
    read=read_answer,
    # Neither is trimmed nor made louder: they lie under each other, and add up to the mix.
    outputs={"vocals": Sound(may_be_silent=True), "instrumental": Sound(may_be_silent=True)},
)
