"""Neighbouring languages by Apertium's rules: a program of the system, run once for many sentences.

It is GPL and not linked to. Without it, or without a pair, the routes that need it are not there.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from app.engines.base import EngineError

_PROGRAM = "apertium"
_TOGETHER = 200
_LIMIT_S = 60.0
"""200 sentences take a tenth of a second; past this it hangs."""


@functools.lru_cache(maxsize=1)
def installed_modes() -> frozenset[str]:
    """The directions that this machine has; none where Apertium is not there. Asked once a worker."""
    if shutil.which(_PROGRAM) is None:
        return frozenset()
    return frozenset(_run(["-l"], "").split())


def translate(mode: str, sentences: Sequence[str]) -> Iterator[str]:
    """The translations. Raises EngineError."""
    for at in range(0, len(sentences), _TOGETHER):
        together = [" ".join(sentence.split()) for sentence in sentences[at : at + _TOGETHER]]
        translated = _translate(mode, together)
        if len(translated) != len(together):
            # A sentence that it divides, or joins with its neighbour: each by itself, ten times slower.
            translated = [" ".join(_translate(mode, [sentence])) for sentence in together]
        yield from translated


def _translate(mode: str, sentences: Sequence[str]) -> list[str]:
    """Paragraphs apart, so that no rule reaches over from one sentence to the next."""
    answer = _run(["-u", mode], "\n\n".join(sentences))
    return [line.strip() for line in answer.splitlines() if line.strip()]


def _run(arguments: Sequence[str], text: str) -> str:
    environment = {"PATH": os.defpath + os.pathsep + "/usr/local/bin", "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    try:
        ended = subprocess.run(
            [shutil.which(_PROGRAM) or _PROGRAM, *arguments],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LIMIT_S,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"apertium did not answer: {type(error).__name__}") from error
    if ended.returncode != 0 and not ended.stdout.strip():
        raise EngineError(f"apertium ended with {ended.returncode}: {ended.stderr.strip()[:200]}")
    return ended.stdout
