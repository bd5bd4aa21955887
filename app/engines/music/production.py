"""The producer: prompt in, finished music out.

Owns the order brief → score → stems → mix → master and the progress that is told on the way. Promises an
exact number of frames and bit-identical sound for the same arguments on the same versions. Leaves every
decision of taste to the rooms it calls.
"""

from __future__ import annotations

import math
from importlib.metadata import version

from app.engines.base import EngineError, Progress, Rendering, ignore_progress
from app.engines.music.brief import Brief, read_brief
from app.engines.music.genres import GENRES
from app.engines.music.score.composition import compose
from app.engines.music.score.harmony import NOTE_NAMES
from app.engines.music.score.notation import Score, stream
from app.engines.music.studio import SAMPLE_RATE, mastering, mix, stems

_DURATION_S = (1.0, 180.0)


def render(prompt: str, *, duration_s: float, seed: int, progress: Progress = ignore_progress) -> Rendering:
    """Background music for `prompt`: 44.1 kHz stereo, exactly round(duration_s × 44100) frames.

    Raises EngineError for a duration outside 1-180 s or when the synthesizer fails.
    """
    if not math.isfinite(duration_s) or not _DURATION_S[0] <= duration_s <= _DURATION_S[1]:
        raise EngineError(
            f"music can last {_DURATION_S[0]:g} to {_DURATION_S[1]:g} seconds, not {duration_s:g}"
        )
    frames = round(duration_s * SAMPLE_RATE)
    progress(0.0, "compose")
    brief = read_brief(prompt, seed)
    score = compose(brief, duration_s, seed)
    genre = GENRES[brief.genre]
    desk = mix.Desk(genre, score, frames)
    for index, part in enumerate(score.parts):
        progress(0.05 + 0.75 * index / len(score.parts), part.instrument)
        desk.add(part, stems.play(part, score, frames))
    progress(0.8, "mix")
    desk.add_crackle(stream(seed, 3))
    mixed = desk.mixdown()
    progress(0.9, "master")
    samples = mastering.master(mixed, genre.tone_hz, genre.loudness_dbfs, score.hold_beats * score.beat_s)
    progress(1.0, "done")
    return Rendering(
        samples,
        SAMPLE_RATE,
        f"reprise-music/1 (tono {version('tono-py')})",
        f"{brief.genre}/{brief.mood}",
        _details(brief, score, seed),
    )


def _details(brief: Brief, score: Score, seed: int) -> dict[str, str | int | float | bool]:
    details: dict[str, str | int | float | bool] = {
        "tempo_bpm": score.tempo_bpm,
        "key": NOTE_NAMES[brief.tonic],
        "mode": brief.mode,
        "time_signature": f"{brief.beats_per_bar}/4",
        "genre": brief.genre,
        "mood": brief.mood,
        "instruments": ", ".join(dict.fromkeys(name for _, name in brief.ensemble)),
        "sections": ", ".join(section.name for section in score.sections),
        "seed": seed,
        "matched": brief.matched,
    }
    return details | ({"note": brief.note} if brief.note else {})
