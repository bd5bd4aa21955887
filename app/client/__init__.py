"""The Python client: what a pipeline imports to ask a Reprise service for sound, and to wait for it.

    from app.client import Reprise

    with Reprise("http://127.0.0.1:8000") as reprise:
        reprise.sound_effect("heavy rain on a tin roof", duration_s=6).save("rain.flac")

`Reprise` blocks, `AsyncReprise` is awaited; they have the same names. Where to read on:

    client       the two clients, in `aio`; `blocking` is made of it by scripts/make-client, but for `waits`
    calls        what is asked, as values        models     what is answered, as values
    errors       everything that may go wrong    patience   when a call is repeated, and for how long
    streams      server-sent events, multipart   downloads  a file that arrives, proven
    webhooks     proving announcements at their receiver

Promises: a call that is repeated makes one job; what is saved is whole and proven or is not there; a key is
in no error, representation or log line. Imports nothing of the service, so it could be shipped alone.
"""

from app.client.aio.client import AsyncReprise
from app.client.aio.shown import AsyncJob, AsyncOutput
from app.client.blocking.client import Reprise
from app.client.blocking.shown import Job, Output
from app.client.errors import (
    BudgetExceeded,
    Conflict,
    DownloadDamaged,
    Forbidden,
    Gone,
    InvalidInput,
    JobCanceled,
    JobFailed,
    NotFound,
    RateLimited,
    RepriseError,
    ServiceFailed,
    TimedOut,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
)
from app.client.models import (
    Asset,
    Attempt,
    Cost,
    CostGroup,
    CostReport,
    Delivery,
    DeliveryDetail,
    Event,
    Forecast,
    Page,
    Receipt,
    Recovery,
    Upload,
)

__all__ = [
    "Asset",
    "AsyncJob",
    "AsyncOutput",
    "AsyncReprise",
    "Attempt",
    "BudgetExceeded",
    "Conflict",
    "Cost",
    "CostGroup",
    "CostReport",
    "Delivery",
    "DeliveryDetail",
    "DownloadDamaged",
    "Event",
    "Forbidden",
    "Forecast",
    "Gone",
    "InvalidInput",
    "Job",
    "JobCanceled",
    "JobFailed",
    "NotFound",
    "Output",
    "Page",
    "RateLimited",
    "Receipt",
    "Recovery",
    "Reprise",
    "RepriseError",
    "ServiceFailed",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "UnexpectedAnswer",
    "Upload",
]
