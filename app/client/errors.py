"""Everything that may go wrong, in one tree.

    RepriseError                what any call raises
    ├── InvalidInput            the request is wrong; `field` names the value
    │     InvalidQuery            a search cannot be read; `column` says where
    ├── Unauthenticated         no key, or one that does not hold
    ├── Forbidden               the key may not do this, or a link has expired
    ├── NotFound                there is no such row of yours
    │     Gone                  there was one
    ├── Conflict                the row's state does not allow it
    │     UnderWay                the same request, by its key, has not been answered yet
    ├── RateLimited             too many requests; `retry_after_s`
    ├── BudgetExceeded          the budget is spent; `budget` says until when
    ├── Unavailable             not reached, or not able now: the same call may work later
    ├── ServiceFailed           an error of the service's; `request_id` finds it in its log
    ├── UnexpectedAnswer        the answer is none that Reprise gives
    ├── DownloadDamaged         the bytes are not those that were stored
    ├── JobFailed, JobCanceled  the job ended without outputs; `job`
    ├── TimedOut                the job has not ended in time and goes on; `job`
    └── RecoveryTimedOut        the same of a recovery; `recovery`

`code` is the service's own stable word, as its errors page has it. No message holds a key or a signed link.
"""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.client.ledger import Recovery
    from app.client.models import JobFacts


class RepriseError(Exception):
    """The root. `status` is None where no answer came."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.field = field


class InvalidInput(RepriseError):
    """The request is wrong: a value (`field` is its path), its size, its type."""


class InvalidQuery(InvalidInput):
    """A search that cannot be read."""

    column: int | None = None
    """Where in `q`; its characters count from 1."""
    expected: str = ""
    """What would do there."""


class Unauthenticated(RepriseError):
    """No key, or one that does not hold."""


class Forbidden(RepriseError):
    """The key is known and may not do this."""


class NotFound(RepriseError):
    """There is no such row, or none of yours."""


class Gone(NotFound):
    """It was there and has expired, or was deleted."""


class Conflict(RepriseError):
    """The row's state does not allow it."""


class UnderWay(Conflict):
    """The first request with this Idempotency-Key has not been answered yet, or another request writes to
    this upload: ask again when it has."""


class RateLimited(RepriseError):
    """More requests than are allowed. Nothing was done."""


class BudgetExceeded(RepriseError):
    """The budget is spent, or held by jobs under way. `budget` has its figures by name."""

    budget: Mapping[str, Any] | None = None


class Unavailable(RepriseError):
    """The service cannot be reached, or cannot do it now."""

    nothing_done = False
    """True where the request certainly never reached the service."""


class ServiceFailed(RepriseError):
    """An error of the service's that asking again would not mend."""


class UnexpectedAnswer(RepriseError):
    """The answer is none that Reprise gives: another service, or something between."""


class DownloadDamaged(RepriseError):
    """The bytes that came are not those that were stored. Nothing was left in the file's place."""


class JobFailed(RepriseError):
    """The job ended as failed; `code` and the message are its error's."""

    def __init__(self, job: JobFacts) -> None:
        error = job.error
        super().__init__(
            f"{job.kind} {job.id} failed: {error.message if error else 'no reason given'}",
            code=error.code if error else "",
        )
        self.job = job


class JobCanceled(RepriseError):
    """The job was canceled."""

    def __init__(self, job: JobFacts) -> None:
        super().__init__(f"{job.kind} {job.id} was canceled", code="canceled")
        self.job = job


class TimedOut(RepriseError):
    """The job has not ended in time. It goes on: `jobs.wait` again, or cancel it."""

    def __init__(self, job: JobFacts, timeout_s: float) -> None:
        super().__init__(
            f"{job.kind} {job.id} is {job.state} after {timeout_s:g} s and goes on", code="timed_out"
        )
        self.job = job


class RecoveryTimedOut(RepriseError):
    """The recovery has not ended in time. It goes on: `recoveries.wait` again, or abort it."""

    def __init__(self, recovery: Recovery, timeout_s: float) -> None:
        done = f"{recovery.done} of {recovery.total} done after {timeout_s:g} s"
        super().__init__(f"{recovery.id}: {done}, and goes on", code="timed_out")
        self.recovery = recovery


_BY_CODE: dict[str, type[RepriseError]] = {"invalid_query": InvalidQuery, "request_under_way": UnderWay}
_BY_CODE |= dict.fromkeys(("upload_locked", "offset_mismatch"), UnderWay)
_BY_STATUS: dict[int, type[RepriseError]] = {
    400: InvalidInput,
    401: Unauthenticated,
    402: BudgetExceeded,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: InvalidInput,
    415: InvalidInput,
    422: InvalidInput,
    429: RateLimited,
    503: Unavailable,
    504: Unavailable,
}


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> RepriseError:
    """The error that an answer says: a problem (RFC 9457), or whatever something between answered."""
    problem = _problem_of(body)
    kind = _BY_CODE.get(str(problem.get("code"))) or _BY_STATUS.get(status)
    if kind is None:
        # A 502 that tells a problem is the service's own last word; any other is a proxy's, for a while.
        passing = status == 502 and not problem
        kind = Unavailable if passing else ServiceFailed if status >= 500 else UnexpectedAnswer
    error = kind(
        str(problem.get("detail") or f"the answer was {status}")[:1000],
        code=str(problem.get("code") or ""),
        status=status,
        request_id=_text(problem.get("request_id")) or headers.get("x-request-id"),
        retry_after_s=_retry_after_s(headers.get("retry-after"), problem.get("retry_after_s")),
        field=_text(problem.get("field")),
    )
    budget = problem.get("budget")
    if isinstance(error, BudgetExceeded) and isinstance(budget, dict):
        error.budget = budget
    if isinstance(error, InvalidQuery):
        column = problem.get("column")
        error.column = column if isinstance(column, int) else None
        error.expected = _text(problem.get("expected")) or ""
    return error


def _problem_of(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and "code" in found else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _retry_after_s(header: str | None, said: object) -> float | None:
    """Seconds or a date, as RFC 9110 has it; else what the problem says."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    if text:
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            moment = None
        if moment is not None:
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return float(said) if isinstance(said, int | float) and not isinstance(said, bool) else None
