"""The composing rooms: from a brief to a score. Start at `composition`.

Owns everything that is music theory; promises scores that are plain values; leaves sound to `studio`.
"""
