"""The job kinds, one module each: its input model, its models per provider, its finishing recipe."""

from app.errors import InvalidInput
from app.kinds.background_music import BACKGROUND_MUSIC
from app.kinds.base import Family, Kind, KindInput, Sound, Text
from app.kinds.sound_effect import SOUND_EFFECT
from app.kinds.speech import SPEECH
from app.kinds.stem_separation import STEM_SEPARATION
from app.kinds.transcription import TRANSCRIPTION
from app.kinds.translation import TRANSLATION
from app.kinds.voice_conversion import VOICE_CONVERSION
from app.kinds.voice_transfer import VOICE_TRANSFER

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        SOUND_EFFECT,
        BACKGROUND_MUSIC,
        SPEECH,
        TRANSCRIPTION,
        TRANSLATION,
        STEM_SEPARATION,
        VOICE_TRANSFER,
        VOICE_CONVERSION,
    )
}

__all__ = ["KINDS", "Family", "Kind", "KindInput", "Sound", "Text", "get_kind"]


def get_kind(name: str) -> Kind:
    """The kind of that name. Raises InvalidInput naming those there are."""
    try:
        return KINDS[name]
    except KeyError as exc:
        raise InvalidInput(f"unknown kind; this service knows {', '.join(KINDS)}", field="kind") from exc
