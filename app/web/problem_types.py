"""Every type of problem, in one table: its code, its status, what it means, what can be done about it.

From here come the problems that are answered, the page `/docs/errors`, `docs/reference/errors.md` and the
error responses of `/openapi.json`. The types of the error tree are read off its classes, wherever they stand
(`app.errors`, a family of routes): a class with a code of its own and a docstring is a type. What no class
stands for is written out below. A code that is not here cannot be answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from app.errors import AppError, PermanentError, RequestError, TransientError

TYPE_BASE = "/docs/errors#"
"""Problem types are fragments of the page that explains them."""


class Family(StrEnum):
    """What can be done about it."""

    REQUEST = "The caller can fix it"
    TRANSIENT = "The same call may work later"
    PERMANENT = "It never will"
    OURS = "An error of ours"
    JOB = "Only in a job's `error`"


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One type. `status` is None for what only a job's `error` carries."""

    code: str
    status: int | None
    meaning: str
    family: Family

    @property
    def uri(self) -> str:
        return f"{TYPE_BASE}{self.code}"

    @property
    def title(self) -> str:
        """The same for every problem of the type, as RFC 9457 wants it."""
        return self.code.replace("_", " ").capitalize().replace("json", "JSON")


_WITHOUT_A_CLASS = (
    ProblemType(
        "internal",
        500,
        "An error of ours. The log has the rest, under the same `request_id`.",
        Family.OURS,
    ),
    ProblemType("invalid_json", 400, "The body is not JSON, or not JSON that is read here.", Family.REQUEST),
    ProblemType(
        "prediction_failed",
        None,
        "The model ran and reported a failure, or refused what was asked.",
        Family.JOB,
    ),
    ProblemType("deadline_exceeded", None, "The job's deadline passed before it ended.", Family.JOB),
    ProblemType(
        "prediction_lost",
        None,
        "The last attempt was silent past its limit, or its provider does not know it.",
        Family.JOB,
    ),
    ProblemType(
        "content_rejected",
        None,
        "The provider flagged the input or the output; asking again would not help.",
        Family.JOB,
    ),
    ProblemType(
        "poisoned",
        None,
        "Finishing the job ended the process more often than `MAX_CRASHES` allows.",
        Family.JOB,
    ),
)


def problem_types() -> dict[str, ProblemType]:
    """Every type by its code, in the order of the families; of the classes that are imported by now."""
    found = {each.code: each for each in _WITHOUT_A_CLASS if each.family is Family.OURS}
    found |= {each.code: each for each in _WITHOUT_A_CLASS if each.family is Family.REQUEST}
    for root, family in _ROOTS.items():
        for kind in (root, *_below(root)):
            # Of several classes with one code, the first tells: the others are its special cases.
            if "code" in vars(kind) and kind.code not in found:
                found[kind.code] = ProblemType(kind.code, status_of(kind), _meaning_of(kind), family)
    return found | {each.code: each for each in _WITHOUT_A_CLASS if each.family is Family.JOB}


@cache
def problem_type(code: str) -> ProblemType:
    """The type with this code. Raises KeyError: nothing may be answered that is not in the table."""
    return problem_types()[code]


def status_of(kind: type[AppError]) -> int:
    """The status of an error of the tree where it ends a request."""
    if issubclass(kind, RequestError):
        return kind.status
    if issubclass(kind, TransientError):
        return 503
    return 502 if issubclass(kind, PermanentError) else 500


_ROOTS: dict[type[AppError], Family] = {
    RequestError: Family.REQUEST,
    TransientError: Family.TRANSIENT,
    PermanentError: Family.PERMANENT,
}


def _below(kind: type[AppError]) -> Iterator[type[AppError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _meaning_of(kind: type[AppError]) -> str:
    return " ".join((kind.__doc__ or "").strip().split("\n\n")[0].split())
