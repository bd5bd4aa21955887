"""The search language: what is read, what is refused and where, and that printing loses nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidQuery
from app.search.language import MOST_CHARS, MOST_DEPTH, MOST_TERMS, parse
from db.search.terms import Both, Edge, Either, Field, Has, Made, Node, Said, Tagged, Without
from db.search.words import MOST_WORDS, said_in, words_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RAIN, SNOW, TIN = Said(("rain",)), Said(("snow",)), Said(("tin",))


def asked(text: str) -> Node:
    return parse(text, now=NOW)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("rain", RAIN),
        ("  RAIN  ", RAIN),
        ("prompt:rain", RAIN),
        ('"tin roof"', Said(("tin", "roof"))),
        ('prompt:"Tin  Roof!"', Said(("tin", "roof"))),
        ("tin-roof", Said(("tin", "roof"))),
        ("rain*", Said(("rain",), is_open=True)),
        ('"tin roo*"', Said(("tin", "roo"), is_open=True)),
        ('"rain *"', RAIN),
        ("rain snow", Both((RAIN, SNOW))),
        ("rain AND snow", Both((RAIN, SNOW))),
        ("rain OR snow", Either((RAIN, SNOW))),
        ("rain or snow", Both((RAIN, Said(("or",)), SNOW))),
        ("rain snow OR tin", Either((Both((RAIN, SNOW)), TIN))),
        ("rain (snow OR tin)", Both((RAIN, Either((SNOW, TIN))))),
        ("(rain snow) tin", Both((RAIN, SNOW, TIN))),
        ("(rain OR snow) OR tin", Either((RAIN, SNOW, TIN))),
        ("-rain", Without(RAIN)),
        ("NOT rain", Without(RAIN)),
        ("--rain", Without(Without(RAIN))),
        ("-(rain snow)", Without(Both((RAIN, SNOW)))),
        ("NOTE", Said(("note",))),
        ("ORCHESTRA", Said(("orchestra",))),
        ("state:failed", Has(Field.STATE, "failed")),
        ("kind:speech", Has(Field.KIND, "speech")),
        ("provider:replicate", Has(Field.PROVIDER, "replicate")),
        ("error:poisoned", Has(Field.ERROR, "poisoned")),
        ("id:job_1", Has(Field.ID, "job_1")),
        ("tag.album:blue", Tagged("album", "blue")),
        ('tag.album:"kind of \\"blue\\""', Tagged("album", 'kind of "blue"')),
        ("since:2h", Made(Edge.SINCE, NOW - timedelta(hours=2))),
        ("since:1.5d", Made(Edge.SINCE, NOW - timedelta(hours=36))),
        ("until:30min", Made(Edge.UNTIL, NOW - timedelta(minutes=30))),
        ("until:2026-01-01", Made(Edge.UNTIL, datetime(2026, 1, 1, tzinfo=UTC))),
        ("since:2026-01-01T10:00:00+02:00", Made(Edge.SINCE, datetime(2026, 1, 1, 8, tzinfo=UTC))),
        ("since:2026-01-01T10:00:00Z", Made(Edge.SINCE, datetime(2026, 1, 1, 10, tzinfo=UTC))),
        ("雨の音", Said(("雨", "の", "音"))),
        ("ＲＡＩＮ", RAIN),
        ("🌧\ufe0frain", Said(("🌧", "rain"))),
        ("Straße", Said(("strasse",))),
    ],
)
def test_what_is_asked_is_read(text: str, node: Node) -> None:
    assert asked(text) == node


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "a word"),
        ("   ", 4, "a word"),
        ("state:failled", 7, "queued, running"),
        ("rain state:", 12, "a value"),
        ("rian:x", 1, "one of state, kind"),
        ("since:yesterday", 7, "an age such as 2h"),
        ("since:2026-13-01", 7, "ISO 8601"),
        ("since:0001-01-01T00:00:00+14:00", 7, "ISO 8601"),
        ("until:999999999999d", 7, "an age"),
        ("(rain", 1, "a closing parenthesis"),
        ("rain)", 5, "a word, or the end"),
        ("()", 2, "a word"),
        ('"rain', 1, 'a closing "'),
        ('rain "', 6, 'a closing "'),
        ('""', 1, "a word"),
        ("%", 1, "a word"),
        ("OR rain", 1, "a word"),
        ("rain OR", 8, "a word"),
        ("rain OR OR snow", 9, "a word"),
        ("rain AND", 9, "a word"),
        ("-", 2, "a word"),
        ("tag.:x", 1, "letters, digits"),
        ("tag.a'b:x", 1, "letters, digits"),
        ("ra\0in", 3, "NUL"),
        ('"ra\ud800in"', 4, "half surrogate"),
        (f"id:{'x' * 129}", 4, "at most 128"),
        ("x " * (MOST_TERMS + 1), 2 * MOST_TERMS + 1, f"at most {MOST_TERMS}"),
        ("(" * 200 + "x" + ")" * 200, MOST_DEPTH + 2, f"at most {MOST_DEPTH} levels"),
        ("-" * 400 + "x", MOST_DEPTH + 2, f"at most {MOST_DEPTH} levels"),
        ("x" * (MOST_CHARS + 1), MOST_CHARS + 1, f"at most {MOST_CHARS} characters"),
    ],
)
def test_nonsense_is_refused_with_the_place_and_what_was_expected_there(
    text: str, column: int, expected: str
) -> None:
    with pytest.raises(InvalidQuery) as refused:
        asked(text)
    assert refused.value.column == column
    assert expected in refused.value.expected
    assert refused.value.status == 400


@settings(max_examples=500)
@given(st.text(max_size=200))
def test_words_are_read_from_themselves_as_the_same(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert all(word and not set(word) & set(' %_\\"') for word in words)


def test_words_are_bounded() -> None:
    assert len(words_of("a " * 5000)) == MOST_WORDS
    assert words_of("b" * 5000) == ["b" * 40]
    assert said_in({"duration_s": 2}) == ""
    assert said_in({"text": "It rains_again, twice"}) == " it rains again twice "
    assert said_in({"prompt": ["not", "text"]}) == ""
