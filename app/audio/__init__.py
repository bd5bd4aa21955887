"""The media room: `ffmpeg` (verbs on files), `argv` (what it is told), `mixing` (sounds under each other),
`clips` (what a file is), `processes` (bounded children)."""

from app.audio.argv import Recipe, family, keep_argv, prove_argv, trim_argv, walk_argv
from app.audio.clips import Clip
from app.audio.ffmpeg import Audio, default_binary
from app.audio.mixing import Frame, Layer, Mix

__all__ = [
    "Audio",
    "Clip",
    "Frame",
    "Layer",
    "Mix",
    "Recipe",
    "default_binary",
    "family",
    "keep_argv",
    "prove_argv",
    "trim_argv",
    "walk_argv",
]
