"""`reprise deliveries …`: what came in from outside, and sending it again.

The replay of one is stored at once and applied by the service, the next one if none runs. The replay of many
is a recovery: see `app.cli.recoveries`.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated

import typer

from app.cli.jobs import Cursor, KindOption, Limit, Since, Until, given, moment
from app.cli.recoveries import DryRun, MostItems, run_many
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, run
from app.cli.tools.connection import ask, read_settings
from app.cli.tools.inert import inert

deliveries = typer.Typer(no_args_is_help=True, help="The ledger of outside news: list, show, replay.")

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


@deliveries.command("refused")
def list_refused(
    failed: Annotated[str | None, typer.Option(help="Only where this check failed.")] = None,
    since: Since = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Callbacks that were refused, newest first: which check failed, and by how many seconds."""
    wanted = {"failed": failed, "since": moment("--since", since), "limit": limit, "cursor": cursor}
    page = run(ask(read_settings(), "GET", "/v1/refusals", params=given(wanted)))
    if as_json:
        show.print_json(page)
        return
    table = show.table("age", "provider", "attempt", "failed", "detail", "left out", flexible=("detail",))
    for each in page["items"]:
        table.add_row(
            show.age(each["at"]), each["provider"], each["attempt_id"] or "–", each["failed"],
            show.cut(each["detail"]), str(each["left_out"] or "–"),
        )  # fmt: skip
    show.print_page(table, page, "Nothing was refused.")


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
def replay_delivery(
    delivery_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The delivery's id.")] = None,
    since: Since = None,
    until: Until = None,
    outcome: Annotated[str | None, typer.Option(help="Only those that ended like this.")] = None,
    source: Annotated[str | None, typer.Option(help="Only those of this postman.")] = None,
    kind: KindOption = None,
    dry_run: DryRun = False,
    limit: MostItems = 1000,
    as_json: AsJson = False,
) -> None:
    """Send a stored delivery through the inbox once more, or all of a time that would change something.

    Prints the copy's id; of many, what became of each.
    """
    if delivery_id is None:
        if since is None and until is None:
            raise CommandError("name a delivery, or give --since", Exit.USAGE)
        wanted = {
            "since": moment("--since", since), "until": moment("--until", until), "kind": kind,
            "outcome": outcome, "source": source, "dry_run": dry_run, "limit": limit,
        }  # fmt: skip
        run_many("/v1/deliveries/replay", given(wanted), dry_run=dry_run, as_json=as_json)
        return
    receipt = run(ask(read_settings(), "POST", f"/v1/deliveries/{delivery_id}/replay", needs_work=True))
    show.print_json(receipt) if as_json else show.print_line(receipt["delivery_id"])
