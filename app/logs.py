"""Logs: one line an event, for people or as JSON, with ids bound and secrets never.

Other rooms call `structlog.get_logger()` and write `log.info("delivery.applied", delivery_id=…)`.
Audio, transcripts, signed URLs and tokens are not logged; what slips through by key or by shape is
replaced here, in the last step before the line is written.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import suppress
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

_SECRET_KEYS = re.compile(r"(token|secret|authorization|signature|password|api_key|cookie)", re.IGNORECASE)
_SECRET_SHAPES = re.compile(
    r"(?i)"
    r"(whsec_[A-Za-z0-9+/=]{8,}|r8_[A-Za-z0-9]{8,}|rp_[a-z0-9]{10}_[A-Za-z0-9_-]+"
    r"|(?<=[?&]token=)[^&\s\"']+|(?<=[?&]sig=)[^&\s\"']+|(?<=signature=)[^&\s\"']+"
    r"|(?<=security-token=)[^&\s\"']+|(?<=credential=)[^&\s\"']+"
    r"|(?<=Bearer )\S+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?<=base64,)[A-Za-z0-9+/=]{64,})"
)
REDACTED = "[redacted]"


def configure_logs(log_format: Literal["console", "json"], level: str) -> None:
    """Set the process's logging up; called once by the process's entry, never by a library room."""
    timestamper = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        timestamper,
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    _adopt_standard_logging(shared, renderer, level)


class _Lossy:
    """A stream that drops what cannot be written: a full disk under the log must not end a step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        with suppress(OSError):
            self._stream.write(line)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values that are secret by their key or by their shape."""
    for key, value in event.items():
        event[key] = REDACTED if _SECRET_KEYS.search(key) else _cleaned(value)
    return event


def _cleaned(value: object) -> object:
    match value:
        case str():
            return _SECRET_SHAPES.sub(REDACTED, value)
        case dict():
            return {
                key: REDACTED if _SECRET_KEYS.search(str(key)) else _cleaned(inner)
                for key, inner in value.items()
            }
        case list() | tuple():
            return [_cleaned(inner) for inner in value]
        case _:
            return value


def _adopt_standard_logging(
    shared: list[structlog.typing.Processor], renderer: structlog.typing.Processor, level: str
) -> None:
    # Libraries log through `logging`; they pass the same processors, so the same redaction.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in (
        "httpx",
        "httpcore",
        "uvicorn.access",
        "uvicorn.error",
        "pgqueuer",
        "aiosqlite",
        "sse_starlette",
        "alembic",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It repeats the server's remarks, which may hold values; what matters comes as an exception too.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
