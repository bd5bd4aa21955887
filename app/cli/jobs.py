"""`reprise jobs …`: list, show, watch, cancel, retry.

Reading needs no running service. Canceling and retrying change rows at once; what follows from them is done
by the service, the next one if none runs. `watch` opens one when the job is alive and nobody works on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.bulk import act_on_many
from app.cli.request import AsJson, ended_job, refuse_unsuccessful
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, call, run
from app.cli.tools.connection import ask, read_settings, service_client
from app.settings import Settings

jobs = typer.Typer(no_args_is_help=True, help="List, show, watch, cancel and retry jobs.")

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


Since = Annotated[str | None, typer.Option(help="From this time on: ISO 8601, or an age such as 2h or 3d.")]
Until = Annotated[str | None, typer.Option(help="Before this time: ISO 8601, or an age such as 30m.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="Only this job kind.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="At most so many.")]
Cursor = Annotated[str | None, typer.Option(help="Where the previous page ended.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
OneJob = Annotated[str | None, typer.Argument(metavar="[ID]", help="The job's id.")]
Query = Annotated[str | None, typer.Option("--query", help="Instead of an id: a search, for all it finds.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --query: say how many and which, and stop.")]


@jobs.command("list")
def list_jobs(
    query: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="QUERY", help="Such as: state:failed since:2h prompt:rain. After -- for -word."
        ),
    ] = None,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: KindOption = None,
    since: Since = None,
    until: Until = None,
    q: Annotated[str | None, typer.Option("--q", help="The same as QUERY.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    q = " ".join([*(query or []), *([q] if q else [])]) or None
    wanted = {
        "state": state, "kind": kind, "since": moment("--since", since), "until": moment("--until", until),
        "q": q, "limit": limit, "cursor": cursor,
    }  # fmt: skip
    page = run(ask(read_settings(), "GET", "/v1/jobs", params=given(wanted)))
    if as_json:
        show.print_json(page)
        return
    columns = ("id", "kind", "state", "age", "length", "prompt")
    table = show.table(*columns, right=("age", "length"), flexible=("prompt",))
    for job in page["items"]:
        audio = job["outputs"].get("audio")
        table.add_row(
            job["id"], job["kind"], show.state(job["state"]), show.age(job["created_at"]),
            show.seconds(audio["duration_s"]) if audio else "–", show.cut(_prompt(job)),
        )  # fmt: skip
    show.print_page(table, page, "There are no such jobs.")


@jobs.command("show")
def show_job(job_id: JobId, as_json: AsJson = False) -> None:
    """One job with its attempts, files and events."""
    job, events = run(_job_and_events(read_settings(), job_id))
    if as_json:
        show.print_json({**job, "events": events})
        return
    console = show.out()
    console.print(f"[bold]{job['id']}[/]  {job['kind']}  {show.state(job['state'])}")
    console.print(_facts(job))
    for each in _job_tables(job, events):
        console.print(each)


@jobs.command("watch")
def watch_job(
    job_id: JobId,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Follow a job until it has ended. Exits with 4 unless it succeeded."""
    job = run(_watch(read_settings(), job_id, timeout_s))
    if as_json:
        show.print_json(job)
    refuse_unsuccessful(job)
    if not as_json:
        show.print_line(f"{job['id']} succeeded")


@jobs.command("cancel")
def cancel_job(
    job_id: OneJob = None, query: Query = None, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """End a job that has not ended, or with --query all that a search finds."""
    if job_id is None or query is not None or dry_run:
        act_on_many("cancel", query, named=job_id is not None, dry_run=dry_run, as_json=as_json)
        return
    job = run(ask(read_settings(), "POST", f"/v1/jobs/{job_id}/cancel"))
    show.print_json(job) if as_json else show.print_line(f"{job['id']} {job['state']}")


@jobs.command("retry")
def retry_job(
    job_id: OneJob = None, query: Query = None, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Ask again for what a failed or canceled job asked; prints the new job's id. With --query for many."""
    if job_id is None or query is not None or dry_run:
        act_on_many("retry", query, named=job_id is not None, dry_run=dry_run, as_json=as_json)
        return
    job = run(ask(read_settings(), "POST", f"/v1/jobs/{job_id}/retry", needs_work=True))
    show.print_json(job) if as_json else show.print_line(job["id"])


def moment(option: str, text: str | None) -> str | None:
    """ISO 8601 in UTC, of ISO 8601 (local time without an offset) or of an age: `90s 30m 2h 3d 1w`."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text.strip().lower())
    if span:
        return (datetime.now(UTC) - timedelta(seconds=float(span[1]) * _UNIT_S[span[2]])).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except ValueError as exc:
        raise CommandError(
            f"{option}: {text!r} is neither ISO 8601 nor an age such as 2h", Exit.USAGE
        ) from exc


def span_s(option: str, text: str) -> float:
    """Seconds, of a span such as `90s 30m 2h 3d 1w`."""
    span = _SPAN.fullmatch(text.strip().lower())
    if span is None:
        raise CommandError(f"{option}: {text!r} is not a span such as 2h or 30d", Exit.USAGE)
    return float(span[1]) * _UNIT_S[span[2]]


def given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def _job_and_events(settings: Settings, job_id: str) -> tuple[Json, list[Json]]:
    async with service_client(settings, stations=False) as client:
        job = await call(client, "GET", f"/v1/jobs/{job_id}")
        events = await call(client, "GET", f"/v1/jobs/{job_id}/events")
        return job, events["items"]


async def _watch(settings: Settings, job_id: str, timeout_s: float) -> Json:
    job = await ask(settings, "GET", f"/v1/jobs/{job_id}")
    if job["finished_at"] is not None:
        return job
    async with service_client(settings, stations=True) as client:
        return await ended_job(client, job_id, timeout_s, name=job["kind"])


def _job_tables(job: Json, events: Sequence[Json]) -> list[Table]:
    attempts = show.table(
        "attempt", "provider", "status", "then", "engine", "age", "prediction", flexible=("prediction",)
    )
    for each in job["attempts"]:
        attempts.add_row(
            str(each["number"]), each["provider"], show.plain(each["status"]), _then(each),
            show.plain(each["engine"] or each["model"]), show.age(each["created_at"]),
            show.cut(each["error"] or each["prediction_id"]),
        )  # fmt: skip
    parts = show.table("part", "kind", "state", "done", "job", flexible=("job",))
    for each in job["children"]:
        done = "reused" if each["reused"] else f"{each['progress']:.0%}"
        parts.add_row(each["step"], each["kind"], show.state(each["state"]), done, each["id"])
    outputs = show.table("output", "media type", "length", "size", "sha256", flexible=("sha256",))
    for name, each in job["outputs"].items():
        outputs.add_row(
            name, each["media_type"], show.seconds(each["duration_s"]), show.size(each["size_bytes"]),
            show.cut(each["sha256"]),
        )  # fmt: skip
    story = show.table("seq", "event", "after", "facts", right=("after",), flexible=("facts",))
    begun = datetime.fromisoformat(job["created_at"])
    for event in events:
        after_s = (datetime.fromisoformat(event["at"]) - begun).total_seconds()
        facts = ", ".join(_fact(*each) for each in event["data"].items() if each[0] != "status")
        story.add_row(str(event["seq"]), event["type"], show.seconds(after_s), show.cut(facts))
    return [made for made in (parts, attempts, outputs, story) if made.row_count]


def _then(attempt: Json) -> str:
    """What went wrong with it, and what was done: `lost, fall back`."""
    words = [attempt["trouble"], attempt["action"]]
    return ", ".join(word.replace("_", " ") for word in words if word)


def _fact(name: str, value: Any) -> str:
    return f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _facts(job: Json) -> Table:
    error = job["error"]
    return show.grid(
        {
            **job["input"],
            "metadata": job["metadata"] or None,
            "asked": f"{job['created_at'][:19]}Z, {show.age(job['created_at'])} ago",
            "progress": f"{job['progress']:.0%} {job['stage'] or ''}" if job["finished_at"] is None else None,
            "waiting": job["waiting_reason"],
            "error": f"{error['message']} ({error['code']})" if error else None,
            "cost": _cost(job["cost"]),
            "retry of": job["retry_of"],
            "a part of": job["parent_id"],
            **(job["measured"] or {}),
        }
    )


def _cost(cost: Json) -> str | None:
    if not cost["items"]:
        return None
    guessed = any(item["basis"] in ("clock", "assumed") for item in cost["items"])
    unpriced = any(item["usd"] is None for item in cost["items"])
    known = "no price known" if cost["usd"] is None else f"{cost['usd']:.6f} dollars"
    notes = ["estimated"] * guessed + ["in part without a price"] * (unpriced and cost["usd"] is not None)
    return f"{known} ({', '.join(notes)})" if notes else known


def _prompt(job: Json) -> str:
    return str(job["input"].get("prompt") or job["input"].get("text") or "")
