"""Foreign text on a terminal: prompts, titles, error texts and bodies that must not move a cursor or lie.

Pure. Every character that a terminal obeys (C0, DEL, C1) or that turns the reading direction is written as
its escape, `\\x1b` or `\\u202e`; all others, of whatever alphabet, stay as they are.
"""

from __future__ import annotations

import re

_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_OBEYED = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{_DIRECTIONS}\ud800-\udfff\ufeff]")
_IN_JSON = re.compile(f"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029{_DIRECTIONS}\ud800-\udfff\ufeff]")


def inert(text: str, *, keep: str = "") -> str:
    """`text` with what a terminal obeys escaped; `keep` are characters that may stay, such as line ends."""
    return _OBEYED.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def inert_json(document: str) -> str:
    """The same for a JSON document, which stays the same document; line ends stand between values only."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
