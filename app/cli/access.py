"""`reprise keys …` and `audit`: who may call, and who did what.

`keys` works on the database itself, whether a service runs or not, and for any tenant: whoever can read the
database needs no key. A running service honours what it changes within seconds. `audit` asks the service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from app.access.callers import DEFAULT_TENANT, Caller, Scope
from app.access.desk import Issued, KeyDesk, has_ended
from app.access.trail import Act
from app.cli.jobs import Cursor, Limit, given, span_s
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, run
from app.cli.tools.connection import ask, read_settings
from app.errors import InvalidInput, NotFound
from app.settings import Settings
from app.watch.clocks import LineClock
from app.wiring.openers import check_schema, open_database
from db.tables import AccessKey

keys = typer.Typer(no_args_is_help=True, help="Keys of callers: create, list, rotate, revoke.")

Result = TypeVar("Result")
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")]
Expiry = Annotated[
    str | None, typer.Option("--expires", metavar="SPAN", help="When it ends, such as 90d. Never by default.")
]
SHOWN = 200
"""At most so many keys in a list."""


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="For people: who or what uses it.")],
    scopes: Annotated[
        list[Scope] | None, typer.Option("--scope", help="What it may do. Repeatable; admin may do all.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Whose jobs it sees.")] = DEFAULT_TENANT,
    expires: Expiry = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once. From the first one on every request needs one."""
    wanted = scopes or [Scope.JOBS_WRITE, Scope.JOBS_READ]
    by = Caller(tenant, frozenset(Scope))
    _show_issued(
        _at_desk(lambda desk: desk.create(by, name=name, scopes=wanted, expires_at=_end(expires))), as_json
    )


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
) -> None:
    """Keys, newest first, those that have ended too."""
    found = _at_desk(lambda desk: desk.list_keys(tenant, limit=SHOWN))
    if as_json:
        show.print_json({"items": [_as_json(each) for each in found]})
        return
    table = show.table("id", "begins", "name", "tenant", "scopes", "age", "used", "state", flexible=("name",))
    for each in found:
        table.add_row(
            each.id, each.prefix, show.cut(each.name), each.tenant, " ".join(each.scopes),
            show.age(each.created_at.isoformat()), _used(each), _state(each),
        )  # fmt: skip
    show.print_page(table, {"items": found, "next_cursor": None}, "There are no keys: none is needed.")


@keys.command("revoke")
def revoke_key(key_id: KeyId, as_json: AsJson = False) -> None:
    """End a key. A running service refuses it within ACCESS_CACHE_S."""
    key = _at_desk(lambda desk: desk.revoke(_OPERATOR, key_id, any_tenant=True))
    show.print_json(_as_json(key)) if as_json else show.print_line(f"{key.id} is revoked.")


@keys.command("rotate")
def rotate_key(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(metavar="SPAN", help="How long the old one goes on, such as 1h.")
    ] = "1d",
    expires: Expiry = None,
    as_json: AsJson = False,
) -> None:
    """Make a key with the same rights and print it, this once; the old one ends after the overlap."""
    overlap_s = span_s("--overlap", overlap)
    _show_issued(
        _at_desk(
            lambda desk: desk.rotate(
                _OPERATOR, key_id, overlap_s=overlap_s, expires_at=_end(expires), any_tenant=True
            )
        ),
        as_json,
    )


def audit(
    act: Annotated[Act | None, typer.Option(help="Only this act.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this id.")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Who did what, newest first: keys, cancels, retries, replays, recoveries."""
    wanted = {"act": act.value if act else None, "subject": subject, "limit": limit, "cursor": cursor}
    page = run(ask(read_settings(), "GET", "/v1/audit", params=given(wanted)))
    if as_json:
        show.print_json(page)
        return
    table = show.table("age", "act", "subject", "key", "request", flexible=("subject", "request"))
    for each in page["items"]:
        table.add_row(
            show.age(each["at"]), each["act"], show.cut(each["subject"]), each["key_id"] or "–",
            show.cut(each["request_id"] or "–"),
        )  # fmt: skip
    show.print_page(table, page, "Nothing of the kind was done.")


_OPERATOR = Caller(DEFAULT_TENANT, frozenset(Scope))
"""Whoever can open the database."""


def _at_desk(verb: Callable[[KeyDesk], Awaitable[Result]]) -> Result:
    return run(_open_desk(read_settings(), verb))


async def _open_desk(settings: Settings, verb: Callable[[KeyDesk], Awaitable[Result]]) -> Result:
    database, clock = open_database(settings), LineClock()
    try:
        await check_schema(database)
        await clock.measure(database)
        return await verb(KeyDesk(database=database, now=clock.now))
    except NotFound as exc:
        raise CommandError(exc.message, Exit.NOT_FOUND) from exc
    except InvalidInput as exc:
        raise CommandError(exc.message, Exit.USAGE) from exc
    finally:
        await database.aclose()


def _end(span: str | None) -> datetime | None:
    try:
        return None if span is None else datetime.now(UTC) + timedelta(seconds=span_s("--expires", span))
    except OverflowError as exc:
        raise CommandError(f"--expires: {span} is beyond the calendar", Exit.USAGE) from exc


def _show_issued(issued: Issued, as_json: bool) -> None:
    if as_json:
        show.print_json({**_as_json(issued.key), "key": issued.text})
        return
    show.print_line(issued.text)
    show.err().print(
        f"[dim]{issued.key.id}, tenant {issued.key.tenant}, {' '.join(issued.key.scopes)}. "
        "It is not shown again; the commands read it from REPRISE_API_KEY.[/]"
    )


def _as_json(key: AccessKey) -> Json:
    return key.model_dump(mode="json", exclude={"digest"})


def _used(key: AccessKey) -> str:
    return "never" if key.last_used_at is None else show.age(key.last_used_at.isoformat())


def _state(key: AccessKey) -> str:
    if key.revoked_at is not None:
        return "[red]revoked[/]"
    if has_ended(key, datetime.now(UTC)):
        return "[yellow]expired[/]"
    return "holds" if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d %H:%M} UTC"
