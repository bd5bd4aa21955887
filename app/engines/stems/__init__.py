"""A song in two: the `stem_separation` engine, Spleeter's 2-stem networks run by onnxruntime.

Owns `separate`, the only door. Promises stems at 44.1 kHz stereo that are as long as the mix and add up to it
sample for sample; memory does not grow with the file. Reading order: `engine` (the line), `spectrum` (blocks
to spectra and back), `network` (the graph), `checkpoint` (where its weights come from).
"""

from __future__ import annotations

from app.engines.stems.engine import separate

__all__ = ["separate"]
