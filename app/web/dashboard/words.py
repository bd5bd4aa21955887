"""How figures, times and names are put for people: the filters of the templates. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from markupsafe import Markup, escape

SAID = ("prompt", "text", "title", "name")
"""The inputs that say what a job is about, the first that is there."""


def moment(value: datetime | None) -> Markup | str:
    """A time, for `times.js` to show in the reader's own zone; UTC until it has."""
    if value is None:
        return "–"
    return Markup('<time datetime="{}">{}</time>').format(value.isoformat(), f"{value:%d %b %H:%M:%S} UTC")


def ago(value: datetime | None) -> Markup | str:
    """The same as a distance from now."""
    if value is None:
        return "–"
    return Markup('<time datetime="{}" data-ago>{}</time>').format(value.isoformat(), f"{value:%H:%M} UTC")


def seconds(value: float | None) -> str:
    """A duration: `640 ms`, `3.2 s`, `2 min 05 s`, `1 h 03 min`."""
    if value is None:
        return "–"
    if value < 1:
        return f"{round(value * 1000)} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def between(begun: datetime | None, ended: datetime | None) -> str:
    """How long that was."""
    return "–" if begun is None or ended is None else seconds((ended - begun).total_seconds())


def size(value: int | None) -> str:
    """Bytes, in decimal units as disks are sold."""
    if value is None:
        return "–"
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def clock(value: float) -> str:
    """A position in a sound: `1:07`."""
    return f"{int(value) // 60}:{int(value) % 60:02}"


def usd(value: float | None) -> str:
    """Dollars; what costs less than a cent keeps its first figures, what has no price says so."""
    if value is None:
        return "no price"
    if value == 0:
        return "$0"
    return f"${value:.2f}" if value >= 1 else f"${value:.4f}".rstrip("0")


def title(job: Any) -> str:
    """What a job is about in a line: the text that it was given, its caller's title, or what it works on."""
    given: Mapping[str, Any] = job.input
    for name in SAID:
        if isinstance(given.get(name), str) and given[name]:
            return " ".join(str(given[name]).split())[:300]
    if job.expunged_at is not None:
        return "expunged"
    named = job.metadata.get("title")
    if isinstance(named, str) and named.strip():
        return " ".join(named.split())[:300]
    files = [
        f"{name} {value[:12]}…" for name, value in given.items() if isinstance(value, str) and "_" in value
    ]
    return ", ".join(files) or words(job.kind)


def words(name: str) -> str:
    """A name of the API as words: `sound_effect` as `sound effect`."""
    return name.replace("_", " ").replace(".", " ")


def labelled(name: str) -> str:
    """A field's name as a label: `duration_s` as `duration in seconds`, `voice_id` as `voice`."""
    name = name.removesuffix("_id")
    return f"{words(name.removesuffix('_s'))} in seconds" if name.endswith("_s") else words(name)


def plain_json(value: object) -> str:
    """As it goes into a page's text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def percent(value: float) -> int:
    return round(100 * value)


def short(identifier: str | None) -> Markup | str:
    """An id by its last characters, the whole in its title: the first ones are the time."""
    if not identifier:
        return "–"
    if len(identifier) <= 16:
        return Markup("<code>{}</code>").format(identifier)
    shown = f"{identifier.partition('_')[0]}_…{identifier[-6:]}"
    return Markup('<code title="{}">{}</code>').format(identifier, escape(shown))


FILTERS: dict[str, Callable[..., Any]] = {
    "moment": moment,
    "ago": ago,
    "seconds": seconds,
    "between": between,
    "size": size,
    "clock": clock,
    "usd": usd,
    "about": title,
    "words": words,
    "labelled": labelled,
    "plain_json": plain_json,
    "percent": percent,
    "short": short,
}
