"""The instruments of the orchestra and what each is good for.

Owns the catalogue: which tono voice or which waveform with which envelope an instrument is, the roles it can
take and its place in the room. Promises names that `vocabulary` and `genres` may use. Leaves playing to
`stems` and balance to `mix`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.engines.music.score.notation import Role

Effect = dict[str, str | float]
Envelope = tuple[float, float, float, float]
"""Attack, decay (s), sustain level, release (s)."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """How to sound and where to use one instrument."""

    name: str
    family: str
    """What a caller calls it by; `no guitar` silences the whole family."""
    roles: tuple[Role, ...]
    """In order of preference."""
    voice: tuple[str, str] | None = None
    """Constructor and variant in `tono.instruments`; None for the bare waveforms below."""
    wave: str = ""
    envelope: Envelope = (0.005, 0.1, 0.8, 0.2)
    duty: float | None = None
    octave: int = 0
    detune_cents: tuple[float, ...] = (0.0,)
    """One oscillator per entry; more than one is a unison."""
    wide: bool = False
    """Two takes, detuned against each other and panned apart."""
    effects: tuple[Effect, ...] = field(default=())
    hall: float = 0.5
    """Share sent to the hall, 0-1."""


def _chorus(rate: float, mix: float) -> Effect:
    return {"type": "chorus", "rate": rate, "depth": 0.3, "mix": mix}


def _lowpass(cutoff_hz: float, q: float = 0.7) -> Effect:
    return {"type": "lowpass", "cutoff": cutoff_hz, "q": q}


def _highpass(cutoff_hz: float) -> Effect:
    return {"type": "highpass", "cutoff": cutoff_hz, "q": 0.7}


_SAWS = (-9.0, 0.0, 8.0)
_CATALOGUE = (
    Instrument("grand piano", "piano", ("comp", "melody", "bass"), ("piano", "grand"), hall=0.4),
    Instrument("bright piano", "piano", ("comp", "melody", "bass"), ("piano", "bright"), hall=0.3),
    Instrument("felt piano", "piano", ("comp", "melody", "bass"), ("piano", "felt"), hall=0.6),
    Instrument("upright piano", "piano", ("comp", "melody", "bass"), ("piano", "upright"), hall=0.25),
    Instrument(
        "electric piano",
        "piano",
        ("comp", "melody"),
        ("electric_piano", "rhodes"),
        effects=(_chorus(0.8, 0.35),),
        hall=0.35,
    ),
    Instrument("organ", "organ", ("pad", "comp", "melody"), ("organ", "tonewheel"), hall=0.35),
    Instrument(
        "accordion",
        "accordion",
        ("melody", "comp", "pad"),
        ("organ", "rock"),
        effects=({"type": "tremolo", "rate": 5.5, "depth": 0.2}, _chorus(1.4, 0.5)),
        hall=0.25,
    ),
    Instrument(
        "strings", "strings", ("pad", "counter", "melody", "comp"), ("strings", "warm"), wide=True, hall=0.7
    ),
    Instrument("string ensemble", "strings", ("comp", "pad", "melody"), ("strings", "ensemble"), wide=True),
    Instrument(
        "staccato strings",
        "strings",
        ("comp", "counter"),
        wave="strings",
        envelope=(0.02, 0.12, 0.5, 0.12),
        wide=True,
        hall=0.45,
    ),
    Instrument(
        "violin",
        "violin",
        ("melody", "counter", "pad"),
        wave="strings",
        envelope=(0.07, 0.1, 0.9, 0.25),
        octave=1,
        hall=0.6,
    ),
    Instrument(
        "cello",
        "cello",
        ("counter", "melody", "bass"),
        wave="strings",
        envelope=(0.09, 0.1, 0.9, 0.35),
        octave=-1,
        effects=(_lowpass(2600.0),),
        hall=0.6,
    ),
    Instrument("brass", "brass", ("pad", "melody", "counter"), ("brass", "section"), hall=0.5),
    Instrument("brass stabs", "brass", ("comp",), ("brass", "stab"), hall=0.35),
    Instrument(
        "trumpet", "trumpet", ("melody", "counter"), wave="brass", envelope=(0.03, 0.1, 0.85, 0.15), hall=0.4
    ),
    Instrument(
        "saxophone",
        "saxophone",
        ("melody", "counter"),
        wave="brass",
        envelope=(0.05, 0.2, 0.8, 0.2),
        effects=(_lowpass(1900.0, 1.2),),
        hall=0.4,
    ),
    Instrument("flute", "flute", ("melody", "counter"), ("flute", "concert"), hall=0.6),
    Instrument(
        "whistle",
        "flute",
        ("melody", "counter"),
        wave="sine",
        envelope=(0.05, 0.1, 0.85, 0.2),
        octave=1,
        hall=0.5,
    ),
    Instrument("nylon guitar", "guitar", ("comp", "melody"), ("guitar", "nylon"), hall=0.3),
    Instrument("steel guitar", "guitar", ("comp", "melody"), ("guitar", "steel"), wide=True, hall=0.25),
    Instrument(
        "electric guitar",
        "guitar",
        ("comp", "melody"),
        wave="sawtooth",
        envelope=(0.004, 0.25, 0.6, 0.12),
        detune_cents=(-5.0, 6.0),
        wide=True,
        hall=0.2,
        effects=(_highpass(90.0), {"type": "drive", "amount": 5.0, "shape": "tanh"}, _lowpass(5000.0)),
    ),
    Instrument(
        "lead guitar",
        "guitar",
        ("melody",),
        wave="sawtooth",
        envelope=(0.01, 0.3, 0.75, 0.2),
        hall=0.35,
        detune_cents=(-3.0, 3.0),
        effects=({"type": "drive", "amount": 4.0, "shape": "tanh"}, _lowpass(3200.0)),
    ),
    Instrument(
        "ukulele",
        "ukulele",
        ("comp", "melody"),
        ("guitar", "nylon"),
        octave=1,
        effects=(_highpass(200.0),),
        hall=0.2,
    ),
    Instrument(
        "harp", "harp", ("comp", "melody"), wave="pluck", envelope=(0.001, 0.0, 1.0, 1.2), hall=0.7, wide=True
    ),
    Instrument("marimba", "marimba", ("comp", "melody"), ("mallets", "marimba"), hall=0.35),
    Instrument("vibraphone", "vibraphone", ("comp", "melody"), ("mallets", "vibraphone"), hall=0.5),
    Instrument("glockenspiel", "bells", ("melody", "comp"), ("mallets", "glockenspiel"), octave=1, hall=0.5),
    Instrument(
        "music box",
        "music box",
        ("melody", "comp"),
        wave="bell",
        envelope=(0.001, 0.5, 0.05, 0.5),
        octave=1,
        effects=(_lowpass(7000.0),),
        hall=0.6,
    ),
    Instrument("tubular bells", "bells", ("counter", "melody"), ("bells", "tubular"), hall=0.8),
    Instrument(
        "synth pad",
        "synth",
        ("pad",),
        wave="sawtooth",
        envelope=(0.35, 0.5, 0.85, 1.0),
        detune_cents=_SAWS,
        wide=True,
        effects=(_lowpass(1700.0), _chorus(0.5, 0.4)),
        hall=0.7,
    ),
    Instrument(
        "warm pad",
        "synth",
        ("pad",),
        wave="triangle",
        envelope=(0.7, 0.5, 0.9, 1.8),
        detune_cents=(-6.0, 0.0, 7.0),
        wide=True,
        effects=(_lowpass(2400.0), _chorus(0.3, 0.5)),
        hall=0.9,
    ),
    Instrument(
        "choir",
        "choir",
        ("pad", "counter"),
        wave="organ",
        envelope=(0.4, 0.3, 0.9, 0.9),
        detune_cents=(-8.0, 8.0),
        wide=True,
        effects=(_lowpass(1300.0, 1.4), _chorus(0.7, 0.6)),
        hall=0.9,
    ),
    Instrument(
        "dark drone",
        "synth",
        ("pad",),
        wave="sawtooth",
        envelope=(1.2, 0.5, 0.9, 2.0),
        detune_cents=(-14.0, 0.0, 11.0),
        octave=-1,
        wide=True,
        effects=(_lowpass(750.0, 1.6),),
        hall=0.8,
    ),
    Instrument(
        "synth lead",
        "synth",
        ("melody", "counter"),
        wave="sawtooth",
        envelope=(0.01, 0.2, 0.75, 0.25),
        detune_cents=(-7.0, 7.0),
        wide=True,
        effects=(_lowpass(5200.0, 1.1),),
        hall=0.45,
    ),
    Instrument(
        "soft lead",
        "synth",
        ("melody", "counter"),
        wave="triangle",
        envelope=(0.03, 0.2, 0.8, 0.4),
        detune_cents=(-4.0, 4.0),
        hall=0.7,
    ),
    Instrument(
        "synth pluck",
        "synth",
        ("comp", "melody"),
        wave="sawtooth",
        envelope=(0.002, 0.22, 0.08, 0.15),
        detune_cents=(-8.0, 8.0),
        wide=True,
        effects=(_lowpass(4200.0, 1.2),),
        hall=0.4,
    ),
    Instrument(
        "synth chords",
        "synth",
        ("comp", "pad"),
        wave="sawtooth",
        envelope=(0.006, 0.3, 0.6, 0.18),
        detune_cents=_SAWS,
        wide=True,
        effects=(_lowpass(3600.0),),
        hall=0.4,
    ),
    Instrument(
        "pulse lead",
        "chip",
        ("melody", "counter"),
        wave="square",
        duty=0.25,
        envelope=(0.002, 0.08, 0.7, 0.05),
        hall=0.05,
    ),
    Instrument(
        "pulse arpeggio",
        "chip",
        ("comp", "counter"),
        wave="square",
        duty=0.125,
        envelope=(0.001, 0.08, 0.35, 0.02),
        hall=0.05,
    ),
    Instrument(
        "triangle bass", "bass", ("bass",), wave="triangle", envelope=(0.002, 0.05, 0.9, 0.03), hall=0.0
    ),
    Instrument("upright bass", "bass", ("bass",), ("bass", "finger"), effects=(_lowpass(900.0),), hall=0.12),
    Instrument("electric bass", "bass", ("bass",), ("bass", "finger"), hall=0.05),
    Instrument("picked bass", "bass", ("bass",), ("bass", "pick"), hall=0.03),
    Instrument("sub bass", "bass", ("bass",), ("bass", "sub"), hall=0.0),
    Instrument("synth bass", "bass", ("bass",), ("bass", "synth"), hall=0.02),
    Instrument(
        "contrabasses",
        "strings",
        ("bass",),
        wave="strings",
        envelope=(0.12, 0.1, 0.9, 0.5),
        hall=0.45,
        wide=True,
        effects=(_lowpass(1400.0),),
    ),
    Instrument("acoustic drums", "drums", ("drums",), ("drums", "acoustic"), hall=0.18),
    Instrument("classic drums", "drums", ("drums",), ("drums", "classic"), hall=0.12),
    Instrument("electronic drums", "drums", ("drums",), ("drums", "electronic"), hall=0.1),
    Instrument("808 drums", "drums", ("drums",), ("drums", "tr808"), hall=0.08),
    Instrument(
        "dusty drums", "drums", ("drums",), ("drums", "acoustic"), effects=(_lowpass(7500.0),), hall=0.15
    ),
    Instrument(
        "orchestral percussion",
        "drums",
        ("drums",),
        ("drums", "acoustic"),
        hall=0.7,
        effects=(_lowpass(9000.0),),
    ),
)
INSTRUMENTS: dict[str, Instrument] = {instrument.name: instrument for instrument in _CATALOGUE}
