"""Who calls: the tenant whose rows they see, and the scopes that say what they may do there.

Pure. A tenant sees its own rows and no others; what belongs to somebody else is answered as what is not
there. Which key proves which caller is told elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DEFAULT_TENANT = "default"


class Scope(StrEnum):
    """What a key allows. `admin` allows everything within its tenant, and to make and end keys."""

    JOBS_WRITE = "jobs:write"
    JOBS_READ = "jobs:read"
    DELIVERIES_REPLAY = "deliveries:replay"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    """None in an open house: no key has been made yet, and only this machine can call."""
    request_id: str | None = None
    """The request that this caller sent; for the audit log."""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def sees_strays(self) -> bool:
        """Whether news that belongs to no job is shown: it may be anybody's, so to the operator alone."""
        return self.tenant == DEFAULT_TENANT and Scope.ADMIN in self.scopes


OPEN_HOUSE = Caller(DEFAULT_TENANT, frozenset(Scope))
"""Anybody, while there are no keys."""
