"""The figures of a song, in words: each was measured of this very result, or says that it was not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.web.schemas import JobOut

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line."""

    name: str
    said: str
    is_measured: bool
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class _Known:
    """What a name in `measured` means."""

    key: str
    name: str
    form: str
    """How a number is put."""
    null: str
    meaning: str


_OF_A_CONVERSION = (
    _Known(
        "similarity_before", "Likeness of the song's voice", "{:.2f}", NOT_MEASURED, "to the one asked for"
    ),
    _Known("similarity_after", "Likeness of the result", "{:.2f}", NOT_MEASURED, "0.9: one voice; 0.3: two"),
    _Known(
        "mix_loudness_lufs",
        "Loudness of the mix",
        "{:.1f} LUFS",
        "too quiet to be measured",
        "integrated, before any gain",
    ),
    _Known("mix_true_peak_db", "True peak of the mix", "{:.1f} dBTP", "silence", "before any gain"),
    _Known(
        "mix_gain_db", "Gain", "{:.1f} dB", NOT_MEASURED, "what keeps the true peak at −1.5 dBTP or below"
    ),
)
_OF_A_SEPARATION = Figure(
    "How clean the parts are", NOT_MEASURED, False, "it would take the parts as they were recorded"
)


def figures_of(job: JobOut) -> list[Figure]:
    """Those of a song's result, measured or not."""
    if job.kind != "voice_conversion":
        return [_OF_A_SEPARATION]
    return [_figure(job.measured or {}, each) for each in _OF_A_CONVERSION]


def _figure(measured: dict[str, object], known: _Known) -> Figure:
    if known.key not in measured:
        return Figure(known.name, NOT_MEASURED, False, known.meaning)
    value = measured[known.key]
    if not isinstance(value, int | float):
        return Figure(known.name, known.null, known.null != NOT_MEASURED, known.meaning)
    return Figure(known.name, known.form.format(value).replace("-", "−"), True, known.meaning)
