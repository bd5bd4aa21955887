"""What an error of the database means for whoever met it: pure, and the only place that reads error codes.

Three questions decide what may be done next: was it a fault of ours, is anything of the transaction
committed, and can the connection (or its pool) still be trusted. Foreign exceptions go in; a `Fault` or an
exception of ours comes out. Who runs the work again is `db.session.Database.transact`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError


class DatabaseUnavailable(Exception):
    """The database did not answer, is read-only, locked past its limit, full, or has no free connection."""


class Conflicted(DatabaseUnavailable):
    """The database took the transaction back because of what ran beside it: nothing of it is committed."""


class ConnectionLost(DatabaseUnavailable):
    """The connection broke before COMMIT was sent: nothing is committed."""


class CommitUnknown(DatabaseUnavailable):
    """The connection broke after COMMIT was sent: it may be committed or not, and only the rows can tell."""


class Fault(StrEnum):
    """What an exception says about the database."""

    OURS = "ours"
    """A statement that breaks a constraint or is wrong: no other try would go better."""
    CONFLICT = "conflict"
    """Rolled back for the sake of another transaction, or because a prepared statement had gone stale."""
    GONE = "gone"
    """This server does not serve us any more: broken, going down, or no longer the primary."""
    SILENT = "silent"
    """No answer within the client's own limit, when a living server would have ended the statement itself."""
    AWAY = "away"
    """It cannot be done now: locked, full, past a limit."""


_CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the server has rolled back."""
_STALE = frozenset({"InvalidCachedStatementError", "OutdatedSchemaCacheError"})
"""The driver's names for a plan or a type that a migration changed under it; by now it has forgotten it."""
_LEAVING = frozenset({"25006", "57P01", "57P02", "57P03"})
"""Read-only, or going down or coming up: after a failover, the pool's connections lead to the old primary."""
_COMING_UP = "57P03"
_CONNECTION_CLASS = "08"
_MYSQL = {
    # A deadlock; and a lock that was not given back, after which the server takes back only the statement,
    # and whoever left the transaction's block the rest.
    **dict.fromkeys((1205, 1213), Fault.CONFLICT),
    # Read-only, going down, gone away, lost, no longer in order.
    **dict.fromkeys((1053, 1290, 1792, 1836, 1927, 2006, 2013, 2014, 2055), Fault.GONE),
}
"""By the numbers of MySQL's server and client: the SQLSTATE of most of them says nothing (HY000)."""


def fault_of(error: BaseException) -> Fault | None:
    """What this exception says of the database; None when it is not about the database at all."""
    if not isinstance(error, (DBAPIError, DatabaseUnavailable, OSError)) and not _is_driver(error):
        return None
    causes = list(_causes(error))
    if (known := next(filter(None, map(_mysql_fault, causes)), None)) is not None:
        return known
    names = {type(cause).__name__ for cause in causes}
    states = {str(state) for cause in causes if (state := getattr(cause, "sqlstate", None))}
    if states & _CONFLICTS or names & _STALE:
        return Fault.CONFLICT
    if states & _LEAVING or any(state.startswith(_CONNECTION_CLASS) for state in states):
        return Fault.GONE
    if isinstance(error, (IntegrityError, ProgrammingError)):
        return Fault.OURS
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return Fault.SILENT
    return Fault.GONE if any(_is_broken(cause) for cause in causes) else Fault.AWAY


def is_coming_up(error: BaseException) -> bool:
    """Whether the server said that it is starting, or recovering from its log."""
    return any(getattr(cause, "sqlstate", None) == _COMING_UP for cause in _causes(error))


def unavailable(error: BaseException, fault: Fault, *, committing: bool) -> DatabaseUnavailable:
    """The exception of ours for it, with the first line of the driver's text: the rest may hold values."""
    origin = getattr(error, "orig", None) or error
    cause = (str(origin).splitlines() or [""])[0][:200] or type(origin).__name__
    match fault:
        case Fault.CONFLICT:
            return Conflicted(cause)
        case Fault.GONE:
            return (CommitUnknown if committing else ConnectionLost)(cause)
        case Fault.SILENT if committing:
            return CommitUnknown(cause)
        case Fault.SILENT | Fault.AWAY | Fault.OURS:
            return DatabaseUnavailable(cause)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those of the driver that it stands for."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = getattr(following, "orig", None) or following.__cause__


def _is_broken(cause: BaseException) -> bool:
    if isinstance(cause, DBAPIError):
        return cause.connection_invalidated
    if _is_driver(cause):
        return type(cause).__name__ in {"InterfaceError", "InternalClientError"}
    return isinstance(cause, ConnectionError)


def _mysql_fault(cause: BaseException) -> Fault | None:
    if not type(cause).__module__.startswith("asyncmy."):
        return None
    return _MYSQL.get(cause.args[0]) if cause.args else None


def _is_driver(error: BaseException) -> bool:
    """By name: no driver of a server is installed where the database is a file."""
    return type(error).__module__.startswith(("asyncpg.", "asyncmy."))
