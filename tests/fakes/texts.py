"""Texts that strangers send: markup, escapes, line ends, other directions and alphabets."""

from __future__ import annotations

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07\x1b]8;;http://evil/\x07link",
    "\x9b2J\x90q\x9c",
    "a\r\nSet-Cookie: x=1\r\n\r\nbody",
    "back\b\b\bspace\x7f\v\f",
    "[red]markup[/red] [link=http://evil]x[/link]",
    "\u202egnp.exe\u2066x\u2069",
    "line\u2028and\u2029paragraph",
    "😀🏳️‍🌈𝕏",
    "%s %n {0} ${jndi:ldap://x}",
    "'; DROP TABLE jobs; --",
)
NUL = "a\x00b"
