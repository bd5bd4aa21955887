"""The studio: from a score to sound.

`stems` plays (with `bank` for the pianos), `mix` balances, `hall` resounds, `mastering` finishes.

Owns all audio of this engine; promises float32 at 44.1 kHz; leaves which notes to `score`.
"""

SAMPLE_RATE = 44_100
