"""Sound effects made from words: the `sound_effect` engine.

Owns: `render`, the only door. Promises: the asked-for frames at 44.1 kHz stereo, the same samples for the
same arguments, levels fit to publish. Leaves to others: trimming, encoding and storing (`app.finish`).

Reading order: `engine` (the line), `prompts` (words to families), `families/` (the recipes), then the
workshop the recipes share: `take`, `filters`, `oscillators`, `grains`, `spaces`, `mastering`.
"""

from __future__ import annotations

from app.engines.effects.engine import render

__all__ = ["render"]
