"""Every error that Reprise raises on purpose, in one tree.

    AppError                       raised by us, always `from` the cause
    ├── RequestError               the caller can fix it
    │     InvalidInput · InvalidQuery · Unauthenticated · Forbidden · LinkExpired · NotFound · Gone
    │     ChecksumMismatch · Conflict · TooLarge · BudgetExceeded · RateLimited · MethodNotAllowed
    ├── TransientError             the same call may work later
    │     ProviderUnavailable · ProviderThrottled · ProviderBusy · StorageUnavailable · Overloaded
    │     Stopping
    └── PermanentError             it never will
          ProviderRejected · ProviderBadResponse · PredictionUnknown · AudioRejected
          OutputRejected · OutputExpired · EngineUnavailable · VoiceGone · StartupError

Foreign exceptions are translated into these at the ports and nowhere else. `code` is stable: it is
what problem+json, job errors, logs and metrics carry. The message is for people and may change.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class AppError(Exception):
    """The root: a sentence for people, a stable `code` for machines."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(AppError):
    """The caller can fix it. `status` is the HTTP status that says so."""

    code = "bad_request"
    status: ClassVar[int] = 400


class InvalidInput(RequestError):
    """A value is wrong; `field` is its path in the request, such as `input.duration_s`."""

    code = "invalid_input"
    status = 422

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidQuery(RequestError):
    """A search cannot be read; `column` counts its characters from 1, `expected` says what would do there."""

    code = "invalid_query"

    def __init__(self, message: str, *, column: int, expected: str) -> None:
        super().__init__(f"{message} at column {column}; expected {expected}")
        self.column = column
        self.expected = expected


class Unauthenticated(RequestError):
    """No proof of identity, or one that does not hold. The text never says which check failed."""

    code = "unauthenticated"
    status = 401


class Forbidden(RequestError):
    """The identity is known and may not do this."""

    code = "forbidden"
    status = 403


class LinkExpired(Forbidden):
    """The link was signed here and its time is over: ask for the job or the asset again for a fresh one."""

    code = "link_expired"


class NotFound(RequestError):
    """There is no such row, or none that this caller may see."""

    code = "not_found"
    status = 404


class Gone(RequestError):
    """It was there and is not any more: expired, deleted, or lost by the store."""

    code = "gone"
    status = 410


class ChecksumMismatch(RequestError):
    """The store has other bytes than those that were stored: what was promised is gone."""

    code = "checksum_mismatch"
    status = 410


class Conflict(RequestError):
    """The row is not in a state where this can be done."""

    code = "conflict"
    status = 409


class TooLarge(RequestError):
    """A body, file or header past its limit."""

    code = "too_large"
    status = 413


class BudgetExceeded(RequestError):
    """The tenant's budget for this hour, day or month is spent, or held by jobs under way."""

    code = "budget_exceeded"
    status = 402

    def __init__(self, message: str, *, facts: Mapping[str, Any], retry_after_s: float) -> None:
        super().__init__(message)
        self.facts = facts
        """`usd`, `per`, `spent_usd`, `reserved_usd`, `resets_at`."""
        self.retry_after_s = retry_after_s


class RateLimited(RequestError):
    """The caller has asked more often than `RATE_LIMITS` allows; `retry_after_s` says when to ask again."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class MethodNotAllowed(RequestError):
    """The path is right, the method is not; `Allow` names those that are."""

    code = "method_not_allowed"
    status = 405


class TransientError(AppError):
    """The same call may work later; `retry_after_s` is how long the other side asked us to wait."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ProviderUnavailable(TransientError):
    """The provider did not answer, answered 5xx, or throttled us.

    `ambiguous` is true when a create may have been carried out although no answer came back: such a
    create must be looked for before it is repeated.
    """

    code = "provider_unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None, ambiguous: bool = False) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.ambiguous = ambiguous


class ProviderThrottled(ProviderUnavailable):
    """The provider answered 429: it is well, and we ask more often than it allows."""

    code = "provider_throttled"


class ProviderBusy(TransientError):
    """The provider is well and has no free slot: nothing was created, ask again later."""

    code = "provider_busy"


class StorageUnavailable(TransientError):
    """The database or the object store cannot be written or read now."""

    code = "storage_unavailable"


class Overloaded(TransientError):
    """A queue of ours is full, or longer than a job's deadline: refused before anything was stored."""

    code = "overloaded"


class Stopping(TransientError):
    """This process is about to stop and takes no new work; another one does, or the next."""

    code = "stopping"


class PermanentError(AppError):
    """It never will work, however often it is tried."""

    code = "failed"


class ProviderRejected(PermanentError):
    """The provider refused the request itself: input, credit, credentials or model.

    `status` is the provider's HTTP status; `invalid_fields` is its list of `{field, description}`.
    """

    code = "provider_rejected"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        invalid_fields: tuple[dict[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.invalid_fields = invalid_fields


class ProviderBadResponse(PermanentError):
    """The provider answered with something that is not a prediction. `raw` is the body, cut."""

    code = "provider_bad_response"

    def __init__(self, message: str, *, raw: bytes = b"") -> None:
        super().__init__(message)
        self.raw = raw


class PredictionUnknown(PermanentError):
    """The provider has no such prediction, or has no way to be asked about it."""

    code = "prediction_unknown"


class AudioRejected(PermanentError):
    """The bytes are not usable audio: no audio stream, all silence, past a limit, not media at all."""

    code = "audio_rejected"


class OutputRejected(PermanentError):
    """The output's address or transfer breaks a rule: scheme, host, address, redirect, size."""

    code = "output_rejected"


class OutputExpired(PermanentError):
    """The provider has deleted the output; only another prediction can bring it back."""

    code = "output_expired"


class EngineUnavailable(PermanentError):
    """No engine on this machine can do it; the message names what to configure."""

    code = "engine_unavailable"


class VoiceGone(PermanentError):
    """The voice that the job was to have was deleted while the job waited: ask again with another."""

    code = "voice_gone"


class StartupError(PermanentError):
    """The process cannot start; the message is one line that names the setting at fault."""

    code = "startup"
