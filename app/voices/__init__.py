"""Voice profiles: made from a recording that is good enough, listed, renamed, deleted, taken along.

`registry` has the verbs, `examiner` has a recording measured, `judging` says what is good enough, `likeness`
which voices are the same, `notes` what a pitch is called.
"""

from app.voices.registry import Made, Voices

__all__ = ["Made", "Voices"]
