"""The media room: `ffmpeg` (verbs on files), `clips` (what a file is), `processes` (bounded children)."""

from app.audio.clips import Clip
from app.audio.ffmpeg import Audio, Recipe, default_binary, family, keep_argv, trim_argv, walk_argv

__all__ = ["Audio", "Clip", "Recipe", "default_binary", "family", "keep_argv", "trim_argv", "walk_argv"]
