#!/usr/bin/env python3
"""How fast the neural engines are here.

Loads what NEURAL_MODELS names, each kind in turn, asks it for the same things as every other time, and prints
a table for docs/reference/engines.md: seconds of processing for a second of sound (the real-time factor), or
characters a second for a translation, and the most memory that the GPU gave. The first run warms up and does
not count. `--sound` is what is transcribed and separated: a recording of a minute or so.
Usage: NEURAL_MODELS=… scripts/lab/engine_speed.py [--runs N] [--sound FILE]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import wave
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from app.engines.base import Findings, Rendering, ignore_progress
from app.engines.neural.memory import free_caches
from app.engines.neural.predict import load_model, models_of_environment

TEXT = "The weather is very nice today. She bought three apples and some milk. Open the window, please. " * 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sound", type=Path)
    options = parser.parse_args()
    print("| kind | model | device | load | for a second of sound | peak of the GPU |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        sound = options.sound or _silence(Path(folder) / "silence.wav")
        for kind, named in models_of_environment().items():
            began = time.perf_counter()
            model = load_model(named)
            load_s = time.perf_counter() - began
            times, made = [], None
            for _ in range(options.runs + 1):
                began = time.perf_counter()
                made = _ask(kind, model, sound)
                times.append(time.perf_counter() - began)
            print(_row(kind, named.name, load_s, statistics.median(times[1:] or times), made), flush=True)
            del model
            free_caches()


def _ask(kind: str, model: Any, sound: Path) -> Any:
    progress = ignore_progress
    match kind:
        case "transcription":
            return model.transcribe(sound, language="en", progress=progress)
        case "translation":
            return model.translate(text=TEXT, segments=None, source="en", target="es", progress=progress)
        case "stem_separation":
            stems = model.separate(sound, all_stems=True, progress=progress)
            return len(stems["vocals"]) / model.sample_rate
        case "speech":
            language = model.language or "en"
            return model.render(
                text=TEXT, language=language, voice=None, speed=1.0, seed=1, progress=progress
            )
        case "sound_effect":
            return model.render(prompt="a dog barks", duration_s=10.0, loop=False, seed=1, progress=progress)
        case _:
            return model.render(prompt="calm piano", duration_s=30.0, seed=1, progress=progress)


def _row(kind: str, name: str, load_s: float, took_s: float, made: Any) -> str:
    import torch

    device, peak = "processor", "-"
    if torch.cuda.is_available():
        device, peak = torch.cuda.get_device_name(), f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        torch.cuda.reset_peak_memory_stats()
    if kind == "translation":
        speed = f"{len(TEXT) / took_s:.0f} characters a second"
    else:
        duration_s = made.duration_s if isinstance(made, Rendering | Findings) else float(made)
        speed = f"{took_s / duration_s:.3f} s"
    return f"| `{kind}` | {name} | {device} | {load_s:.1f} s | {speed} | {peak} |"


def _silence(file: Path) -> Path:
    """A minute of nothing, where no recording was given: fine for stems, too easy for a transcription."""
    with wave.open(str(file), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(44_100)
        out.writeframes(b"\0" * 4 * 44_100 * 60)
    return file


if __name__ == "__main__":
    main()
