"""Who plays: the genre's own ensemble, bent to what the caller asked for.

Owns the seating of requested instruments and the silencing of refused ones. Promises at least one part, each
role taken once, in the order in which a section is built up. Leaves what they play to `score`.
"""

from __future__ import annotations

import re

import numpy as np

from app.engines.music.genres import Genre
from app.engines.music.instruments import INSTRUMENTS
from app.engines.music.score.notation import ROLES, Role
from app.engines.music.vocabulary import INSTRUMENT_WORDS, ROLE_WORDS

_TUNEFUL: tuple[Role, ...] = ("melody", "counter", "comp", "pad")
_ALONE = re.compile(r"\b(?:solo|only|just|alone|unaccompanied|a cappella)\b")
Seats = dict[Role, str]


def choose(
    genre: Genre, asked: list[str], unwanted: list[str], text: str, rng: np.random.Generator
) -> tuple[tuple[Role, str], ...]:
    """The ensemble as (role, instrument).

    One requested instrument joins the genre's ensemble in the seats it likes best; two or more replace
    everything that carries a tune. "Solo" or "only" sends everybody else home.
    """
    seats: Seats = dict(genre.ensembles[int(rng.integers(len(genre.ensembles)))])
    alone = bool(asked) and bool(_ALONE.search(text))
    tuneful = [name for name in asked if INSTRUMENTS[name].roles[0] in _TUNEFUL]
    if alone:
        seats = {}
    elif len(tuneful) > 1:
        seats = {role: name for role, name in seats.items() if role not in _TUNEFUL}
    for name in asked:
        if name not in tuneful:
            seats[INSTRUMENTS[name].roles[0]] = name
    seats |= _seat(tuneful, sole=len(tuneful) == 1)
    if alone and len(tuneful) == 1:
        # A soloist does all that the instrument can: a pianist has two hands.
        seats |= dict.fromkeys(INSTRUMENTS[tuneful[0]].roles, tuneful[0])
    silenced = _silence(seats, unwanted)
    if not silenced:
        silenced = {"pad": "warm pad"}
    return tuple((role, silenced[role]) for role in ROLES if role in silenced)


def genre_for(asked: list[str], families: dict[str, str]) -> str | None:
    """The genre that the requested instruments suggest, if any."""
    for name in asked:
        if INSTRUMENTS[name].family in families:
            return families[INSTRUMENTS[name].family]
    return None


def _seat(tuneful: list[str], sole: bool) -> Seats:
    """Seats for the requested instruments: each its first free preference, and somebody for the tune."""
    seats: Seats = {}
    if sole:
        roles = INSTRUMENTS[tuneful[0]].roles
        return {role: tuneful[0] for role in roles[:2] if role in ("comp", "melody")} or {
            roles[0]: tuneful[0]
        }
    for name in tuneful:
        free = [role for role in INSTRUMENTS[name].roles if role not in seats]
        spare = [role for role in _TUNEFUL if role not in seats]
        if free or spare:
            seats[(free or spare)[0]] = name
    singers = [name for name in tuneful if "melody" in INSTRUMENTS[name].roles]
    if singers and "melody" not in seats:
        seats["melody"] = singers[0]
    return seats


def _silence(seats: Seats, unwanted: list[str]) -> Seats:
    families = {INSTRUMENTS[INSTRUMENT_WORDS[word]].family for word in unwanted if word in INSTRUMENT_WORDS}
    plural = {
        INSTRUMENTS[INSTRUMENT_WORDS[word[:-1]]].family for word in unwanted if word[:-1] in INSTRUMENT_WORDS
    }
    roles = {ROLE_WORDS[word] for word in unwanted if word in ROLE_WORDS}
    # "No piano" leaves the bass's family alone unless the bass was named: families decide, roles add.
    refused = families | plural
    return {
        role: name
        for role, name in seats.items()
        if role not in roles and INSTRUMENTS[name].family not in refused
    }
