"""When two jobs are the same work: a digest of all that a result depends on.

Sound is stored once by its content, so the id of an asset stands for its bytes while it is there. Results are
used again within one tenant only, and only where the kind is a part of a family or one itself: elsewhere two
equal requests are two pieces of work, as two equal prompts without a seed are.
"""

from __future__ import annotations

import hashlib
import json

from app.kinds import KINDS
from db.tables import Job

_PARTS = frozenset(part.kind for kind in KINDS.values() if kind.family for part in kind.family.parts)


def recipe_of(job: Job) -> str | None:
    """The recipe of a job whose input names its files as assets; None where its result is not used again."""
    kind = KINDS.get(job.kind)
    family = kind.family if kind else None
    if family is None and job.kind not in _PARTS:
        return None
    ignored = family.ignored if family else ()
    told = {name: value for name, value in job.input.items() if name not in ignored}
    spelled = json.dumps([job.kind, job.provider, told], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(spelled.encode(), digest_size=16).hexdigest()


def is_family(kind: str) -> bool:
    """Whether the work of such a job is other jobs."""
    found = KINDS.get(kind)
    return found is not None and found.family is not None
