"""Turn a successful prediction into stored assets: fetch, probe, trim or check, store, end the job.

Works under a lease: a finisher that was frozen and wakes up after its time commits nothing. Promises: no
job succeeds without an object of the right bytes in the store; a clip that is silent, broken or no audio
at all is a typed failure, never an empty success; temporary files are gone when the step ends. Every
figure of a file is measured here, none is taken from the provider; what a model measured of its own work
stands apart, as its word (`Kind.figures`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from app.audio import Audio
from app.backoff import full_jitter_s, jittered
from app.crash_points import CrashPoint
from app.errors import (
    AppError,
    OutputExpired,
    ProviderBadResponse,
    StorageUnavailable,
    TransientError,
)
from app.families.joining import Joined, Joiner
from app.families.recipes import is_family
from app.intake.shelf import Described, described_sound, shelve
from app.kinds import KindInput, Sound, Text, get_kind
from app.line import Line
from app.notify import job_topic
from app.outbound import Outbound, decode_data_uri
from app.provider.base import Provider, understand
from app.storage import Storage
from app.work import Station
from app.workspace import Workspace
from db import attempts as attempt_rows
from db import jobs as job_rows
from db.assets import ObjectsDoomed, insert_asset, insert_output
from db.ids import make_id
from db.session import DatabaseUnavailable, Transaction
from db.states import JobState
from db.tables import Asset, Job

log = structlog.get_logger()

RENEWALS = 3
"""Renewals of a lease in its time: an event loop that is blocked for 5 s of the 15 still holds its leases,
also when it was about to renew them."""
MOST_APART_S = 0.1
"""How much the sounds of one job may differ in length: less than encoders pad."""
LEFT_TO_RETURN_S = 0.2
RETRY_S = 5.0
"""Pause before finishing is tried again, where nobody said how long to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The finisher's tools: the way out, the media room, the store, and room for temporary files."""

    outbound: Outbound
    audio: Audio
    storage: Storage
    workspace: Workspace


class Finisher:
    """The finish station."""

    def __init__(self, *, line: Line, providers: Mapping[str, Provider], bench: Bench) -> None:
        self._line = line
        self._providers = providers
        self._bench = bench
        self._joiner = Joiner(line=line, audio=bench.audio, storage=bench.storage)
        self._unreleased: dict[str, str] = {}
        """Leases by job that the database did not take back: no crash is to be counted for them."""

    async def due(self, tx: Transaction, now: datetime, limit: int) -> Sequence[str]:
        return await job_rows.list_due_jobs(tx, JobState.FINISHING, now=now, limit=limit)

    async def step(self, job_id: str) -> None:
        """Finish one job under a lease; nothing when it is not due or another finisher has it."""
        settings = self._line.settings
        now = self._line.clock.now()
        lease = make_id("lease")
        async with self._line.database.transaction() as tx:
            if job_id in self._unreleased:
                reason = "the database was away"
                owed = self._unreleased[job_id]
                await job_rows.release_job(tx, job_id, lease=owed, run_after=now, waiting_reason=reason)
            job = await job_rows.claim_job(
                tx,
                job_id,
                JobState.FINISHING,
                lease=lease,
                by=self._line.process_id,
                now=now,
                lease_s=settings.lease_s,
            )
            result = await attempt_rows.find_result(tx, job.result_of or job_id) if job else None
        self._unreleased.pop(job_id, None)
        if job is None:
            return
        self._line.reach(CrashPoint.FINISH_CLAIMED)
        with structlog.contextvars.bound_contextvars(job_id=job.id):
            if job.crashes > settings.max_crashes:
                message = f"finishing it died {job.crashes - 1} times"
                await self._fail(job, lease, "poisoned", message)
                return
            work = asyncio.create_task(self._finish(job, lease, result))
            keeping = asyncio.create_task(self._keep(job.id, lease, work))
            try:
                await self._end_of(work)
            except DatabaseUnavailable:
                await self._let_go(job, lease, "the database was away", wait_s=RETRY_S)
                raise
            except asyncio.CancelledError:
                # The process stops: the next one may begin at once.
                await self._let_go(job, lease, "its worker stopped")
                raise
            finally:
                keeping.cancel()

    async def _end_of(self, work: asyncio.Task[None]) -> None:
        """Wait for the work; where this step is given up, for the end of what it had begun."""
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
            await asyncio.wait({work})
        if work.cancelled():
            log.info("finish.lost_race")
        else:
            work.result()

    async def _let_go(self, job: Job, lease: str, reason: str, *, wait_s: float = 0.0) -> None:
        """Something else than the step ended it: that was no crash of its own."""
        later = self._line.clock.now() + timedelta(seconds=wait_s)
        self._unreleased[job.id] = lease
        with suppress(DatabaseUnavailable):
            async with self._line.database.transaction() as tx:
                released = await job_rows.release_job(
                    tx, job.id, lease=lease, run_after=later, waiting_reason=reason
                )
                if released and not wait_s:
                    self._line.engine.enqueue(tx, Station.FINISH, job.id)
            del self._unreleased[job.id]

    async def _keep(self, job_id: str, lease: str, work: asyncio.Task[None]) -> None:
        """Renew the lease while the step lives. Who has lost it, to a cancel or to another finisher, stops:
        its commit would not find it, and its ffmpeg would work for nobody."""
        lease_s = self._line.settings.lease_s
        kept = True
        with self._line.notifier.subscribe(job_topic(job_id)) as hints:
            while kept:
                if await hints.wait(lease_s / RENEWALS):
                    # Mostly of the work's own commit. A renewal behind that would be given up within its
                    # transaction, and SQLite's one writing connection with it: to be opened anew each clip.
                    await asyncio.wait({work}, timeout=LEFT_TO_RETURN_S)
                if work.done():
                    return
                now = self._line.clock.now()
                with suppress(DatabaseUnavailable):
                    async with self._line.database.transaction() as tx:
                        kept = await job_rows.renew_lease(tx, job_id, lease=lease, now=now, lease_s=lease_s)
        # What has just committed was told of it too, and is about to return.
        await asyncio.wait({work}, timeout=LEFT_TO_RETURN_S)
        work.cancel()

    async def _finish(self, job: Job, lease: str, result: attempt_rows.Result | None) -> None:
        try:
            timings: dict[str, float] = {}
            async with asyncio.timeout(self._line.settings.finish_limit_s):
                if is_family(job.kind):
                    made = await self._join(job, timings)
                else:
                    made = await self._make(job, result, timings)
            _refuse_unequal(made.assets.values())
            await self._succeed(job, lease, made, timings)
        except ObjectsDoomed:
            # Deleted while it was being stored here: stored again at once, under another key.
            again = StorageUnavailable("its bytes were just being deleted", retry_after_s=0.1)
            await self._postpone(job, lease, again)
        except _LostRace:
            log.info("finish.lost_race")
        except OutputExpired as exc:
            await self._ask_again(job, lease, exc)
        except (TransientError, TimeoutError) as exc:
            await self._postpone(job, lease, exc)
        except AppError as exc:
            await self._fail(job, lease, exc.code, exc.message)

    async def _join(self, job: Job, timings: dict[str, float]) -> Joined:
        async with self._bench.workspace.folder() as folder:
            return await self._joiner.join(job, folder, timings)

    async def _make(self, job: Job, result: attempt_rows.Result | None, timings: dict[str, float]) -> Joined:
        provider, places, figures = await self._understand(job, result)
        async with self._bench.workspace.folder() as folder:
            assets = {
                name: await self._make_asset(job, provider, place, folder / name, timings)
                for name, place in places.items()
            }
        return Joined(assets, figures)

    async def _understand(
        self, job: Job, result: attempt_rows.Result | None
    ) -> tuple[str, dict[str, str], dict[str, float | None] | None]:
        """Whose outputs they are, where they lie and what their model measured, read from the delivery that
        brought the success."""
        if result is None:
            raise ProviderBadResponse("the delivery that brought the output is gone")
        prediction = await understand(self._providers[result.provider], result.body)
        # In a thread: a transcript of an hour is read, written anew and cut into subtitles here.
        kind, output = get_kind(job.kind), prediction.output
        places = await asyncio.to_thread(kind.find_outputs, output)
        return result.provider, places, kind.find_figures(output)

    async def _make_asset(
        self, job: Job, provider: str, place: str, stem: Path, timings: dict[str, float]
    ) -> Asset:
        kind, raw = get_kind(job.kind), stem.with_suffix(".fetched")
        recipe = kind.outputs[stem.name]
        with _timed(timings, "fetch_s"):
            await self._fetch(provider, place, raw)
        self._line.reach(CrashPoint.OUTPUT_FETCHED)
        with _timed(timings, "trim_s"):
            if isinstance(recipe, Text):
                path, described = await asyncio.to_thread(_check, recipe, raw, stem)
            else:
                wanted = kind.input_model.model_validate(job.input)
                path, described = await self._trim(recipe, wanted, raw, stem)
        self._line.reach(CrashPoint.OUTPUT_TRIMMED)
        with _timed(timings, "store_s"):
            now = self._line.clock.now()
            asset = await shelve(self._bench.storage, self._line.database, path, described, now=now)
        self._line.reach(CrashPoint.OUTPUT_STORED)
        for step, took_s in timings.items():
            self._line.metrics.step_seconds.labels(step.removesuffix("_s")).observe(took_s)
        return asset

    async def _fetch(self, provider: str, place: str, into: Path) -> None:
        settings = self._line.settings
        if place.startswith("data:"):
            await decode_data_uri(place, into, max_bytes=settings.replicate_max_file_size)
            return
        await self._bench.outbound.download(
            place,
            into,
            rules=self._providers[provider].download_rules(),
            max_bytes=settings.replicate_max_file_size,
            timeout_s=settings.replicate_download_timeout,
        )

    async def _trim(self, recipe: Sound, wanted: KindInput, raw: Path, stem: Path) -> tuple[Path, Described]:
        path = stem.with_suffix(".trimmed")
        clip = await self._bench.audio.trim(
            raw,
            path,
            threshold=self._line.settings.replicate_silence_threshold,
            trim_silence=recipe.trims_silence(wanted),
            may_be_silent=recipe.may_be_silent,
        )
        return path, described_sound(clip)

    async def _succeed(self, job: Job, lease: str, made: Joined, timings: dict[str, float]) -> None:
        now, assets = self._line.clock.now(), made.assets
        took: dict[str, Any] = {step: round(took_s, 4) for step, took_s in timings.items()}
        if made.measured is not None:
            took["measured"] = made.measured

        async def store(tx: Transaction) -> None:
            stored = {name: await insert_asset(tx, asset) for name, asset in assets.items()}
            for name, asset in stored.items():
                await insert_output(tx, job.id, name, asset.id)
            ended = await self._line.end_job(
                tx, job, JobState.SUCCEEDED, lease=lease, now=now, outputs=sorted(stored), **took
            )
            if not ended:
                # Canceled meanwhile, or our lease ran out: nothing of this may stay.
                raise _LostRace("somebody else ended the job")

        # Again after a conflict: finishers and sweeps that ask for one digest may deadlock on MySQL.
        await self._line.database.transact(store)
        self._line.reach(CrashPoint.JOB_FINISHED)
        log.info("job.succeeded", outputs=sorted(assets), **took)

    async def _ask_again(self, job: Job, lease: str, error: OutputExpired) -> None:
        """The provider has deleted the output: only another attempt brings it back."""
        now = self._line.clock.now()
        async with self._line.database.transaction() as tx:
            attempts = await attempt_rows.list_attempts(tx, job.id)
            # Who asked for an old result to be finished again did not ask for another one.
            again = (
                job.result_of is None
                and len(attempts) < self._line.settings.max_attempts
                and now < job.deadline_at
            )
            if again:
                await self._line.requeue_job(tx, job, reason=error.message, now=now, lease=lease)
        if again:
            self._line.reach(CrashPoint.OUTPUT_ASKED_AGAIN)
            return
        await self._fail(job, lease, error.code, error.message)

    async def _postpone(self, job: Job, lease: str, error: TransientError | TimeoutError) -> None:
        """What stood in the way may pass: give the lease back and come again, until the job's deadline."""
        now = self._line.clock.now()
        message = error.message if isinstance(error, TransientError) else "finishing took too long"
        log.warning("finish.postponed", reason=message)
        if now >= job.deadline_at:
            code = error.code if isinstance(error, TransientError) else StorageUnavailable.code
            await self._fail(job, lease, code, message)
            return
        hint_s = error.retry_after_s if isinstance(error, TransientError) else None
        # A store that was away is not met by all who wait for it at once.
        wait_s = jittered(RETRY_S) if hint_s is None else hint_s + full_jitter_s(1, first_s=hint_s / 2)
        async with self._line.database.transaction() as tx:
            await job_rows.release_job(
                tx,
                job.id,
                lease=lease,
                # Not past the deadline, whatever the other side asked for: the last try is made there.
                run_after=min(now + timedelta(seconds=wait_s), job.deadline_at),
                waiting_reason=message,
            )
        self._line.reach(CrashPoint.FINISH_POSTPONED)

    async def _fail(self, job: Job, lease: str, code: str, message: str) -> None:
        log.warning("job.failed", code=code, reason=message)
        async with self._line.database.transaction() as tx:
            await self._line.end_job(
                tx, job, JobState.FAILED, lease=lease, now=self._line.clock.now(), code=code, message=message
            )
        self._line.reach(CrashPoint.FINISH_FAILED)


def _refuse_unequal(assets: Iterable[Asset]) -> None:
    """Sounds of one job lie under each other. Raises ProviderBadResponse where they cannot."""
    lengths_s = [asset.duration_s for asset in assets if asset.channels]
    if lengths_s and max(lengths_s) - min(lengths_s) > MOST_APART_S:
        raise ProviderBadResponse(f"the stems last {min(lengths_s):.2f} s and {max(lengths_s):.2f} s")


def _check(recipe: Text, raw: Path, stem: Path) -> tuple[Path, Described]:
    """Write the text that is stored. Raises ProviderBadResponse, StorageUnavailable."""
    if raw.stat().st_size > recipe.most_bytes:
        raise ProviderBadResponse(f"the {stem.name} is larger than {recipe.most_bytes} bytes")
    path = stem.with_suffix(recipe.suffix)
    checked = recipe.check(raw.read_bytes())
    try:
        path.write_bytes(checked)
    except OSError as exc:
        raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc
    return path, Described(recipe.suffix, recipe.media_type)


class _LostRace(AppError):
    """Rolls the finishing transaction back; the job has gone on without us."""


class _timed:  # noqa: N801 - reads as a statement
    """Adds the time of its block to a table of timings."""

    def __init__(self, timings: dict[str, float], step: str) -> None:
        self._timings = timings
        self._step = step

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        took_s = time.perf_counter() - self._began
        self._timings[self._step] = self._timings.get(self._step, 0.0) + took_s
