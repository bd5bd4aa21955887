"""Background music: `render` turns a prompt into a composed and produced piece.

Owns the `background_music` engine: `brief` reads the prompt, `score` composes, `performance` adds the human
touch, `studio` plays, mixes and masters, `production` leads. Promises the same sound for the same prompt,
duration and seed. It is a composer with a synthesizer, not a neural model, and says so in `engine`. Leaves
files and formats to whoever called.
"""

from app.engines.music.production import render

__all__ = ["render"]
