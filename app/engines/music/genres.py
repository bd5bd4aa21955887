"""Genres: the taste of the house, as a table.

Owns what makes a style: tempo, modes, ensemble, figures, swing, room and tone.
Promises names that exist in the composing rooms and in `instruments`. Leaves reading prompts to `brief`.

Tempo ranges follow the usual ones of DJ and production handbooks; ensembles and figures are the
conventional ones of each style.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.engines.music.score.notation import ROLES, Role

Ensemble = tuple[tuple[Role, str], ...]


@dataclass(frozen=True, slots=True)
class Genre:
    """A style. Where a field holds several options, the seed chooses."""

    name: str
    mood: str
    """Assumed when the prompt names none."""
    tempo_bpm: tuple[int, int]
    modes: tuple[str, str]
    """For bright and for dark moods."""
    ensembles: tuple[Ensemble, ...]
    comp: tuple[str, ...]
    bass: tuple[str, ...]
    groove: tuple[str, ...]
    density: str
    """Of the tune: sparse, medium or busy."""
    swing: float = 0.0
    """Delay of the off-beat eighths as a share of an eighth; 0.33 is triplet swing."""
    looseness: float = 0.5
    """How human the timing and velocity are, 0-1."""
    sevenths: bool = False
    bars_per_chord: int = 1
    hall_s: float = 1.4
    hall: float = 0.5
    tone_hz: float = 0.0
    """Low-pass over everything; 0 leaves it open."""
    loudness_dbfs: float = -17.0
    ducking: float = 0.0
    """How far the kick pushes the sustained parts down, 0-1."""
    crackle: float = 0.0
    """Vinyl noise, 0-1."""
    trims_db: tuple[tuple[Role, float], ...] = ()


def _seats(**instruments: str) -> Ensemble:
    return tuple((role, instruments[role]) for role in ROLES if role in instruments)


# One paragraph a genre; the formatter would spread the table over six hundred lines.
# fmt: off
GENRES: dict[str, Genre] = {
    genre.name: genre
    for genre in (
        Genre(
            "ambient", "calm", (60, 84), ("lydian", "dorian"),
            (
                _seats(bass="sub bass", pad="warm pad", comp="felt piano", melody="soft lead"),
                _seats(bass="sub bass", pad="choir", comp="harp", counter="tubular bells"),
            ),
            ("slow arpeggio",), ("held", "pedal"), ("pulse",), "sparse", sevenths=True, bars_per_chord=2,
            hall_s=4.5, hall=1.0, tone_hz=9000.0, loudness_dbfs=-19.5,
            trims_db=(("pad", 5.0), ("melody", -3.0)),
        ),
        Genre(
            "lofi", "calm", (70, 88), ("major", "dorian"),
            (
                _seats(
                    drums="dusty drums", bass="upright bass", comp="electric piano", pad="warm pad",
                    melody="vibraphone",
                ),
                _seats(drums="dusty drums", bass="sub bass", comp="felt piano", melody="nylon guitar"),
            ),
            ("lazy",), ("syncopated",), ("boom bap",), "sparse", swing=0.26, looseness=0.9, sevenths=True,
            hall_s=1.1, hall=0.35, tone_hz=6000.0, loudness_dbfs=-18.0, ducking=0.25, crackle=0.5,
            trims_db=(("drums", 2.0), ("bass", -1.0), ("comp", 2.0), ("pad", -4.0)),
        ),
        Genre(
            "cinematic", "hopeful", (72, 104), ("major", "minor"),
            (
                _seats(
                    drums="orchestral percussion", bass="contrabasses", pad="strings", comp="felt piano",
                    counter="cello", melody="violin",
                ),
                _seats(
                    drums="orchestral percussion", bass="contrabasses", pad="strings",
                    comp="staccato strings", counter="brass", melody="flute",
                ),
            ),
            ("arpeggio", "ostinato"), ("held",), ("pulse",), "sparse", hall_s=3.0, hall=0.8,
            loudness_dbfs=-18.5, trims_db=(("drums", -3.0), ("pad", 2.0)),
        ),
        Genre(
            "epic", "epic", (84, 140), ("major", "minor"),
            (
                _seats(
                    drums="orchestral percussion", bass="contrabasses", comp="staccato strings",
                    pad="brass", counter="choir", melody="string ensemble",
                ),
                _seats(
                    drums="orchestral percussion", bass="contrabasses", comp="staccato strings",
                    pad="choir", melody="brass",
                ),
            ),
            ("ostinato",), ("held", "eighths"), ("epic toms",), "medium", hall_s=2.6, hall=0.7,
            loudness_dbfs=-15.5,
            trims_db=(("drums", 1.0), ("bass", -2.0), ("comp", 5.0), ("pad", 3.0), ("melody", 3.0)),
        ),
        Genre(
            "corporate", "hopeful", (100, 128), ("major", "minor"),
            (
                _seats(
                    drums="acoustic drums", bass="electric bass", comp="steel guitar", pad="strings",
                    counter="glockenspiel", melody="bright piano",
                ),
                _seats(
                    drums="electronic drums", bass="electric bass", comp="bright piano", pad="synth pad",
                    counter="synth pluck", melody="marimba",
                ),
            ),
            ("stabs", "offbeat", "arpeggio"), ("eighths", "root-fifth"), ("pop",), "medium", looseness=0.4,
            hall_s=1.2, hall=0.4, loudness_dbfs=-16.0,
        ),
        Genre(
            "electronic", "energetic", (120, 132), ("major", "minor"),
            (
                _seats(
                    drums="electronic drums", bass="synth bass", comp="synth chords", pad="synth pad",
                    counter="synth pluck", melody="synth lead",
                ),
                _seats(
                    drums="electronic drums", bass="synth bass", comp="synth pluck", pad="synth pad",
                    melody="synth lead",
                ),
            ),
            ("offbeat", "stabs"), ("sixteenths",), ("four on the floor",), "busy", looseness=0.1,
            hall_s=1.3, hall=0.4, loudness_dbfs=-14.5, ducking=0.65, trims_db=(("drums", 3.0),),
        ),
        Genre(
            "synthwave", "nostalgic", (84, 112), ("major", "minor"),
            (
                _seats(
                    drums="electronic drums", bass="synth bass", comp="synth pluck", pad="synth pad",
                    melody="synth lead",
                ),
                _seats(
                    drums="classic drums", bass="synth bass", comp="synth pluck", pad="synth chords",
                    melody="synth lead",
                ),
            ),
            ("fast arpeggio",), ("octaves", "eighths"), ("synthwave",), "medium", looseness=0.1,
            hall_s=2.6, hall=0.75, tone_hz=9500.0, loudness_dbfs=-15.0, ducking=0.35,
            trims_db=(("bass", 2.0), ("drums", 2.0)),
        ),
        Genre(
            "jazz", "romantic", (88, 152), ("major", "dorian"),
            (
                _seats(drums="acoustic drums", bass="upright bass", comp="grand piano", melody="saxophone"),
                _seats(
                    drums="acoustic drums", bass="upright bass", comp="electric piano",
                    melody="vibraphone",
                ),
                _seats(drums="acoustic drums", bass="upright bass", comp="upright piano", melody="trumpet"),
            ),
            ("charleston",), ("walking",), ("swing",), "busy", swing=0.33, looseness=0.8, sevenths=True,
            hall_s=1.0, hall=0.35, loudness_dbfs=-17.5, trims_db=(("drums", -3.0), ("bass", 1.0)),
        ),
        Genre(
            "acoustic", "hopeful", (84, 116), ("major", "dorian"),
            (
                _seats(drums="acoustic drums", bass="upright bass", comp="steel guitar", melody="flute"),
                _seats(bass="upright bass", comp="nylon guitar", counter="cello", melody="violin"),
                _seats(drums="acoustic drums", bass="upright bass", comp="ukulele", melody="whistle"),
            ),
            ("strum", "picking"), ("root-fifth",), ("brushes",), "medium", looseness=0.8, hall_s=0.9,
            hall=0.35, loudness_dbfs=-17.5, trims_db=(("drums", -4.0), ("comp", 3.0)),
        ),
        Genre(
            "piano", "romantic", (60, 92), ("major", "minor"),
            (
                _seats(bass="grand piano", comp="grand piano", melody="grand piano"),
                _seats(bass="felt piano", comp="felt piano", melody="felt piano"),
            ),
            ("broken", "arpeggio"), ("held",), ("pulse",), "medium", looseness=1.0, hall_s=2.0, hall=0.6,
            loudness_dbfs=-19.0, trims_db=(("bass", -1.0), ("comp", -1.0)),
        ),
        Genre(
            "rock", "energetic", (108, 152), ("mixolydian", "minor"),
            (
                _seats(
                    drums="acoustic drums", bass="picked bass", comp="electric guitar", melody="lead guitar",
                ),
                _seats(
                    drums="acoustic drums", bass="picked bass", comp="electric guitar", pad="organ",
                    melody="lead guitar",
                ),
            ),
            ("power",), ("eighths",), ("rock",), "medium", looseness=0.5, hall_s=0.8, hall=0.3,
            loudness_dbfs=-14.5, trims_db=(("drums", 3.0), ("bass", -2.0), ("comp", 5.0), ("pad", -3.0)),
        ),
        Genre(
            "hiphop", "confident", (78, 98), ("dorian", "minor"),
            (
                _seats(drums="808 drums", bass="sub bass", comp="electric piano", counter="strings"),
                _seats(drums="classic drums", bass="sub bass", comp="felt piano", melody="flute"),
            ),
            ("lazy", "stabs"), ("syncopated",), ("boom bap", "half-time trap"), "sparse", swing=0.14,
            looseness=0.5, sevenths=True, hall_s=0.8, hall=0.25, loudness_dbfs=-15.0, ducking=0.2,
            trims_db=(("drums", 2.0), ("bass", -4.0), ("comp", 5.0)),
        ),
        Genre(
            "classical", "romantic", (76, 132), ("major", "harmonic minor"),
            (
                _seats(bass="cello", comp="staccato strings", counter="flute", melody="violin"),
                _seats(bass="contrabasses", comp="harp", pad="strings", melody="flute"),
            ),
            ("alberti", "arpeggio"), ("root-fifth",), ("pulse",), "busy", looseness=0.8, hall_s=2.2,
            hall=0.6, loudness_dbfs=-18.5,
        ),
        Genre(
            "chiptune", "playful", (120, 160), ("major", "minor"),
            (
                _seats(
                    drums="electronic drums", bass="triangle bass", comp="pulse arpeggio",
                    melody="pulse lead",
                ),
            ),
            ("chip arpeggio",), ("octaves", "eighths"), ("chip",), "busy", looseness=0.0, hall_s=0.5,
            hall=0.08, loudness_dbfs=-15.5, trims_db=(("drums", -1.0),),
        ),
        Genre(
            "latin", "happy", (92, 124), ("major", "harmonic minor"),
            (
                _seats(
                    drums="acoustic drums", bass="upright bass", comp="upright piano", counter="brass",
                    melody="trumpet",
                ),
                _seats(drums="acoustic drums", bass="upright bass", comp="nylon guitar", melody="flute"),
            ),
            ("montuno",), ("tumbao",), ("latin",), "busy", looseness=0.6, hall_s=0.9, hall=0.35,
            loudness_dbfs=-16.0,
        ),
        Genre(
            "horror", "tense", (54, 84), ("phrygian", "phrygian"),
            (
                _seats(
                    drums="orchestral percussion", bass="contrabasses", pad="dark drone",
                    counter="tubular bells", melody="music box",
                ),
                _seats(
                    drums="orchestral percussion", bass="sub bass", pad="dark drone", counter="choir",
                    melody="violin",
                ),
            ),
            ("slow arpeggio",), ("pedal",), ("pulse",), "sparse", bars_per_chord=2, hall_s=5.0, hall=1.0,
            tone_hz=5000.0, loudness_dbfs=-18.5,
            trims_db=(("pad", 4.0), ("drums", -2.0), ("counter", 4.0), ("melody", 2.0)),
        ),
        Genre(
            "lullaby", "calm", (66, 92), ("major", "minor"),
            (
                _seats(comp="harp", pad="warm pad", melody="music box"),
                _seats(comp="felt piano", pad="warm pad", melody="glockenspiel"),
            ),
            ("lullaby", "oom-pah"), ("held",), ("brushes",), "medium", looseness=0.7, hall_s=2.0, hall=0.6,
            tone_hz=8000.0, loudness_dbfs=-19.5, trims_db=(("pad", -3.0),),
        ),
    )
}
# fmt: on
NEUTRAL_GENRE = "acoustic"
"""For prompts that name nothing we know."""
