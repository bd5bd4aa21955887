"""`background_music`: an instrumental bed of an exact length."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.kinds.base import HostedModel, Kind, KindInput, Sound


class BackgroundMusicInput(KindInput):
    """What a caller may ask of background music."""

    prompt: str = Field(min_length=1, max_length=2000, description="Mood, genre, tempo, key, instruments")
    duration_s: float = Field(30.0, ge=1, le=180, description="Length in seconds")
    seed: int | None = Field(None, ge=0, lt=2**31, description="The same seed gives the same piece")


def _ask_hosted(wanted: BackgroundMusicInput) -> dict[str, Any]:
    seed = {} if wanted.seed is None else {"seed": wanted.seed}
    return {"prompt": wanted.prompt, "duration": max(1, round(wanted.duration_s)), **seed}


def _ask_worker(wanted: BackgroundMusicInput) -> dict[str, Any]:
    seed = {} if wanted.seed is None else {"seed": wanted.seed}
    return {"prompt": wanted.prompt, "duration_s": wanted.duration_s, **seed}


BACKGROUND_MUSIC = Kind(
    name="background_music",
    input_model=BackgroundMusicInput,
    hosted=HostedModel("stability-ai/stable-audio-2.5", _ask_hosted),
    ask_worker=_ask_worker,
    # The length is exact, and a composed rest at the end belongs to the piece.
    outputs={"audio": Sound()},
    # Fewer steps are a smaller job: what ran out of memory or time may pass.
    other_ways={"replicate": {"steps": 4}},
)
