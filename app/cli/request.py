"""`reprise request`: ask for audio, and with `--wait` stay until it is there.

Owns how a command line becomes a job's input, and what is printed of its end. With `--wait` and nothing
running, a service lives in this process just as long as the job does.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from app.cli.batch import stored_path, suffix
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, call, download, follow, run, submit, upload
from app.cli.tools.connection import Origin, ServiceClient, read_settings, service_client
from app.kinds import KINDS
from app.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def request(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    prompt: Annotated[
        str, typer.Argument(help="What to hear; for speech and translation, the text. None for files.")
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another input, such as duration_s=8. Repeatable."),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file", metavar="NAME=PATH", help="A file as input, such as audio=talk.mp3. Repeatable."
        ),
    ] = None,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Stay until it has ended. Follows from -o when not given."),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait; the job goes on afterwards.")
    ] = 600.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Download to this file; of several outputs the one of its suffix, else all into it.",
        ),
    ] = None,
    provider: Annotated[str, typer.Option(help="auto, or the provider to keep to.")] = "auto",
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Told when it has ended, by a signed POST.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say where it would run, why and how soon; ask for nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for audio. Prints the job's id; with --wait where the sound is."""
    paths = _paths(kind, files or [])
    if output is not None and wait is False:
        raise CommandError("-o: needs --wait: there is nothing to download before the end", Exit.USAGE)
    waits = wait or output is not None
    body = {"kind": kind, "input": _input(kind, prompt, settings or []), "provider": provider}
    if callback_url is not None:
        body["callback_url"] = callback_url
    if dry_run:
        run(_forecast(read_settings(), body, paths, as_json=as_json))
        return
    run(_request(read_settings(), body, paths, timeout_s if waits else None, output, as_json=as_json))


async def ended_job(client: ServiceClient, job_id: str, timeout_s: float, *, name: str | None = None) -> Json:
    """A job once it has ended, with a bar on a terminal meanwhile. Raises CommandError with code 5."""
    try:
        async with asyncio.timeout(timeout_s):
            with show.progress(name or job_id) as (note,):
                await follow(client, job_id, note)
    except TimeoutError as exc:
        stays = (
            "goes on" if client.origin is Origin.RUNNING else "is stored and goes on with the next service"
        )
        message = f"job {job_id} has not ended within {timeout_s:g} s; it {stays}"
        raise CommandError(message, Exit.TIMED_OUT) from exc
    return await call(client, "GET", f"/v1/jobs/{job_id}")


def refuse_unsuccessful(job: Json) -> None:
    """Raises CommandError with code 4 unless the job succeeded."""
    if job["state"] != "succeeded":
        error = job["error"] or {"code": job["state"], "message": "it was canceled"}
        message = f"job {job['id']} {job['state']}: {error['message']} ({error['code']})"
        raise CommandError(message, Exit.JOB_FAILED)


async def _forecast(settings: Settings, body: Json, paths: dict[str, Path], *, as_json: bool) -> None:
    async with service_client(settings, stations=False) as client:
        for name, path in paths.items():
            body["input"][name] = await upload(client, path)
        found = await call(client, "POST", "/v1/jobs", json={**body, "dry_run": True})
    if as_json:
        show.print_json(found)
        return
    wait = "not known" if found["wait_s"] is None else show.seconds(found["wait_s"])
    facts = {
        "provider": found["provider"] or "none",
        "model": found["model"],
        "why": found["why"],
        "wait": f"{wait}, {found['wait_basis']}",
    }
    route = show.table("route", "model", "open", "at work", "waiting", "usually", "costs about")
    for stage in found["route"]:
        slots = "" if stage["slots"] is None else f" of {stage['slots']}"
        route.add_row(
            stage["provider"], show.cut(stage["model"]),
            "yes" if stage["is_open"] else show.cut(stage["reason"]),
            f"{stage['live']}{slots}", str(stage["waiting"]),
            "" if stage["usual_s"] is None else show.seconds(stage["usual_s"]),
            "not known" if stage["usd"] is None else f"{stage['usd']:.4f} $",
        )  # fmt: skip
    for made in (show.grid(facts), route):
        show.out().print(made)


async def _request(
    settings: Settings,
    body: Json,
    paths: dict[str, Path],
    timeout_s: float | None,
    output: Path | None,
    *,
    as_json: bool,
) -> None:
    async with service_client(settings, stations=timeout_s is not None) as client:
        for name, path in paths.items():
            body["input"][name] = await upload(client, path)
        job = await submit(client, body)
        if timeout_s is None:
            show.print_json(job) if as_json else show.print_line(job["id"])
            if client.origin is Origin.IN_PROCESS:
                show.err().print("[dim]No service is running: the job waits for `reprise serve`.[/]")
            return
        job = await ended_job(client, job["id"], timeout_s, name=body["kind"])
        if as_json:
            show.print_json(job)
        refuse_unsuccessful(job)
        targets = _targets(job["outputs"], output) if output is not None else {}
        for name, path in targets.items():
            await download(client, job["outputs"][name]["url"], path)
        if not as_json:
            for name in targets or job["outputs"]:
                _print_place(settings, client, job, name, targets.get(name))


def _targets(outputs: Json, output: Path) -> dict[str, Path]:
    """Which outputs are downloaded where."""
    fitting = [name for name in outputs if len(outputs) == 1 or f".{suffix(outputs[name])}" == output.suffix]
    if len(fitting) == 1:
        return {fitting[0]: output}
    return {name: output / f"{name}.{suffix(each)}" for name, each in outputs.items()}


def _print_place(
    settings: Settings, client: ServiceClient, job: Json, name: str, target: Path | None
) -> None:
    made = job["outputs"][name]
    # The address of a service that ends with a command would be dead once it is printed.
    kept = stored_path(settings, made) if client.origin is not Origin.RUNNING else None
    show.print_line(str(target or kept or client.base_url.join(made["url"])))
    if show.err().is_terminal:
        engine = job["attempts"][-1]["engine"] or job["attempts"][-1]["provider"]
        length = [show.seconds(made["duration_s"])] if made["duration_s"] is not None else []
        facts = (*length, made["media_type"], show.size(made["size_bytes"]), engine)
        show.err().print(f"[dim]{escape(' · '.join(facts))}[/]")


def _paths(kind: str, files: list[str]) -> dict[str, Path]:
    """NAME=PATH, for names that this kind reads from files."""
    known = KINDS[kind].files if kind in KINDS else {}
    paths: dict[str, Path] = {}
    for pair in files:
        name, equals, path = pair.partition("=")
        if not known:
            raise CommandError(f"--file: {kind} takes no files", Exit.USAGE)
        if not equals or name not in known:
            raise CommandError(f"--file: {pair!r} is not {' or '.join(known)}=PATH", Exit.USAGE)
        paths[name] = Path(path)
    return paths


def _input(kind: str, prompt: str, settings: list[str]) -> dict[str, Any]:
    """PROMPT in the field that this kind has for it, then every KEY=VALUE: JSON if it is, else text."""
    fields = KINDS[kind].input_model.model_fields if kind in KINDS else {}
    given: dict[str, Any] = {"text" if "text" in fields else "prompt": prompt} if prompt else {}
    for pair in settings:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise CommandError(f"--set: {pair!r} is not KEY=VALUE", Exit.USAGE)
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    return given
