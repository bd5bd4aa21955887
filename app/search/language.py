"""The search language: a line of text to `db.search.terms` and back. Pure, by hand, one pass.

    search   = all { "OR" all }
    all      = one { ["AND"] one }
    one      = ["-" | "NOT"] ( "(" search ")" | term )
    term     = word | '"' words '"' | field ":" value

Promises: any text either is read or raises `InvalidQuery` with the column where it went wrong and what was
expected there; time and memory grow with the length of the text alone, which is bounded, as are the number
of terms and the depth. `spell` prints what was read so that it is read as the same again, with ages as the
moments that they were.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from app.errors import InvalidQuery
from db.search.terms import Both, Edge, Either, Field, Has, Made, Node, Said, Tagged, Without
from db.search.words import words_of
from db.states import JobState

MOST_CHARS = 500
MOST_TERMS = 32
MOST_DEPTH = 8
MOST_VALUE_CHARS = 128
SPAN_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds by the letter of an age."""
FIELDS = ("state", "kind", "since", "until", "prompt", "provider", "error", "id", "tag.NAME")
_ENDS = frozenset(' ()"')
_DIGITS = frozenset("0123456789")


def parse(text: str, *, now: datetime) -> Node:
    """What a search asks for; ages count back from `now`. Raises InvalidQuery."""
    if len(text) > MOST_CHARS:
        raise InvalidQuery(
            "the search is too long", column=MOST_CHARS + 1, expected=f"at most {MOST_CHARS} characters"
        )
    return _Reader(text, now).read()


def spell(node: Node) -> str:
    """The search that is read as this again."""
    match node:
        case Both(parts):
            return " ".join(f"({spell(part)})" if isinstance(part, Either) else spell(part) for part in parts)
        case Either(parts):
            return " OR ".join(spell(part) for part in parts)
        case Without(part):
            return f"-({spell(part)})" if isinstance(part, (Both, Either)) else f"-{spell(part)}"
        case Said(words, is_open):
            said = " ".join(words) + ("*" if is_open else "")
            return said if len(words) == 1 else f'"{said}"'
        case Has(field, value):
            return f"{field}:{_quoted(value)}"
        case Tagged(name, value):
            return f"tag.{name}:{_quoted(value)}"
        case Made(edge, at):
            return f"{edge}:{at.isoformat()}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class _Reader:
    """One reading of one text, from left to right."""

    def __init__(self, text: str, now: datetime) -> None:
        self._text = text
        self._now = now
        self._at = 0
        self._terms = 0

    def read(self) -> Node:
        self._skip()
        node = self._any(0)
        if self._at < len(self._text):
            self._fail("a closing parenthesis without its opening one", "a word, or the end")
        return node

    def _any(self, depth: int) -> Node:
        parts = [self._all(depth)]
        while self._take("OR"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Either(_flat(parts, Either))

    def _all(self, depth: int) -> Node:
        parts = [self._one(depth)]
        while self._take("AND") or (
            self._at < len(self._text) and self._peek() != ")" and not self._sees("OR")
        ):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Both(_flat(parts, Both))

    def _one(self, depth: int) -> Node:
        if depth > MOST_DEPTH:
            self._fail("too deep", f"at most {MOST_DEPTH} levels of parentheses and negations")
        if self._peek() == "-" or self._sees("NOT"):
            self._at += 1 if self._peek() == "-" else len("NOT")
            self._skip()
            return Without(self._one(depth + 1))
        if self._peek() == "(":
            opened = self._at
            self._at += 1
            self._skip()
            node = self._any(depth + 1)
            if self._peek() != ")":
                self._fail("a parenthesis is not closed", "a closing parenthesis", at=opened)
            self._at += 1
            self._skip()
            return node
        return self._term()

    def _term(self) -> Node:
        for word in ("AND", "OR"):
            if self._sees(word):
                self._fail(f"nothing stands before {word}", _A_TERM)
        if self._peek() in ("", ")"):
            self._fail("something is missing", _A_TERM)
        self._terms += 1
        if self._terms > MOST_TERMS:
            self._fail("too many terms", f"at most {MOST_TERMS}")
        began = self._at
        if self._peek() == '"':
            return self._said(self._string(), began)
        word = self._bare(stop_at_colon=True)
        if self._peek() != ":":
            self._skip()
            return self._said(word, began)
        self._at += 1
        value_at = self._at
        value = self._string() if self._peek() == '"' else self._bare()
        self._skip()
        return self._field(word, value, began, value_at)

    def _field(self, name: str, value: str, began: int, value_at: int) -> Node:
        if name == "prompt":
            return self._said(value, value_at)
        if not value:
            self._fail(f"{name}: has no value", "a value right after the colon", at=value_at)
        if len(value) > MOST_VALUE_CHARS:
            self._fail("the value is too long", f"at most {MOST_VALUE_CHARS} characters", at=value_at)
        if name in (Edge.SINCE, Edge.UNTIL):
            return Made(Edge(name), self._moment(value, value_at))
        if name.startswith("tag."):
            tag = name.removeprefix("tag.")
            if not (tag.isascii() and tag.replace("_", "a").replace("-", "a").isalnum() and len(tag) <= 64):
                self._fail("no name of a tag", "letters, digits, _ and - after tag.", at=began)
            return Tagged(tag, value)
        if name not in tuple(Field):
            self._fail(
                f"there is no field {name[:32]!r}",
                f"one of {', '.join(FIELDS)}; quotes for plain text",
                at=began,
            )
        if name == Field.STATE and value not in tuple(JobState):
            self._fail(f"there is no state {value[:32]!r}", f"one of {', '.join(JobState)}", at=value_at)
        return Has(Field(name), value)

    def _said(self, text: str, at: int) -> Said:
        is_open = text.endswith("*")
        words = words_of(text)
        if not words:
            self._fail("no letter or digit to look for", "a word", at=at)
        # What stands before the star must be a word's beginning, not a mark after its end.
        return Said(tuple(words), is_open and bool(words_of(text[-2:-1])))

    def _moment(self, value: str, at: int) -> datetime:
        try:
            span_s = _span_s(value)
            if span_s is not None:
                return self._now - timedelta(seconds=span_s)
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):
            self._fail(
                f"no time: {value[:40]!r}",
                "an age such as 2h or 3d, or ISO 8601 (UTC without an offset)",
                at=at,
            )

    def _bare(self, *, stop_at_colon: bool = False) -> str:
        began = self._at
        while self._at < len(self._text):
            char = self._peek()
            if char in _ENDS or char.isspace() or (stop_at_colon and char == ":"):
                break
            self._refuse_unstorable()
            self._at += 1
        return self._text[began : self._at]

    def _string(self) -> str:
        opened, found = self._at, []
        self._at += 1
        while self._peek() != '"':
            if self._peek() == "\\":
                self._at += 1
            if self._at >= len(self._text):
                self._fail("a quote is not closed", 'a closing "', at=opened)
            self._refuse_unstorable()
            found.append(self._peek())
            self._at += 1
        self._at += 1
        self._skip()
        return "".join(found)

    def _refuse_unstorable(self) -> None:
        """No job has it, and a database may refuse to be asked for it."""
        char = self._peek()
        if char == "\0" or "\ud800" <= char <= "\udfff":
            self._fail("a character that no text has", "text without NUL and half surrogate pairs")

    def _peek(self) -> str:
        """The next character; nothing at the end."""
        return self._text[self._at : self._at + 1]

    def _sees(self, word: str) -> bool:
        """Whether this word of the language stands here, by itself."""
        end = self._at + len(word)
        after = self._text[end : end + 1]
        return self._text[self._at : end] == word and (not after or after in _ENDS or after.isspace())

    def _take(self, word: str) -> bool:
        if not self._sees(word):
            return False
        self._at += len(word)
        self._skip()
        return True

    def _skip(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _fail(self, what: str, expected: str, *, at: int | None = None) -> NoReturn:
        raise InvalidQuery(what, column=(self._at if at is None else at) + 1, expected=expected)


_A_TERM = "a word, field:value, quotes or parentheses"


def _flat(parts: list[Node], group: type[Both] | type[Either]) -> tuple[Node, ...]:
    """The parts, with groups of the same sort dissolved among them."""
    found: list[Node] = []
    for part in parts:
        found.extend(part.parts if isinstance(part, (Both, Either)) and isinstance(part, group) else [part])
    return tuple(found)


def _span_s(value: str) -> float | None:
    """The seconds of an age such as `90s`, `2h`, `1.5d`; None for what does not look like one."""
    number = value.rstrip("smhdwin")
    unit = value[len(number) :]
    if unit not in SPAN_S or not number or not set(number) <= _DIGITS | {"."}:
        return None
    span_s = float(number) * SPAN_S[unit]
    return span_s if math.isfinite(span_s) else None
