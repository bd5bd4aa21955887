"""Text of strangers on a terminal: it moves no cursor, rings no bell and reads in its own direction."""

from __future__ import annotations

import io
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from app.cli.tools import show
from app.cli.tools.inert import inert, inert_json
from tests.fakes.texts import HOSTILE

DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_obeyed(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in DIRECTIONS


@given(st.text(st.characters(), max_size=60))
def test_whatever_it_is_nothing_of_it_is_obeyed(text: str) -> None:
    """Fault 23."""
    assert not any(map(is_obeyed, inert(text)))
    inert(text).encode()
    assert inert("a\n\tb", keep="\n\t") == "a\n\tb"


@given(st.recursive(st.text(st.characters(), max_size=20) | st.integers(), st.lists, max_leaves=8))
def test_json_stays_the_same_document(value: object) -> None:
    """Fault 23."""
    document = inert_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(document) == value
    assert not any(is_obeyed(each) for each in document.replace("\n", ""))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_and_a_grid_show_it_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Fault 23: no escape of theirs, and no markup either."""
    target = io.StringIO()
    console = Console(file=target, width=4000, highlight=False)
    table = show.table("a", "b", flexible=("b",))
    table.add_row(show.plain(text), show.cut(text))
    console.print(table)
    console.print(show.grid({text: text}))
    printed = target.getvalue()
    show.print_line(text)
    show.print_json({"prompt": text})
    for shown in (printed, capsys.readouterr().out):
        assert not any(is_obeyed(each) for each in shown.replace("\n", ""))
    if text.isascii() and text.isprintable():
        assert printed.count(text) == 4
