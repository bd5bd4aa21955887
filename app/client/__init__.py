"""The Python client: what a pipeline imports to ask a Reprise service for sound, and to wait for it.

    from app.client import Reprise

    with Reprise("http://127.0.0.1:8000") as reprise:
        reprise.sound_effect("heavy rain on a tin roof", duration_s=6).save("rain.flac")

`Reprise` blocks, `AsyncReprise` is awaited; they have the same names. Where to read on:

    client       the two clients, in `aio`; `blocking` is made of it by scripts/make-client, but for `waits`
    calls        what is asked, as values        models     what is answered; `ledger`, `voices`, too
    karaoke      both of these, for lyrics and performances
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
    InvalidQuery,
    JobCanceled,
    JobFailed,
    NotFound,
    RateLimited,
    RecoveryTimedOut,
    RepriseError,
    ServiceFailed,
    TimedOut,
    Unauthenticated,
    Unavailable,
    UnderWay,
    UnexpectedAnswer,
)
from app.client.karaoke.lyrics import Lyrics, LyricsFacts, LyricsVersion
from app.client.karaoke.performances import Performance, PerformanceFacts, RemoteToken, Singer, Singers
from app.client.ledger import (
    AnnouncementDetail,
    AnnouncementFacts,
    Delivery,
    DeliveryDetail,
    Plan,
    Receipt,
    Recovery,
    RecoveryItem,
)
from app.client.models import (
    Asset,
    Attempt,
    Child,
    Cost,
    CostGroup,
    CostReport,
    Event,
    FeedEvent,
    FeedReset,
    Forecast,
    Page,
    Step,
    Upload,
)
from app.client.voices import Voice

__all__ = [
    "AnnouncementDetail",
    "AnnouncementFacts",
    "Asset",
    "AsyncJob",
    "AsyncOutput",
    "AsyncReprise",
    "Attempt",
    "BudgetExceeded",
    "Child",
    "Conflict",
    "Cost",
    "CostGroup",
    "CostReport",
    "Delivery",
    "DeliveryDetail",
    "DownloadDamaged",
    "Event",
    "FeedEvent",
    "FeedReset",
    "Forbidden",
    "Forecast",
    "Gone",
    "InvalidInput",
    "InvalidQuery",
    "Job",
    "JobCanceled",
    "JobFailed",
    "Lyrics",
    "LyricsFacts",
    "LyricsVersion",
    "NotFound",
    "Output",
    "Page",
    "Performance",
    "PerformanceFacts",
    "Plan",
    "RateLimited",
    "Receipt",
    "Recovery",
    "RecoveryItem",
    "RecoveryTimedOut",
    "RemoteToken",
    "Reprise",
    "RepriseError",
    "ServiceFailed",
    "Singer",
    "Singers",
    "Step",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "UnderWay",
    "UnexpectedAnswer",
    "Upload",
    "Voice",
]
