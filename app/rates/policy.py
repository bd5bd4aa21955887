"""What `RATE_LIMITS` says: for each budget, how many requests in how long. Pure.

A budget is what a key's scope is for: `jobs:write` (whatever makes or changes something), `jobs:read`, and
`deliveries:replay` (replays and recoveries, each of which may move thousands of rows).
"""

from __future__ import annotations

import re

from limits import RateLimitItem, parse

from app.access.callers import Scope

Policy = dict[Scope, RateLimitItem]

BUDGETS = (Scope.JOBS_WRITE, Scope.JOBS_READ, Scope.DELIVERIES_REPLAY)
NONE = "none"

_LIMIT = re.compile(r"[1-9]\d{0,8}/([1-9]\d{0,4})?(second|minute|hour|day)")
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_REPLAYING = ("/v1/recoveries", "/v1/replays")


def read_policy(text: str) -> Policy:
    """`jobs:write=600/minute,jobs:read=6000/minute` as a table; `none` is an empty one. Raises ValueError."""
    policy: Policy = {}
    if text.strip() == NONE:
        return policy
    for item in text.replace(",", " ").split():
        name, _, limit = item.partition("=")
        if name not in {each.value for each in BUDGETS}:
            raise ValueError(f"{name}: no budget; there are {', '.join(BUDGETS)}")
        if Scope(name) in policy:
            raise ValueError(f"{name}: given twice")
        if not _LIMIT.fullmatch(limit):
            raise ValueError(f"{item}: use NAME=COUNT/minute, or second, hour, day")
        policy[Scope(name)] = parse(limit)
    return policy


def budget_of(method: str, path: str) -> Scope | None:
    """The budget that a request is counted in; None for what is not counted: health, documents, webhooks."""
    if not path.startswith(("/v1/", "/api/v1/")) or path.startswith("/v1/webhooks/"):
        return None
    if method in _READING:
        return Scope.JOBS_READ
    if path.startswith(_REPLAYING) or path.endswith("/replay"):
        return Scope.DELIVERIES_REPLAY
    return Scope.JOBS_WRITE
