"""The line of a translation: texts to sentences, every hop of the route over all of them, texts again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.engines.base import EngineError, Findings, Progress, ignore_progress
from app.engines.translation import apertium, bergamot
from app.engines.translation.routes import HOPS, Hop, find_route
from app.engines.translation.sentences import join, split

MAX_CHARACTERS = 100_000
_ENGINES = {"bergamot": bergamot.translate, "apertium": apertium.translate}


def translate(
    *,
    text: str | None = None,
    segments: Sequence[Mapping[str, Any]] | None = None,
    source: str,
    target: str,
    allow_poorer: bool = False,
    progress: Progress = ignore_progress,
) -> Findings:
    """The translation as JSON: `{source, target, text, segments?, engine, poorer}`.

    Either a text or segments, which keep their other fields. Raises EngineError, EngineUnavailable naming
    what to install, allow or configure.
    """
    route = find_route(
        _language(source), _language(target), installed=_installed(), allow_poorer=allow_poorer
    )
    texts = [text or ""] if segments is None else [str(segment.get("text", "")) for segment in segments]
    translated = _translate_all(texts, route, progress)
    engine = " + ".join(f"{hop.engine} {hop.mode}" for hop in route)
    answer: dict[str, Any] = {"source": source, "target": target}
    if segments is None:
        answer["text"] = translated[0]
    else:
        pairs = zip(segments, translated, strict=True)
        answer["text"] = " ".join(filter(None, translated))
        answer["segments"] = [{**segment, "text": each} for segment, each in pairs]
    poorer = any(hop.is_poorer for hop in route)
    return Findings(
        outputs={"text": json.dumps({**answer, "engine": engine, "poorer": poorer}, ensure_ascii=False)},
        engine=engine,
        recipe="-".join([route[0].source, *(hop.target for hop in route)]),
        duration_s=0.0,
        details={"poorer": poorer, "characters": sum(map(len, texts))},
    )


def _translate_all(texts: Sequence[str], route: Sequence[Hop], progress: Progress) -> list[str]:
    pieces = [split(text) for text in texts]
    sentences = [piece.text for each in pieces for piece in each]
    if not sentences:
        raise EngineError("text: there is nothing to translate")
    for number, hop in enumerate(route):
        made: list[str] = []
        for sentence in _ENGINES[hop.engine](hop.mode, sentences):
            made.append(sentence)
            done = (number + len(made) / len(sentences)) / len(route)
            progress(done, f"translating to {hop.target}")
        sentences = made
    results, at = [], 0
    for each in pieces:
        results.append(join(each, sentences[at : at + len(each)]))
        at += len(each)
    return results


def _installed() -> list[Hop]:
    modes = apertium.installed_modes()
    has_bergamot = bergamot.is_installed()
    return [hop for hop in HOPS if (has_bergamot if hop.engine == "bergamot" else hop.mode in modes)]


def _language(tag: str) -> str:
    """`pt-BR` and `es-419` as what the engines tell apart."""
    return tag.lower().replace("_", "-").partition("-")[0]
