"""The client: one service, one key, and a method a job kind for what is asked for most.

The signatures of those methods are the kinds' own inputs; a test holds them against the service's models.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, Unpack

from app.client import calls
from app.client.aio import following
from app.client.aio.files import AsyncUploads
from app.client.aio.jobs import AsyncJobs
from app.client.aio.ledger import AsyncAnnouncements, AsyncCosts, AsyncDeliveries
from app.client.aio.lyrics import AsyncLyricsBook
from app.client.aio.performances import AsyncPerformances
from app.client.aio.recoveries import AsyncRecoveries
from app.client.aio.shown import WAIT_S, AsyncJob
from app.client.aio.transport import AsyncTransport
from app.client.aio.voices import AsyncVoices
from app.client.calls import Options
from app.client.models import Asset, FeedEvent, FeedReset, Forecast, OutputFacts, Upload, parse

Sound = str | Path | BinaryIO | Upload | OutputFacts
"""An input that is a file: a path or an open file, which is uploaded first; an upload; an output of a job; or
the id of one of those two."""
_STORED = re.compile(r"(upl|ast)_[0-9a-f]{32}", re.ASCII)


class AsyncReprise:
    """A Reprise service. Holds connections: close it, or use it as a context manager.

    Raises InvalidInput for an address or key that cannot be one; nothing is asked before the first call.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retry_for_s: float = 60.0,
    ) -> None:
        """`base_url` and `api_key` are else those of REPRISE_URL and REPRISE_API_KEY, and the service of this
        machine. `timeout_s` limits each connection, and each silence of the service; `retry_for_s` how long
        a call that fails for now is tried, at most three times more."""
        self._transport = AsyncTransport(
            base_url=calls.address(base_url),
            api_key=calls.key(api_key),
            timeout_s=timeout_s,
            retry_for_s=retry_for_s,
        )
        self.jobs = AsyncJobs(self._transport)
        self.uploads = AsyncUploads(self._transport)
        self.voices = AsyncVoices(self._transport, self.uploads)
        self.lyrics = AsyncLyricsBook(self._transport)
        self.performances = AsyncPerformances(self._transport)
        self.deliveries = AsyncDeliveries(self._transport)
        self.recoveries = AsyncRecoveries(self._transport)
        self.announcements = AsyncAnnouncements(self._transport)
        self.costs = AsyncCosts(self._transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport.base_url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def forecast(
        self,
        kind: str,
        input: Mapping[str, Any],  # noqa: A002 - the word of the API
        *,
        provider: str | None = None,
        deadline_s: float | None = None,
        priority: int | None = None,
    ) -> Forecast:
        """Where a job would run, why, how soon and for how much; nothing is stored."""
        call = calls.forecast(kind, input, provider=provider, deadline_s=deadline_s, priority=priority)
        return parse(Forecast, await self._transport.ask(call))

    def events(
        self,
        *,
        after: int | None = None,
        since: datetime | None = None,
        kind: str | None = None,
        type: str | None = None,  # noqa: A002 - the word of the API
        state: str | None = None,
        job_id: str | None = None,
    ) -> AsyncGenerator[FeedEvent | FeedReset, None]:
        """All events of all your jobs as they happen, without an end: each once, over cut connections.

        They begin after the position `after`, with those of the time `since`, or from now on. A `FeedReset`
        among them says that some were deleted before they were read.
        """
        return following.follow_feed(
            self._transport, after, since=since, kind=kind, type=type, state=state, job_id=job_id
        )

    async def asset(self, asset_id: str) -> Asset:
        """What is known of a stored file. Raises NotFound, Gone."""
        return parse(Asset, await self._transport.ask(calls.get_asset(asset_id)))

    async def sound_effect(
        self,
        prompt: str,
        *,
        duration_s: float = 5.0,
        seed: int | None = None,
        loop: bool = False,
        trim_silence: bool = True,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """A sound effect, made: the job once it has succeeded, with the output `audio`. As the methods below
        it raises JobFailed, JobCanceled, TimedOut and every other RepriseError."""
        given = {"duration_s": duration_s, "seed": seed, "loop": loop, "trim_silence": trim_silence}
        return await self._make("sound_effect", {"prompt": prompt, **given}, options)

    async def background_music(
        self, prompt: str, *, duration_s: float = 30.0, seed: int | None = None, **options: Unpack[Options]
    ) -> AsyncJob:
        """A piece of music; output `audio`."""
        return await self._make(
            "background_music", {"prompt": prompt, "duration_s": duration_s, "seed": seed}, options
        )

    async def speech(
        self,
        text: str,
        *,
        language: str = "en",
        voice: str | None = None,
        speed: float = 1.0,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """A text, spoken; output `audio`."""
        given = {"text": text, "language": language, "voice": voice, "speed": speed}
        return await self._make("speech", given, options)

    async def transcription(
        self, audio: Sound, *, language: str | None = None, **options: Unpack[Options]
    ) -> AsyncJob:
        """What is said in a recording; outputs `transcript` (JSON) and `subtitles` (SRT)."""
        given = {"audio": await self._stored(audio), "language": language}
        return await self._make("transcription", given, options)

    async def translation(
        self,
        text: str | None = None,
        *,
        source: str,
        target: str,
        segments: Sequence[Mapping[str, Any]] | None = None,
        allow_poorer: bool = False,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """A text, or timed segments, in another language; output `text` (JSON)."""
        given = {"text": text, "source": source, "target": target, "allow_poorer": allow_poorer}
        timed = None if segments is None else [dict(segment) for segment in segments]
        return await self._make("translation", {**given, "segments": timed}, options)

    async def stem_separation(self, audio: Sound, **options: Unpack[Options]) -> AsyncJob:
        """A song in its parts; outputs `vocals` and `instrumental`."""
        return await self._make("stem_separation", {"audio": await self._stored(audio)}, options)

    async def voice_transfer(
        self,
        audio: Sound,
        *,
        voice_id: str,
        pitch_shift: int = 0,
        strength: float = 0.5,
        transpose: str = "octaves",
        **options: Unpack[Options],
    ) -> AsyncJob:
        """A voice alone, with the timbre and pitch of one of your voices; output `audio`."""
        given = {"voice_id": voice_id, "pitch_shift": pitch_shift}
        given |= {"strength": strength, "transpose": transpose}
        return await self._make("voice_transfer", {"audio": await self._stored(audio), **given}, options)

    async def voice_conversion(
        self,
        audio: Sound,
        *,
        voice_id: str,
        pitch_shift: int = 0,
        strength: float = 0.5,
        vocal_volume: float = 1.0,
        instrumental_volume: float = 0.9,
        return_stems: bool = False,
        **options: Unpack[Options],
    ) -> AsyncJob:
        """A song in another voice; output `audio`, with `return_stems` also `vocals` and `instrumental`."""
        given = {"audio": await self._stored(audio), "voice_id": voice_id, "pitch_shift": pitch_shift}
        volumes = {"vocal_volume": vocal_volume, "instrumental_volume": instrumental_volume}
        more = {"strength": strength, "return_stems": return_stems}
        return await self._make("voice_conversion", {**given, **volumes, **more}, options)

    async def _make(self, kind: str, given: Mapping[str, Any], options: Options) -> AsyncJob:
        timeout_s = options.get("timeout_s", WAIT_S)
        job = await self.jobs.create(
            kind,
            {name: value for name, value in given.items() if value is not None},
            metadata=options.get("metadata"),
            provider=options.get("provider"),
            deadline_s=options.get("deadline_s"),
            priority=options.get("priority"),
            callback_url=options.get("callback_url"),
            retention_s=options.get("retention_s"),
            idempotency_key=options.get("idempotency_key"),
        )
        return await job.wait(timeout_s)

    async def _stored(self, sound: Sound) -> str:
        """The id of a file at the service."""
        if isinstance(sound, Upload):
            return sound.upload_id
        if isinstance(sound, OutputFacts):
            return sound.asset_id
        if isinstance(sound, str) and _STORED.fullmatch(sound):
            return sound
        return (await self.uploads.create(sound)).upload_id
