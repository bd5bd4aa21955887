"""What a page tells of uploads before one begins: how large and how long a file may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings
from app.web.dashboard.words import size


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one control."""

    most_bytes: int
    longest_s: float
    said: str
    """In words, for whoever chooses a file."""


def limits_of(settings: Settings, *, longest_s: float, least_s: float = 0.0) -> Limits:
    """Those of the service, and of what the file is for."""
    most = min(longest_s, settings.max_upload_s)
    largest = size(settings.max_upload_bytes).replace(".0 ", " ")
    if least_s:
        said = f"Any usual sound file of {least_s:g} to {most:g} s, up to {largest}."
    else:
        said = f"Any usual sound file, up to {largest} and {_minutes(most)}."
    return Limits(settings.max_upload_bytes, most, said)


def _minutes(value_s: float) -> str:
    return f"{value_s / 60:g} min" if value_s >= 60 else f"{value_s:g} s"
