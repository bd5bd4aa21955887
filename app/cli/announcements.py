"""`reprise announcements …`, `endpoints …` and `webhooks …`: what callers were told, where, signed how.

Asking for something to be sent again needs no running service: the next one sends it.
"""

from __future__ import annotations

import re
from typing import Annotated

import typer

from app.cli.jobs import Cursor, Limit, Since, Until, given, moment
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, run
from app.cli.tools.connection import ask, read_settings

announcements = typer.Typer(no_args_is_help=True, help="What callers were told: list, show, resend.")
endpoints = typer.Typer(no_args_is_help=True, help="Where callers are told: list, enable.")
webhooks = typer.Typer(no_args_is_help=True, help="How callers tell that it was us.")
secret = typer.Typer(no_args_is_help=True, help="The secrets that sign announcements: show, rotate.")
webhooks.add_typer(secret, name="secret")

_STATE_STYLES = {"pending": "yellow", "delivered": "green", "failed": "red", "held": "magenta"}
_ENDPOINT_STYLES = {"enabled": "green", "paused": "yellow", "disabled": "red"}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(s|m|min|h|d|w)?")
_UNIT_S = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
EndpointOption = Annotated[str | None, typer.Option("--endpoint", help="Only to this endpoint.")]
StateOption = Annotated[
    str | None, typer.Option("--state", help="Only those that are pending, delivered, failed or held.")
]


@announcements.command("list")
def list_announcements(
    job_id: Annotated[str | None, typer.Option("--job", help="Only this job's.")] = None,
    state: StateOption = None,
    endpoint: EndpointOption = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Announcements, newest first."""
    wanted = {"job_id": job_id, "state": state, "endpoint": endpoint, "limit": limit, "cursor": cursor}
    page = run(ask(read_settings(), "GET", "/v1/announcements", params=given(wanted)))
    if as_json:
        show.print_json(page)
        return
    table = show.table("id", "type", "state", "tries", "age", "error", right=("tries",), flexible=("error",))
    for each in page["items"]:
        table.add_row(
            each["id"], each["type"], _coloured(each["state"], _STATE_STYLES), str(each["attempts"]),
            show.age(each["created_at"]), show.cut(each["error"]),
        )  # fmt: skip
    show.print_page(table, page, "There are no such announcements.")


@announcements.command("show")
def show_announcement(
    announcement_id: Annotated[str, typer.Argument(metavar="ID", help="The announcement's id.")],
    as_json: AsJson = False,
) -> None:
    """One announcement with every try at it."""
    found = run(ask(read_settings(), "GET", f"/v1/announcements/{announcement_id}"))
    if as_json:
        show.print_json(found)
        return
    console = show.out()
    tries, payload = found.pop("tries"), found.pop("payload")
    console.print(show.grid(found))
    table = show.table("try", "age", "outcome", "status", "took", "answer", flexible=("answer",))
    for each in tries:
        response = each["response"]
        table.add_row(
            str(each["number"]), show.age(each["at"]), each["outcome"],
            str(response["status"]) if response else "–", show.seconds(each["latency_ms"] / 1000),
            show.cut((response["body"] if response else "") or each["error"]),
        )  # fmt: skip
    if tries:
        console.print(table)
    console.print(payload, markup=False, style="dim", soft_wrap=True)


@announcements.command("resend")
def resend(
    announcement_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One announcement; else give --since.")
    ] = None,
    since: Since = None,
    until: Until = None,
    endpoint: EndpointOption = None,
    state: StateOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send one again, or all of a time that failed or were held; the same bytes under the same id."""
    if (announcement_id is None) == (since is None):
        raise CommandError("resend: give an ID or --since, and not both", Exit.USAGE)
    if announcement_id is not None:
        path = f"/v1/announcements/{announcement_id}/resend"
        found = run(ask(read_settings(), "POST", path, needs_work=True))
        show.print_json(found) if as_json else show.print_line(found["id"])
        return
    wanted = {
        "since": moment("--since", since), "until": moment("--until", until),
        "endpoint": endpoint, "state": state, "dry_run": dry_run,
    }  # fmt: skip
    path = "/v1/announcements/resend"
    found = run(ask(read_settings(), "POST", path, json=given(wanted), needs_work=not dry_run))
    show.print_json(found) if as_json else show.print_line(_resent(found))


@endpoints.command("list")
def list_endpoints(
    disabled: Annotated[
        bool | None, typer.Option("--disabled/--enabled", help="Only those that are, or are not.")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """The addresses that announcements went to, and how they do."""
    wanted = {"disabled": disabled, "limit": limit, "cursor": cursor}
    page = run(ask(read_settings(), "GET", "/v1/endpoints", params=given(wanted)))
    if as_json:
        show.print_json(page)
        return
    columns = ("id", "state", "failures", "last success", "url", "error")
    table = show.table(*columns, right=("failures",), flexible=("url", "error"))
    for each in page["items"]:
        table.add_row(
            each["id"], _coloured(each["state"], _ENDPOINT_STYLES), str(each["failures"]),
            show.age(each["last_success_at"]), show.cut(each["url"]), show.cut(each["last_error"]),
        )  # fmt: skip
    show.print_page(table, page, "There are no such endpoints.")


@endpoints.command("enable")
def enable_endpoint(
    endpoint_id: Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id.")],
    as_json: AsJson = False,
) -> None:
    """Send there again. What was held meanwhile waits for `announcements resend`."""
    found = run(ask(read_settings(), "POST", f"/v1/endpoints/{endpoint_id}/enable"))
    if as_json:
        show.print_json(found)
        return
    show.print_line(f"{found['id']} {found['state']}")
    if found["held"]:
        show.err().print(
            f"{found['held']} announcements were held; see `reprise announcements resend --help`"
        )


@secret.command("show")
def show_secrets(as_json: AsJson = False) -> None:
    """The secrets that sign now, the newest first. Whoever has one can sign in our name."""
    _print_secrets(run(ask(read_settings(), "GET", "/v1/webhook-secrets")), as_json=as_json)


@secret.command("rotate")
def rotate_secret(
    overlap: Annotated[
        str, typer.Option(help="How long the old one signs along, such as 24h; 0 ends all older ones now.")
    ] = "24h",
    as_json: AsJson = False,
) -> None:
    """Make a new secret."""
    body = {"overlap_s": _seconds("--overlap", overlap)}
    _print_secrets(run(ask(read_settings(), "POST", "/v1/webhook-secrets", json=body)), as_json=as_json)


def _print_secrets(found: Json, *, as_json: bool) -> None:
    if as_json:
        show.print_json(found)
        return
    for each in found["items"]:
        until = f"  until {each['expires_at'][:19]}Z" if each["expires_at"] else ""
        show.print_line(f"{each['secret']}{until}")


def _resent(found: Json) -> str:
    words = f"{found['count']} announcements"
    if found["to_disabled"]:
        words += f", {found['to_disabled']} of them to disabled endpoints"
    if found["dry_run"]:
        return f"{words}. Nothing was sent: this was a dry run."
    return f"{words}; {found['resent']} are sent again." + (" There are more." if found["has_more"] else "")


def _seconds(option: str, text: str) -> float:
    span = _SPAN.fullmatch(text.strip().lower())
    if span is None:
        raise CommandError(f"{option}: {text!r} is no time such as 24h or 30m", Exit.USAGE)
    return float(span[1]) * _UNIT_S[span[2]]


def _coloured(word: str, styles: dict[str, str]) -> str:
    return f"[{styles.get(word, 'default')}]{word}[/]"
