"""The client: one service, one key, and a method a job kind for what is asked for most.

The signatures of those methods are the kinds' own inputs; a test holds them against the service's models.
"""

# Made from app/client/aio by scripts/make-client. Change it there and run that again.

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, Unpack

from app.client import calls
from app.client.blocking import following
from app.client.blocking.files import Uploads
from app.client.blocking.jobs import Jobs
from app.client.blocking.ledger import Announcements, Costs, Deliveries
from app.client.blocking.lyrics import LyricsBook
from app.client.blocking.performances import Performances
from app.client.blocking.recoveries import Recoveries
from app.client.blocking.shown import WAIT_S, Job
from app.client.blocking.transport import Transport
from app.client.blocking.voices import Voices
from app.client.calls import Options
from app.client.models import Asset, FeedEvent, FeedReset, Forecast, OutputFacts, Upload, parse

Sound = str | Path | BinaryIO | Upload | OutputFacts
"""An input that is a file: a path or an open file, which is uploaded first; an upload; an output of a job; or
the id of one of those two."""
_STORED = re.compile(r"(upl|ast)_[0-9a-f]{32}", re.ASCII)


class Reprise:
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
        self._transport = Transport(
            base_url=calls.address(base_url),
            api_key=calls.key(api_key),
            timeout_s=timeout_s,
            retry_for_s=retry_for_s,
        )
        self.jobs = Jobs(self._transport)
        self.uploads = Uploads(self._transport)
        self.voices = Voices(self._transport, self.uploads)
        self.lyrics = LyricsBook(self._transport)
        self.performances = Performances(self._transport)
        self.deliveries = Deliveries(self._transport)
        self.recoveries = Recoveries(self._transport)
        self.announcements = Announcements(self._transport)
        self.costs = Costs(self._transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def forecast(
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
        return parse(Forecast, self._transport.ask(call))

    def events(
        self,
        *,
        after: int | None = None,
        since: datetime | None = None,
        kind: str | None = None,
        type: str | None = None,  # noqa: A002 - the word of the API
        state: str | None = None,
        job_id: str | None = None,
    ) -> Generator[FeedEvent | FeedReset, None, None]:
        """All events of all your jobs as they happen, without an end: each once, over cut connections.

        They begin after the position `after`, with those of the time `since`, or from now on. A `FeedReset`
        among them says that some were deleted before they were read.
        """
        return following.follow_feed(
            self._transport, after, since=since, kind=kind, type=type, state=state, job_id=job_id
        )

    def asset(self, asset_id: str) -> Asset:
        """What is known of a stored file. Raises NotFound, Gone."""
        return parse(Asset, self._transport.ask(calls.get_asset(asset_id)))

    def sound_effect(
        self,
        prompt: str,
        *,
        duration_s: float = 5.0,
        seed: int | None = None,
        loop: bool = False,
        trim_silence: bool = True,
        **options: Unpack[Options],
    ) -> Job:
        """A sound effect, made: the job once it has succeeded, with the output `audio`. As the methods below
        it raises JobFailed, JobCanceled, TimedOut and every other RepriseError."""
        given = {"duration_s": duration_s, "seed": seed, "loop": loop, "trim_silence": trim_silence}
        return self._make("sound_effect", {"prompt": prompt, **given}, options)

    def background_music(
        self, prompt: str, *, duration_s: float = 30.0, seed: int | None = None, **options: Unpack[Options]
    ) -> Job:
        """A piece of music; output `audio`."""
        return self._make(
            "background_music", {"prompt": prompt, "duration_s": duration_s, "seed": seed}, options
        )

    def speech(
        self,
        text: str,
        *,
        language: str = "en",
        voice: str | None = None,
        speed: float = 1.0,
        **options: Unpack[Options],
    ) -> Job:
        """A text, spoken; output `audio`."""
        given = {"text": text, "language": language, "voice": voice, "speed": speed}
        return self._make("speech", given, options)

    def transcription(self, audio: Sound, *, language: str | None = None, **options: Unpack[Options]) -> Job:
        """What is said in a recording; outputs `transcript` (JSON) and `subtitles` (SRT)."""
        given = {"audio": self._stored(audio), "language": language}
        return self._make("transcription", given, options)

    def translation(
        self,
        text: str | None = None,
        *,
        source: str,
        target: str,
        segments: Sequence[Mapping[str, Any]] | None = None,
        allow_poorer: bool = False,
        **options: Unpack[Options],
    ) -> Job:
        """A text, or timed segments, in another language; output `text` (JSON)."""
        given = {"text": text, "source": source, "target": target, "allow_poorer": allow_poorer}
        timed = None if segments is None else [dict(segment) for segment in segments]
        return self._make("translation", {**given, "segments": timed}, options)

    def stem_separation(self, audio: Sound, **options: Unpack[Options]) -> Job:
        """A song in its parts; outputs `vocals` and `instrumental`."""
        return self._make("stem_separation", {"audio": self._stored(audio)}, options)

    def voice_transfer(
        self,
        audio: Sound,
        *,
        voice_id: str,
        pitch_shift: int = 0,
        strength: float = 0.5,
        transpose: str = "octaves",
        **options: Unpack[Options],
    ) -> Job:
        """A voice alone, with the timbre and pitch of one of your voices; output `audio`."""
        given = {"voice_id": voice_id, "pitch_shift": pitch_shift}
        given |= {"strength": strength, "transpose": transpose}
        return self._make("voice_transfer", {"audio": self._stored(audio), **given}, options)

    def voice_conversion(
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
    ) -> Job:
        """A song in another voice; output `audio`, with `return_stems` also `vocals` and `instrumental`."""
        given = {"audio": self._stored(audio), "voice_id": voice_id, "pitch_shift": pitch_shift}
        volumes = {"vocal_volume": vocal_volume, "instrumental_volume": instrumental_volume}
        more = {"strength": strength, "return_stems": return_stems}
        return self._make("voice_conversion", {**given, **volumes, **more}, options)

    def _make(self, kind: str, given: Mapping[str, Any], options: Options) -> Job:
        timeout_s = options.get("timeout_s", WAIT_S)
        job = self.jobs.create(
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
        return job.wait(timeout_s)

    def _stored(self, sound: Sound) -> str:
        """The id of a file at the service."""
        if isinstance(sound, Upload):
            return sound.upload_id
        if isinstance(sound, OutputFacts):
            return sound.asset_id
        if isinstance(sound, str) and _STORED.fullmatch(sound):
            return sound
        return (self.uploads.create(sound)).upload_id
