"""`voice_transfer`: what one voice sings or says, with the timbre and pitch of another.

It is for a voice alone: a song is separated first. No model at Replicate is known that takes a voice's
recording as it is and keeps a tune; the kind runs on our worker, or on a Cog server that COG_URLS names.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.kinds.base import AudioFile, Kind, KindInput, Sound, VoiceId

LONGEST_S = 600.0


class VoiceTransferInput(KindInput):
    """What a caller may ask of a transfer."""

    audio: AudioFile
    voice_id: VoiceId
    pitch_shift: int = Field(0, ge=-12, le=12, description="Semitones, beside the transposition")
    strength: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How far the timbre moves: 0 not at all, 0.5 with most words still understood, 1 further",
    )
    transpose: Literal["octaves", "semitones", "none"] = Field(
        "octaves",
        description="To the voice's register: by whole octaves, which keeps a song in its key, by semitones, "
        "which suits speech, or not",
    )


def _ask(wanted: VoiceTransferInput) -> dict[str, Any]:
    return {
        "audio": wanted.audio,
        "voice_audio": wanted.voice_id,
        "pitch_shift": wanted.pitch_shift,
        "strength": wanted.strength,
        "transpose": wanted.transpose,
    }


VOICE_TRANSFER = Kind(
    name="voice_transfer",
    input_model=VoiceTransferInput,
    hosted=None,
    ask_worker=_ask,
    files={"audio": LONGEST_S},
    voices=frozenset({"voice_id"}),
    # Neither trimmed nor refused where nobody sings: it lies under what it was separated from.
    outputs={"audio": Sound(may_be_silent=True)},
    # Cosines, of what was sent and of what came out, with the voice.
    figures={"similarity_before": (-1.0, 1.0), "similarity_after": (-1.0, 1.0)},
)
