"""`voice_conversion`: a song, sung in another voice. Its work is other jobs: separate, transfer, then mix."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.kinds.base import AudioFile, Family, Kind, KindInput, Lane, Made, Part, Sound, VoiceId
from app.kinds.stem_separation import LONGEST_S

SEPARATION, TRANSFER = "separation", "transfer"


class VoiceConversionInput(KindInput):
    """What a caller may ask of a conversion."""

    audio: AudioFile
    voice_id: VoiceId
    pitch_shift: int = Field(0, ge=-12, le=12, description="In semitones")
    strength: float = Field(0.5, ge=0, le=1, description="How far the timbre moves; see voice_transfer")
    vocal_volume: float = Field(1.0, ge=0, le=2, description="1 is as loud as in the song")
    instrumental_volume: float = Field(0.9, ge=0, le=2, description="1 is as loud as in the song")
    return_stems: bool = Field(False, description="Also give the new vocals and the instrumental")


def _ask_separation(wanted: VoiceConversionInput, _made: Made) -> dict[str, Any]:
    return {"audio": wanted.audio}


def _ask_transfer(wanted: VoiceConversionInput, made: Made) -> dict[str, Any]:
    return {
        "audio": made[SEPARATION]["vocals"],
        "voice_id": wanted.voice_id,
        "pitch_shift": wanted.pitch_shift,
        "strength": wanted.strength,
    }


def _layers(wanted: VoiceConversionInput) -> tuple[Lane, ...]:
    return (
        Lane(TRANSFER, "audio", wanted.vocal_volume),
        Lane(SEPARATION, "instrumental", wanted.instrumental_volume),
    )


def _places(wanted: VoiceConversionInput) -> dict[str, tuple[str, str]]:
    if not wanted.return_stems:
        return {}
    return {"vocals": (TRANSFER, "audio"), "instrumental": (SEPARATION, "instrumental")}


VOICE_CONVERSION = Kind(
    name="voice_conversion",
    input_model=VoiceConversionInput,
    hosted=None,
    ask_worker=lambda wanted: wanted.model_dump(),
    files={"audio": LONGEST_S},
    voices=frozenset({"voice_id"}),
    outputs={
        "audio": Sound(may_be_silent=True),
        "vocals": Sound(may_be_silent=True),
        "instrumental": Sound(may_be_silent=True),
    },
    family=Family(
        parts=(
            Part(SEPARATION, "stem_separation", 0.25, _ask_separation),
            Part(TRANSFER, "voice_transfer", 0.55, _ask_transfer, after=(SEPARATION,)),
        ),
        layers=_layers,
        places=_places,
        ignored=("return_stems",),
    ),
)
