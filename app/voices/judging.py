"""PURE: whether a recording is good enough to be a voice. The limits, and the words for missing them.

Everything that is wrong is said at once, each with what was measured and what is needed: who records again
should have to do it once.
"""

from __future__ import annotations

from app.engines.voice.examining import Examined
from app.errors import InvalidInput

LEAST_S, MOST_S = 15.0, 60.0
LEAST_SNR_DB = 10.0
MOST_SILENCE = 0.6
MOST_CLIPPED = 0.001
LEAST_VOICED_S = 5.0
LEAST_CONSISTENCY = 0.75
"""Between what parts of one voice have here (0.87 and more) and parts of two (0.77 and less)."""


class VoiceUnfit(InvalidInput):
    """The recording is not good enough for a voice: the detail names each figure and what it should be."""

    code = "voice_unfit"


def check_length(duration_s: float, *, field: str) -> None:
    """What can be said without listening. Raises VoiceUnfit."""
    if found := _length(duration_s):
        raise _unfit(found, field)


def judge(examined: Examined, *, field: str) -> None:
    """Raises VoiceUnfit."""
    reasons = [
        *_length(examined.duration_s),
        *_noise(examined.snr_db),
        *_silence(examined.silence_share),
        *_clipping(examined.clipped_share),
        *_voice(examined.voiced_s),
        *_consistency(examined.consistency),
    ]
    if reasons or examined.embedding is None:
        raise _unfit(reasons or ["nobody is heard in it"], field)


def _length(duration_s: float) -> list[str]:
    # An encoder's padding is no reason.
    if LEAST_S - 0.05 <= duration_s <= MOST_S + 0.5:
        return []
    return [f"it lasts {duration_s:.1f} s, {LEAST_S:g} to {MOST_S:g} s are needed"]


def _noise(snr_db: float | None) -> list[str]:
    if snr_db is not None and snr_db >= LEAST_SNR_DB:
        return []
    measured = "nothing in it is louder than its noise" if snr_db is None else f"its SNR is {snr_db:.1f} dB"
    return [f"{measured}, at least {LEAST_SNR_DB:g} dB are needed"]


def _silence(share: float) -> list[str]:
    if share <= MOST_SILENCE:
        return []
    return [f"{share:.0%} of it is silence, at most {MOST_SILENCE:.0%} may be"]


def _clipping(share: float) -> list[str]:
    if share <= MOST_CLIPPED:
        return []
    return [f"{share:.2%} of its samples are clipped, at most {MOST_CLIPPED:.2%} may be: record it less loud"]


def _voice(voiced_s: float) -> list[str]:
    if voiced_s >= LEAST_VOICED_S:
        return []
    return [f"a voice is heard for {voiced_s:.1f} s, at least {LEAST_VOICED_S:g} s are needed"]


def _consistency(consistency: float | None) -> list[str]:
    if consistency is None:
        return ["it has too little sound in it to compare its parts"]
    if consistency >= LEAST_CONSISTENCY:
        return []
    return [
        f"its parts are alike by {consistency:.2f}, at least {LEAST_CONSISTENCY:g} is needed: "
        "there is more than one voice in it, or music"
    ]


def _unfit(reasons: list[str], field: str) -> VoiceUnfit:
    return VoiceUnfit(f"the recording cannot be a voice: {'; '.join(reasons)}", field=field)
