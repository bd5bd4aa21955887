"""`reprise tail`: what happens in the service, a line an event, for as long as one looks."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from app.cli.jobs import KindOption, Since, given, moment
from app.cli.live.streaming import Message, follow_stream
from app.cli.tools import show
from app.cli.tools.calls import Json, run
from app.cli.tools.connection import read_settings
from app.settings import Settings

AsLines = Annotated[bool, typer.Option("--json", "--ndjson", help="A JSON object a line, for machines.")]
AfterCount = Annotated[int | None, typer.Option("--limit", min=1, help="End after so many.")]


def tail(
    kind: KindOption = None,
    state: Annotated[str | None, typer.Option(help="Only events that left the job in this state.")] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="Only these, such as job.failed.")] = None,
    job_id: Annotated[str | None, typer.Option("--job", help="Only this job's.")] = None,
    since: Since = None,
    limit: AfterCount = None,
    as_lines: AsLines = False,
) -> None:
    """Follow everything that happens, until Ctrl-C. Goes on where it was when the service was away."""
    wanted = {
        "kind": kind, "state": state, "type": event_type, "job_id": job_id, "since": moment("--since", since),
    }  # fmt: skip
    run(_tail(read_settings(), given(wanted), limit, as_lines=as_lines))


async def _tail(settings: Settings, wanted: dict[str, Any], limit: int | None, *, as_lines: bool) -> None:
    told = 0
    async with aclosing(follow_stream(settings, "/v1/events", wanted)) as messages:
        async for message in messages:
            if not message.name.startswith("job."):
                _note(message)
                continue
            show.print_live(json.dumps(message.data) if as_lines else _line(message.data))
            told += 1
            if told == limit:
                return


def _note(message: Message) -> None:
    if message.name == "reset":
        show.err().print("[yellow]Some events are gone: they were deleted before they could be told.[/]")


def _line(event: Json) -> Text:
    """`12:03:04.512  succeeded   sound_effect  job_…  attempt 1, provider cog`."""
    at = datetime.fromisoformat(event["at"]).astimezone()
    data = dict(event["data"])
    state = str(data.pop("status", ""))
    word = event["type"].removeprefix("job.")
    line = Text(f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}  ", style="dim")
    line.append_text(show.state_text(word, 11) if word == state else Text(word.ljust(11)))
    line.append(f" {event['kind']:<16} {event['job_id']}", style="default")
    facts = ", ".join(f"{name} {_plain(value)}" for name, value in data.items() if name != "kind")
    line.append(f"  {facts}" if facts else "", style="dim")
    return line


def _plain(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split())
