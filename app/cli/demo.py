"""`reprise demo`: from nothing to three sounds, and where the time went.

What `scripts/demo` runs after the set-up. Uses the running service if there is one. Asks for all three at
once, waits on their events, tells the stations' own times.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app import __version__
from app.cli.batch import (
    Made,
    Wish,
    audio_of,
    complaints,
    make_all,
    save_all,
    stored_path,
    summary,
    timing_table,
)
from app.cli.request import AsJson
from app.cli.serving import stop_signals
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, run
from app.cli.tools.connection import Origin, ServiceClient, read_settings, service_client
from app.settings import Settings

WISHES = (
    Wish("sound_effect", "sound_effect", {"prompt": "heavy rain on a tin roof with distant thunder"}),
    Wish(
        "background_music",
        "background_music",
        {"prompt": "calm lo-fi piano with soft drums, 80 bpm", "duration_s": 20},
    ),
    Wish(
        "speech",
        "speech",
        {"text": "Hello. Every sound that you hear was made on this machine, a moment ago."},
    ),
)
TIMEOUT_S = 300.0


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="Copy the files to this folder.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a sound effect, a piece of music and a spoken line, all at once, and show what took how long."""
    run(_demo(read_settings(), out, keep=keep, as_json=as_json))


async def _demo(settings: Settings, out: Path | None, *, keep: bool, as_json: bool) -> None:
    started = time.monotonic()
    console = show.err() if as_json else show.out()
    async with service_client(settings, stations=True) as client:
        up_s = time.monotonic() - started
        _greet(console, client, up_s)
        asked = time.monotonic()
        made = await make_all(client, WISHES, timeout_s=TIMEOUT_S)
        took_s = time.monotonic() - asked
        places = await _places(settings, client, made, out)
        if as_json:
            show.print_json([summary(each, places.get(each.wish.name)) for each in made])
        else:
            _tell(console, client, made, places, took_s)
        if keep:
            await _stay(console, client)
    if not all(each.succeeded for each in made):
        raise CommandError("; ".join(complaints(made)), Exit.JOB_FAILED)


def _greet(console: Console, client: ServiceClient, up_s: float) -> None:
    whose = "was running already" if client.origin is Origin.RUNNING else f"up in {show.seconds(up_s)}"
    console.print(f"\n[bold]Reprise {__version__}[/]  {str(client.base_url).rstrip('/')}  [dim]{whose}[/]\n")
    for wish in WISHES:
        words = next(iter(wish.input.values()))
        console.print(f"  [cyan]{wish.name:<17}[/] {show.plain(words)}")


async def _places(
    settings: Settings, client: ServiceClient, made: Sequence[Made], out: Path | None
) -> dict[str, Path]:
    """The copies that were asked for, else the store's own files."""
    if out is not None:
        return await save_all(client, made, out)
    paths = {each.wish.name: stored_path(settings, audio_of(each.job)) for each in made if each.succeeded}
    return {name: path for name, path in paths.items() if path is not None}


def _tell(
    console: Console,
    client: ServiceClient,
    made: Sequence[Made],
    places: dict[str, Path],
    took_s: float,
) -> None:
    console.print()
    console.print(timing_table(made))
    for each in made:
        if not each.succeeded:
            continue
        name = each.wish.name
        place = places.get(name) or client.base_url.join(audio_of(each.job)["url"])
        # Never wrapped: a path that is cut in two cannot be copied.
        console.print(f"[cyan]{name:<17}[/] {show.plain(place)}", soft_wrap=True)
    good = sum(each.succeeded for each in made)
    console.print(f"\n{good} of {len(made)} sounds in {show.seconds(took_s)}, asked for at once.")


async def _stay(console: Console, client: ServiceClient) -> None:
    address = f"{str(client.base_url).rstrip('/')}/"
    if client.origin is not Origin.OURS:
        console.print(f"The service goes on; its dashboard: {address}")
        return
    console.print(f"The service stays up; its dashboard: {address}  API: {address}docs  Stop: Ctrl-C")
    await stop_signals().wait()
