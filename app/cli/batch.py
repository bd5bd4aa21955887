"""Several jobs asked for at once: submitted together, followed by their events, fetched, told as a table.

What the demo and the pipelines stand on. Promises: nothing is polled; one job that fails does not stop the
others; the times of the stations are the service's own, read from its events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from app.audio import family
from app.audio.clips import CONTAINERS
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, call, download, follow, submit
from app.cli.tools.connection import ServiceClient
from app.settings import Settings
from app.storage import content_key

STATIONS = ("queued", "generating", "fetch", "trim", "store", "total")


@dataclass(frozen=True, slots=True)
class Wish:
    """One job to ask for, and the name that its file shall have, without a suffix."""

    name: str
    kind: str
    input: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    provider: str = "auto"

    def body(self) -> Json:
        return {
            "kind": self.kind,
            "input": self.input,
            "metadata": self.metadata,
            "provider": self.provider,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """A job that has ended."""

    wish: Wish
    job: Json
    events: Sequence[Json]

    @property
    def succeeded(self) -> bool:
        return bool(self.job["state"] == "succeeded")

    @property
    def engine(self) -> str:
        return str((self.job["attempts"] or [{}])[-1].get("engine") or "–")


async def make_all(client: ServiceClient, wishes: Sequence[Wish], *, timeout_s: float) -> list[Made]:
    """Ask for all, wait for all by their events. Raises CommandError, also when the time is over."""
    asked = await asyncio.gather(
        *(submit(client, wish.body(), idempotency_key=wish.idempotency_key) for wish in wishes),
        return_exceptions=True,
    )
    jobs: list[Json] = []
    for answer in asked:
        if isinstance(answer, BaseException):
            raise answer
        jobs.append(answer)
    try:
        async with asyncio.timeout(timeout_s):
            return await _await_all(client, wishes, jobs)
    except TimeoutError as exc:
        ids = ", ".join(job["id"] for job in jobs)
        raise CommandError(f"not all ended within {timeout_s:g} s: {ids}", Exit.TIMED_OUT) from exc


async def save_all(client: ServiceClient, made: Sequence[Made], folder: Path) -> dict[str, Path]:
    """Fetch the audio of those that succeeded into files named after their wishes."""
    places = {
        each.wish.name: folder / f"{each.wish.name}.{suffix(audio_of(each.job))}"
        for each in made
        if each.succeeded
    }
    await asyncio.gather(
        *(
            download(client, audio_of(each.job)["url"], places[each.wish.name])
            for each in made
            if each.succeeded
        )
    )
    return places


def audio_of(job: Json) -> Json:
    """The one output of the kinds that make a sound."""
    return job["outputs"]["audio"]


def suffix(output: Json) -> str:
    """The file suffix that fits an output's media type."""
    if output["media_type"] in _TEXTS:
        return _TEXTS[output["media_type"]]
    names = (name for name, container in CONTAINERS.items() if container.media_type == output["media_type"])
    return family(next(names, "wav"))


_TEXTS = {"application/json": "json", "application/x-subrip": "srt"}


def stored_path(settings: Settings, output: Json) -> Path | None:
    """Where an output lies in the store, when that is on this machine."""
    root = Path(settings.storage_url.removeprefix("file://"))
    path = root / content_key(output["sha256"], f".{suffix(output)}")
    return path if path.is_file() else None


def station_times(events: Sequence[Json]) -> dict[str, float | None]:
    """Seconds at each station. Another attempt counts as queued, up to its dispatch."""
    # Later events of a type overwrite earlier ones: the attempt that won is the one that is told.
    moments = {event["type"]: datetime.fromisoformat(event["at"]) for event in events}
    last = events[-1]
    begun, ended = moments["job.created"], datetime.fromisoformat(last["at"])
    dispatched, finishing = moments.get("job.dispatched"), moments.get("job.finishing")
    return {
        "queued": _between(begun, dispatched),
        "generating": _between(dispatched, finishing),
        **{step: last["data"].get(f"{step}_s") for step in ("fetch", "trim", "store")},
        "total": _between(begun, ended),
    }


def timing_table(made: Sequence[Made]) -> Table:
    """A line a job: what made it, how long it is, where its time went."""
    table = show.table("sound", "engine", "length", *STATIONS, right=("length", *STATIONS))
    for each in made:
        times = (show.seconds(value) for value in station_times(each.events).values())
        length = show.seconds(audio_of(each.job)["duration_s"]) if each.succeeded else "–"
        mark = "[green]✓[/]" if each.succeeded else "[red]✗[/]"
        engine = each.engine.partition(" (")[0]
        table.add_row(f"{mark} {show.plain(each.wish.name)}", show.plain(engine), length, *times)
    return table


def summary(each: Made, path: Path | None) -> Json:
    """The same for machines."""
    job = each.job
    return {
        "name": each.wish.name,
        "kind": each.wish.kind,
        "job_id": job["id"],
        "state": job["state"],
        "engine": each.engine,
        "file": str(path) if path else None,
        "duration_s": audio_of(job)["duration_s"] if each.succeeded else None,
        "error": job["error"],
        "input": each.job["input"],
        "stations_s": station_times(each.events),
    }


def complaints(made: Sequence[Made]) -> list[str]:
    """A line for each job that did not succeed."""
    return [_complaint(each) for each in made if not each.succeeded]


async def _await_all(client: ServiceClient, wishes: Sequence[Wish], jobs: Sequence[Json]) -> list[Made]:
    with show.progress(*(wish.name for wish in wishes)) as notes:
        histories = await asyncio.gather(
            *(follow(client, job["id"], note) for job, note in zip(jobs, notes, strict=True))
        )
    # Read again after the end: only now the outputs are there.
    ended = await asyncio.gather(*(call(client, "GET", f"/v1/jobs/{job['id']}") for job in jobs))
    return [Made(*each) for each in zip(wishes, ended, histories, strict=True)]


def _complaint(each: Made) -> str:
    error = each.job["error"] or {"message": each.job["state"]}
    return f"{each.wish.name}: {error['message']} ({each.job['id']})"


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 4)
