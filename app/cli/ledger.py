"""`reprise deliveries …` and `recover`: what came in from outside, and asking for what did not.

A replay is stored at once and applied by the service, the next one if none runs. `recover` opens a service
where none runs, so that what it learns is carried out before the command ends.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Annotated

import typer

from app.cli import show
from app.cli.calls import ENDS, Json, call, follow, run
from app.cli.connection import ServiceClient, ask, read_settings, service_client
from app.cli.inert import inert
from app.cli.jobs import Cursor, KindOption, Limit, Since, Until, given, moment
from app.cli.request import AsJson
from app.settings import Settings

deliveries = typer.Typer(no_args_is_help=True, help="The ledger of outside news: list, show, replay.")

MOVE_ON_S = 120.0
"""How long `recover` waits for what it found to be carried out."""

_LONG_BASE64 = re.compile(r"[A-Za-z0-9+/=]{100,}")
_SHOWN_CHARACTERS = 4000
DeliveryId = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id.")]


@deliveries.command("list")
def list_deliveries(
    job_id: Annotated[str | None, typer.Option("--job", help="Only this job's.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only those that ended like this.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Every piece of outside news, newest first, and what became of it."""
    wanted = {"job_id": job_id, "outcome": outcome, "limit": limit, "cursor": cursor}
    page = run(ask(read_settings(), "GET", "/v1/deliveries", params=given(wanted)))
    if as_json:
        show.print_json(page)
        return
    table = show.table("id", "source", "provider", "age", "outcome", "detail", flexible=("detail",))
    for each in page["items"]:
        table.add_row(
            each["id"], each["source"], each["provider"], show.age(each["received_at"]),
            each["outcome"] or "[yellow]unsettled[/]", show.cut(each["detail"]),
        )  # fmt: skip
    show.print_page(table, page, "There are no such deliveries.")


@deliveries.command("show")
def show_delivery(delivery_id: DeliveryId, as_json: AsJson = False) -> None:
    """One delivery with what was received."""
    delivery = run(ask(read_settings(), "GET", f"/v1/deliveries/{delivery_id}"))
    if as_json:
        show.print_json(delivery)
        return
    body = base64.b64decode(delivery.pop("body_base64"))
    headers = delivery.pop("headers")
    console = show.out()
    console.print(show.grid({**delivery, **{f"header {name}": value for name, value in headers.items()}}))
    # A file inside would fill the screen with what no reader can use.
    text = _LONG_BASE64.sub("…", body.decode("utf-8", "replace"))[:_SHOWN_CHARACTERS]
    text = inert(text, keep="\n\t")
    console.print(text, markup=False, style="dim", soft_wrap=True)


@deliveries.command("replay")
def replay_delivery(delivery_id: DeliveryId, as_json: AsJson = False) -> None:
    """Send a stored delivery through the inbox once more. Prints the copy's id."""
    receipt = run(ask(read_settings(), "POST", f"/v1/deliveries/{delivery_id}/replay", needs_work=True))
    show.print_json(receipt) if as_json else show.print_line(receipt["delivery_id"])


def recover(
    since: Since = None,
    until: Until = None,
    kind: KindOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask, but change nothing.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many attempts.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Ask the providers about every live attempt now, and carry out what they say."""
    wanted = {
        "since": moment("--since", since), "until": moment("--until", until),
        "kind": kind, "dry_run": dry_run, "limit": limit,
    }  # fmt: skip
    report, late = run(_recover(read_settings(), given(wanted), dry_run=dry_run))
    if as_json:
        show.print_json({**report, "not_moved_on": late})
        return
    columns = ("job", "provider", "prediction", "finding", "detail")
    table = show.table(*columns, flexible=("prediction", "detail"))
    for found in report["found"]:
        table.add_row(
            found["job_id"], found["provider"], show.cut(found["prediction_id"] or "–"),
            found["finding"], show.cut(found["detail"]),
        )  # fmt: skip
    if report["found"]:
        show.out().print(table)
    counts = ", ".join(f"{count} {finding}" for finding, count in sorted(report["counts"].items()))
    ended = "Nothing was changed: this was a dry run." if dry_run else ""
    show.print_line(f"{len(report['found'])} live attempts{': ' if counts else ''}{counts}. {ended}".rstrip())
    for job_id in late:
        show.err().print(f"[yellow]{job_id} has not moved on within {MOVE_ON_S:g} s[/]")


async def _recover(settings: Settings, wanted: Json, *, dry_run: bool) -> tuple[Json, list[str]]:
    """The report, and the jobs that should have moved on and have not."""
    async with service_client(settings, stations=not dry_run) as client:
        report = await call(client, "POST", "/v1/recoveries", json=wanted, timeout=None)
        if dry_run:
            return report, []
        ended = {
            found["job_id"]: found["attempt_id"] for found in report["found"] if found["finding"] == "ended"
        }
        moved = await asyncio.gather(*(_moved_on(client, *each) for each in ended.items()))
    return report, [job_id for job_id, has_moved in zip(ended, moved, strict=True) if not has_moved]


async def _moved_on(client: ServiceClient, job_id: str, attempt_id: str) -> bool:
    """Wait until the job has ended, or has left this attempt for another."""
    job = await call(client, "GET", f"/v1/jobs/{job_id}")
    number = next((each["number"] for each in job["attempts"] if each["id"] == attempt_id), 0)
    current = 0

    def note(event: Json) -> None:
        nonlocal current
        current = event["data"].get("attempt", current)
        if current >= number and event["type"] in {"job.requeued", *ENDS}:
            raise _MovedOn

    try:
        async with asyncio.timeout(MOVE_ON_S):
            await follow(client, job_id, note)
    except _MovedOn:
        return True
    except TimeoutError:
        return False
    return True


class _MovedOn(Exception):
    """Ends the following of a job that need not be followed to its end."""
