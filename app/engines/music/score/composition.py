"""Composing: a brief and a duration become a score.

Owns the order of work (form, harmony, then one part after the other), who plays in which section and the
ending. Promises that bars and closing tonic fill the duration exactly and that every random choice comes
from the seed. Leaves each part's notes to its own room and the human touch to `performance`.
"""

from __future__ import annotations

from dataclasses import replace

from app.engines.music.brief import Brief
from app.engines.music.genres import GENRES, Genre
from app.engines.music.moods import MOODS, Mood
from app.engines.music.performance import humanise
from app.engines.music.score import accompaniment, bass, drums, form, harmony, melody
from app.engines.music.score.notation import ROLES, Bar, Note, Part, Role, Score, stream

_ENTERS_AT: dict[Role, float] = {
    "pad": 0.0,
    "comp": 0.0,
    "bass": 0.45,
    "drums": 0.5,
    "melody": 0.55,
    "counter": 0.8,
}
"""Energy of a section from which a role plays."""
_MELODY_REGISTER = (64, 83)
_COUNTER_REGISTER = (57, 74)


def compose(brief: Brief, duration_s: float, seed: int) -> Score:
    """The whole piece. Notes start at or after beat 0 and within `total_beats`."""
    genre, mood = GENRES[brief.genre], MOODS[brief.mood]
    tempo_bpm, count = form.fit_tempo(brief.tempo_bpm, brief.tempo_fixed, brief.beats_per_bar, duration_s)
    sections = form.plan_sections(count)
    bank = harmony.progressions(brief.mode, mood.colour, jazz=genre.name == "jazz")
    slow = genre.bars_per_chord if count >= 8 else 1
    bars = form.harmonise(
        sections,
        (brief.tonic, brief.mode),
        bank,
        (genre.sevenths, slow, brief.beats_per_bar),
        stream(seed, 2),
    )
    total_beats = duration_s * tempo_bpm / 60.0
    hold = total_beats - count * brief.beats_per_bar
    page = Score(
        tempo_bpm, brief.beats_per_bar, brief.tonic, brief.mode, sections, bars, (), total_beats, hold
    )
    parts = (Part(role, instrument, _play(role, brief, page, seed)) for role, instrument in brief.ensemble)
    return replace(page, parts=tuple(parts))


def _play(role: Role, brief: Brief, score: Score, seed: int) -> tuple[Note, ...]:
    genre, mood = GENRES[brief.genre], MOODS[brief.mood]
    roles: list[Role] = [seat for seat, _ in brief.ensemble]
    playing = tuple(bar for bar in score.bars if _enters(role, bar, mood, roles))
    notes = _write(role, brief, playing, seed)
    notes += _ending(role, brief, score, notes)
    kept = [note for note in notes if note.start < score.total_beats]
    return humanise(kept, role, genre, score, stream(seed, 30 + ROLES.index(role)))


def _enters(role: Role, bar: Bar, mood: Mood, roles: list[Role]) -> bool:
    # Driving moods do not wait for the drums; a lone player plays throughout.
    energy = bar.section.energy
    eager = 0.2 * mood.energy if role in ("drums", "bass") else 0.0
    if energy >= _ENTERS_AT[role] - eager:
        return True
    return not any(energy >= _ENTERS_AT[other] for other in roles)


def _write(role: Role, brief: Brief, bars: tuple[Bar, ...], seed: int) -> list[Note]:
    genre, mood = GENRES[brief.genre], MOODS[brief.mood]
    tonic, mode = brief.tonic, brief.mode
    rng = stream(seed, 10 + ROLES.index(role))
    match role:
        case "drums":
            return drums.write_drums(bars, _choice(genre.groove, seed, 21), mood.energy, rng)
        case "bass":
            return bass.write_bass(bars, _choice(genre.bass, seed, 22), tonic, mode, rng)
        case "pad":
            return accompaniment.write_pad(bars, 0)
        case "comp":
            return accompaniment.write_comp(bars, _comp_figure(brief, genre, seed), 0, rng)
        case "counter":
            return melody.write_counter(bars, tonic, mode, _COUNTER_REGISTER, rng)
        case "melody":
            low, high = _MELODY_REGISTER
            # A whole octave down would bury the tune in the chords: half of it is enough.
            shift = 12 if mood.octave > 0 else 5 * mood.octave
            return melody.write_melody(
                bars, _density(genre, mood), tonic, mode, (low + shift, high + shift), seed
            )


def _ending(role: Role, brief: Brief, score: Score, before: list[Note]) -> list[Note]:
    """The closing tonic: everybody on the home chord, held until the fade has taken it away."""
    genre, mood = GENRES[brief.genre], MOODS[brief.mood]
    start, hold = score.total_beats - score.hold_beats, score.hold_beats
    home = harmony.chord("1", brief.tonic, brief.mode, sevenths=False)
    root = bass.root_pitch(home.root)
    match role:
        case "drums":
            loud = mood.energy > 0.5 and genre.density != "sparse"
            return drums.last_hit(start, hold, loud, alone=len(brief.ensemble) == 1)
        case "bass":
            return [Note(start, hold, root, 0.75)]
        case "pad":
            shape = harmony.voice_leading([home], *accompaniment.PAD_REGISTER, 4)[0]
            return [Note(start, hold, pitch, 0.6) for pitch in shape]
        case "comp":
            return accompaniment.closing_chord(home.tones, start, hold, 0, 0.06 if mood.energy > 0.6 else 0.2)
        case "counter":
            return [Note(start, hold, 60 + (home.tones[2] - 60) % 12, 0.5)]
        case "melody":
            return [melody.closing_tone(tuple(before), brief.tonic, start, hold)]


def _comp_figure(brief: Brief, genre: Genre, seed: int) -> str:
    return "oom-pah" if brief.beats_per_bar == 3 and genre.name != "piano" else _choice(genre.comp, seed, 23)


def _density(genre: Genre, mood: Mood) -> str:
    if genre.density == "medium" and mood.energy < 0.3:
        return "sparse"
    return "busy" if genre.density == "medium" and mood.energy > 0.8 else genre.density


def _choice(options: tuple[str, ...], seed: int, purpose: int) -> str:
    return options[int(stream(seed, purpose).integers(len(options)))]
