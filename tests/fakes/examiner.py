"""An examiner that hears what it is told to hear, and a voice by its name."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.engines.voice.examining import Examined
from app.errors import AppError


def vector(seed: int, *, like: int | None = None, by: float = 0.0) -> str:
    """256 numbers of length one; `by` is their cosine with those of `like`."""
    own = np.random.default_rng(seed).standard_normal(256)
    if like is not None:
        other = np.random.default_rng(like).standard_normal(256)
        other /= np.linalg.norm(other)
        own -= (own @ other) * other
        own = by * other + np.sqrt(1 - by**2) * own / np.linalg.norm(own)
    own /= np.linalg.norm(own)
    return base64.b64encode(own.astype("<f4").tobytes()).decode()


GOOD = Examined(
    duration_s=20.0,
    snr_db=31.5,
    silence_share=0.2,
    clipped_share=0.0,
    voiced_s=12.0,
    consistency=0.91,
    lowest_hz=110.0,
    median_hz=220.0,
    highest_hz=440.0,
    embedding_model="test/1",
    embedding=vector(1),
)
"""A recording that is good enough."""


class FakeExaminer:
    """Says `heard`, with the given changes, or raises."""

    def __init__(self) -> None:
        self.heard = GOOD
        self.trouble: AppError | None = None
        self.examined = 0

    def hears(self, **changes: object) -> None:
        self.heard = replace(GOOD, **changes)  # type: ignore[arg-type]

    async def examine(self, recording: Path) -> Examined:
        assert recording.stat().st_size
        self.examined += 1
        if self.trouble is not None:
            raise self.trouble
        return self.heard
