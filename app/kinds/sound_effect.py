"""`sound_effect`: a short sound from a few words."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.kinds.base import HostedModel, Kind, KindInput, Sound


class SoundEffectInput(KindInput):
    """What a caller may ask of a sound effect."""

    prompt: str = Field(min_length=1, max_length=2000, description="What should be heard")
    duration_s: float = Field(5.0, ge=0.5, le=30, description="Length in seconds")
    seed: int | None = Field(None, ge=0, lt=2**31, description="The same seed gives the same sound")
    loop: bool = Field(False, description="End and start join without a seam")
    trim_silence: bool = Field(True, description="Cut silence off both ends")


def _ask_hosted(wanted: SoundEffectInput) -> dict[str, Any]:
    seed = {} if wanted.seed is None else {"seed": wanted.seed}
    return {"prompt": wanted.prompt, "duration": max(1, round(wanted.duration_s)), **seed}


def _ask_worker(wanted: SoundEffectInput) -> dict[str, Any]:
    seed = {} if wanted.seed is None else {"seed": wanted.seed}
    return {"prompt": wanted.prompt, "duration_s": wanted.duration_s, "loop": wanted.loop, **seed}


SOUND_EFFECT = Kind(
    name="sound_effect",
    input_model=SoundEffectInput,
    hosted=HostedModel("stability-ai/stable-audio-2.5", _ask_hosted),
    ask_worker=_ask_worker,
    # A loop's seam lies in its silence too: trimming it would open a click.
    outputs={"audio": Sound(trims_silence=lambda wanted: wanted.trim_silence and not wanted.loop)},
    # Fewer steps are a smaller job: what ran out of memory or time may pass.
    other_ways={"replicate": {"steps": 4}},
)
