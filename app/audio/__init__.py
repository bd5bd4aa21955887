"""The media room: `ffmpeg` (verbs on files), `argv` (what it is told), `clips` (what a file is), `processes`
(bounded children)."""

from app.audio.argv import Recipe, family, keep_argv, prove_argv, trim_argv, walk_argv
from app.audio.clips import Clip
from app.audio.ffmpeg import Audio, default_binary

__all__ = [
    "Audio",
    "Clip",
    "Recipe",
    "default_binary",
    "family",
    "keep_argv",
    "prove_argv",
    "trim_argv",
    "walk_argv",
]
