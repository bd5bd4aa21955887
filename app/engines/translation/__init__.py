"""Text from one language to another: the `translation` engine.

Owns `translate`, the only door. Reading order: `engine` (the line), `routes` (which engines lead from one
language to another), `sentences` (what they are given), then the two engines `bergamot` and `apertium`.
"""

from __future__ import annotations

from app.engines.translation.engine import translate

__all__ = ["translate"]
