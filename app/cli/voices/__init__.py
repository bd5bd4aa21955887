"""`reprise voices …`: voice profiles, made from recordings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from app.cli.jobs import Cursor, Limit, given
from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import Json, call, download, problem_of, run, upload
from app.cli.tools.connection import ask, read_settings, service_client
from app.settings import Settings

voices = typer.Typer(no_args_is_help=True, help="Voice profiles: create, list, show, rename, delete, export.")

VoiceId = Annotated[str, typer.Argument(metavar="ID", help="The voice's id, as `voices list` shows it.")]
_STORED = re.compile(r"(upl|ast)_[0-9a-f]{32}", re.ASCII)


@voices.command("create")
def create_voice(
    name: Annotated[str, typer.Argument(help="For people: whose voice it is.")],
    recording: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="15 to 60 s of speech or singing; or the id of an upload or an asset."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Make a voice of a recording. One that is not good enough is refused with what was measured."""
    made = run(_create(read_settings(), name, recording))
    show.print_json(made) if as_json else _print_voice(made)


@voices.command("list")
def list_voices(limit: Limit = 20, cursor: Cursor = None, as_json: AsJson = False) -> None:
    """Voices, newest first."""
    wanted = given({"limit": limit, "cursor": cursor})
    page = run(ask(read_settings(), "GET", "/v1/voices", params=wanted))
    if as_json:
        show.print_json(page)
        return
    table = show.table("id", "name", "age", "lasts", "SNR", "range", "like", flexible=("name",))
    for each in page["items"]:
        table.add_row(
            each["id"], show.cut(each["name"]), show.age(each["created_at"]),
            show.seconds(each["duration_s"]), _decibels(each), _range(each), str(len(each["duplicates"])),
        )  # fmt: skip
    show.print_page(table, page, "There are no voices.")


@voices.command("show")
def show_voice(voice_id: VoiceId, as_json: AsJson = False) -> None:
    """One voice, and those that sound like it."""
    found = run(ask(read_settings(), "GET", f"/v1/voices/{voice_id}"))
    show.print_json(found) if as_json else _print_voice(found)


@voices.command("rename")
def rename_voice(
    voice_id: VoiceId, name: Annotated[str, typer.Argument(help="The new name.")], as_json: AsJson = False
) -> None:
    """Give a voice another name."""
    found = run(ask(read_settings(), "PATCH", f"/v1/voices/{voice_id}", json={"name": name}))
    show.print_json(found) if as_json else _print_voice(found)


@voices.command("delete")
def delete_voice(voice_id: VoiceId) -> None:
    """Delete a voice. What was made with it stays; jobs that wait for it fail."""
    run(_delete(read_settings(), voice_id))
    show.print_line(f"{voice_id} is deleted.")


@voices.command("export")
def export_voice(
    voice_id: VoiceId,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PATH", help="Where to put the zip.")],
) -> None:
    """Save a voice's figures, embedding and recording as a zip."""
    run(_export(read_settings(), voice_id, output))
    show.print_line(str(output))


async def _create(settings: Settings, name: str, recording: str) -> Json:
    async with service_client(settings, stations=False) as client:
        file_id = recording if _STORED.fullmatch(recording) else await upload(client, Path(recording))
        named = "upload_id" if file_id.startswith("upl_") else "asset"
        return await call(client, "POST", "/v1/voices", json={"name": name, named: file_id})


async def _delete(settings: Settings, voice_id: str) -> None:
    async with service_client(settings, stations=False) as client:
        response = await client.delete(f"/v1/voices/{voice_id}")
        if response.is_error:
            raise problem_of(response)


async def _export(settings: Settings, voice_id: str, output: Path) -> None:
    async with service_client(settings, stations=False) as client:
        await download(client, f"/v1/voices/{voice_id}/export", output)


def _print_voice(voice: Json) -> None:
    rows = (
        ("id", voice["id"]),
        ("name", voice["name"]),
        ("recording", f"{voice['asset_id']}, {show.seconds(voice['duration_s'])}, SNR {_decibels(voice)}"),
        ("range", _range(voice)),
        ("consistency", "–" if voice["consistency"] is None else f"{voice['consistency']:.2f}"),
        *(("sounds like", f"{each['voice_id']} ({each['similarity']:.2f})") for each in voice["duplicates"]),
    )
    for word, value in rows:
        show.print_line(f"{word:12} {value}")


def _decibels(voice: Json) -> str:
    return "–" if voice["snr_db"] is None else f"{voice['snr_db']:.0f} dB"


def _range(voice: Json) -> str:
    pitches = voice["vocal_range"]
    return "–" if pitches is None else f"{pitches['lowest']['note']}–{pitches['highest']['note']}"
