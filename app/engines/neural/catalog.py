"""Which neural engine makes which kind: data, and the rules that a model passes before it is loaded.

Owns the licences. The weights of most neural engines are not as free as their code: what an operator names
is held against its model card where one lies beside the weights, else against what its family is published
under. Weights that may not be used commercially are refused unless NEURAL_ALLOW_NONCOMMERCIAL says that the
operator knows. Imports nothing heavy: the front asks here before any process is started.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.engines.base import EngineUnavailable
from app.engines.neural.placement import GIB, Need, Precision

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.th")
OPEN = re.compile(
    r"^(mit|apache-2\.0|bsd(-\d-clause)?|cc0-1\.0|cc-by(-sa)?-[\d.]+|isc|unlicense)$", re.IGNORECASE
)
"""Licences that ask for nothing that a service could not give."""
_CARD_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([\w.\-]+)", re.MULTILINE)
_HUB_NAME = re.compile(r"[\w.\-]+(/[\w.\-]+)?(@[\w.\-]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Family:
    """A neural engine: what it makes, and what its published weights ask for."""

    kind: str
    name: str
    licence: str
    """Of the weights as their authors publish them, as an SPDX name where there is one."""
    usual_bytes: int
    """Weights of the usual size in full precision, for a hub name whose files are not here yet."""
    precisions: tuple[Precision, ...]


FAMILIES = (
    Family("background_music", "musicgen", "CC-BY-NC-4.0", 8 * GIB, ("bfloat16", "float16", "float32")),
    Family("sound_effect", "stable-audio", "stabilityai-community", 5 * GIB, ("float16", "float32")),
    Family("transcription", "whisper", "MIT", 6 * GIB, ("float16", "int8", "float32")),
    Family("translation", "translation", "MIT", 5 * GIB, ("float16", "float32")),
    Family("speech", "vits", "CC-BY-NC-4.0", GIB // 4, ("float32",)),
    Family("stem_separation", "htdemucs", "research-only", GIB // 2, ("float32",)),
)
BY_KIND = {family.kind: family for family in FAMILIES}

_PUBLISHED = (
    (re.compile(r"nllb", re.IGNORECASE), "CC-BY-NC-4.0"),
    (re.compile(r"madlad", re.IGNORECASE), "Apache-2.0"),
    (re.compile(r"kokoro", re.IGNORECASE), "Apache-2.0"),
)
"""Models whose name tells that they are not under their family's licence."""


@dataclass(frozen=True, slots=True)
class Named:
    """A model as an operator named it, found to be usable."""

    family: Family
    name: str
    """A folder, or a name at the hub with an optional `@revision`."""
    licence: str

    @property
    def folder(self) -> Path | None:
        path = Path(self.name)
        return path if path.is_dir() or path.is_file() else None

    @property
    def need(self) -> Need:
        """What it takes, by the files that are here, else by what is usual."""
        found = weights_bytes(self.folder) if self.folder is not None else 0
        return Need(full_bytes=found or self.family.usual_bytes, precisions=self.family.precisions)


def read_models(models: Mapping[str, str], *, allow_noncommercial: bool) -> dict[str, Named]:
    """The models by kind. Raises EngineUnavailable naming the kind at fault and what to do."""
    named: dict[str, Named] = {}
    for kind, name in models.items():
        family = BY_KIND.get(kind)
        if family is None:
            raise EngineUnavailable(f"{kind}: no neural engine makes it; there are {', '.join(BY_KIND)}")
        named[kind] = _check(family, name, allow_noncommercial=allow_noncommercial)
    return named


def licence_of(family: Family, name: str) -> str:
    """The licence of these weights: their card's where one is there, else as published."""
    card = Path(name) / "README.md"
    if card.is_file():
        found = _CARD_LICENCE.search(card.read_text(errors="replace")[:20_000])
        if found:
            return found[1]
    for pattern, licence in _PUBLISHED:
        if pattern.search(name):
            return licence
    return family.licence


def weights_bytes(place: Path) -> int:
    """The size of the weights in a folder, or of the one file; in one format where there are several."""
    if place.is_file():
        return place.stat().st_size
    sizes = [sum(file.stat().st_size for file in place.rglob(pattern)) for pattern in WEIGHTS]
    return max(sizes, default=0)


def _check(family: Family, name: str, *, allow_noncommercial: bool) -> Named:
    licence = licence_of(family, name)
    if not OPEN.match(licence) and not allow_noncommercial:
        raise EngineUnavailable(
            f"{family.kind}: the weights of {name} are under {licence}, which does not allow every use; "
            "set NEURAL_ALLOW_NONCOMMERCIAL=true if it allows yours"
        )
    named = Named(family, name, licence)
    if named.folder is None:
        if name.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(name):
            raise EngineUnavailable(f"{family.kind}: {name} is neither there nor a name at the hub")
    elif not weights_bytes(named.folder):
        raise EngineUnavailable(f"{family.kind}: there are no weights in {name}")
    return named
