"""`speech`: a text, spoken."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.kinds.base import HostedModel, Kind, KindInput, Sound


class SpeechInput(KindInput):
    """What a caller may ask of speech."""

    text: str = Field(min_length=1, max_length=5000, description="What is said")
    language: str = Field(
        "en", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="BCP 47, such as `en` or `es-419`"
    )
    voice: str | None = Field(None, min_length=1, max_length=64, description="A voice of the engine's")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="1 is the voice's own pace")


_HOSTED_LANGUAGES = {
    "en": "English",
    "es": "Spanish",
    "pt": "Portuguese",
    "fr": "French",
    "de": "German",
    "it": "Italian",
    "hi": "Hindi",
    "ja": "Japanese",
    "ko": "Korean",
    "zh": "Chinese",
    "ru": "Russian",
    "ar": "Arabic",
}
"""The hosted model's names of languages; it finds the others out by itself."""


def _ask_hosted(wanted: SpeechInput) -> dict[str, Any]:
    voice = {} if wanted.voice is None else {"voice_id": wanted.voice}
    language = _HOSTED_LANGUAGES.get(wanted.language.lower().partition("-")[0])
    boost = {} if language is None else {"language_boost": language}
    return {"text": wanted.text, "speed": wanted.speed, **boost, **voice}


def _ask_worker(wanted: SpeechInput) -> dict[str, Any]:
    voice = {} if wanted.voice is None else {"voice": wanted.voice}
    return {"text": wanted.text, "language": wanted.language, "speed": wanted.speed, **voice}


SPEECH = Kind(
    name="speech",
    input_model=SpeechInput,
    hosted=HostedModel("minimax/speech-02-turbo", _ask_hosted),
    ask_worker=_ask_worker,
    outputs={"audio": Sound(trims_silence=lambda _: True)},
)
