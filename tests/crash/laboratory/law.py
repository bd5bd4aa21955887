"""What must be true of the rows, the store, the provider, the folders and the processes, whoever died.

Each check returns the ways in which its law is broken, in words; an empty list is the law kept. They read
the rows, the objects and the process table themselves and ask the service nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import obstore
import psutil
from obstore.store import ObjectStore, from_url
from sqlalchemy import func, select
from sqlmodel import SQLModel, col

from app.housekeeping import OWNER_KEY
from db.states import JobState
from db.tables import Asset, Attempt, Delivery, Event, Job, Output
from tests.crash.laboratory.world import World
from tests.fakes.provider import SECRET, TOKEN
from tests.laws import Row, Rows, only_results


async def read_rows(world: World) -> Rows:
    async def all_of(table: type[SQLModel]) -> Sequence[Row]:
        return [row._mapping for row in await world.ask(select(table.__table__))]  # type: ignore[attr-defined]

    return Rows(*[await all_of(each) for each in (Job, Attempt, Delivery, Event, Output, Asset)])


async def unsettled(world: World) -> int:
    """Deliveries that wait to be applied."""
    statement = select(func.count()).select_from(Delivery).where(col(Delivery.settled_at).is_(None))
    return int((await world.ask(statement))[0][0])


def jobs_ended(rows: Rows, accepted: Sequence[str], *, may_fail_with: frozenset[str]) -> list[str]:
    """I1, I8: what was accepted is there, once, and has ended well; nothing else is there."""
    found = Counter(job["id"] for job in rows.jobs)
    broken = [f"accepted and gone: {job_id}" for job_id in accepted if job_id not in found]
    broken += [f"accepted twice: {each}" for each, times in Counter(accepted).items() if times > 1]
    broken += [f"asked for by nobody: {job_id}" for job_id in found if job_id not in set(accepted)]
    for job in rows.jobs:
        if job["finished_at"] is None:
            broken.append(f"not ended: {job['id']} is {job['state']} ({job['waiting_reason']})")
        elif job["state"] == JobState.FAILED and job["error_code"] not in may_fail_with:
            broken.append(f"failed: {job['id']} {job['error_code']}: {job['error_message']}")
    return broken


def no_second_effect(rows: Rows, book: Mapping[str, Any], cut: int, troubles: int = 0) -> list[str]:
    """I2: one output a job, one prediction an attempt, and no attempt more than deaths and failures explain.

    `cut` is the most attempts that deaths may have cut short, `troubles` are failures of the provider's own,
    which cost an attempt each.
    """
    broken = only_results(rows)
    succeeded = {job["id"] for job in rows.jobs if job["state"] == JobState.SUCCEEDED}
    outputs = Counter(output["job_id"] for output in rows.outputs)
    broken += [f"{each} has {outputs[each]} outputs" for each in succeeded if outputs[each] != 1]
    wins = Counter(each["job_id"] for each in rows.attempts if each["status"] == "succeeded")
    broken += [f"{each} succeeded {times} times" for each, times in wins.items() if times > 1]
    known = {each["id"] for each in rows.attempts}
    asked = Counter(each["attempt_id"] for each in book["predictions"].values())
    broken += [f"a prediction that is no attempt: {each}" for each in asked if each not in known]
    broken += [f"{each} was created {times} times" for each, times in asked.items() if times > 1]
    extra = extra_attempts(rows)
    if extra > cut + troubles:
        broken.append(f"{extra} attempts too many, where deaths cost {cut} and {troubles} failed")
    return broken


def extra_attempts(rows: Rows) -> int:
    """Attempts beyond each job's first."""
    return len(rows.attempts) - len({each["job_id"] for each in rows.attempts})


def callbacks_stored_once(rows: Rows, book: Mapping[str, Any]) -> list[str]:
    """I1: every callback that had its 2xx is one row, settled; none waits, none was not understood."""
    stored = Counter(each["message_id"] for each in rows.deliveries if each["source"] == "webhook")
    broken = [f"acknowledged and gone: {each}" for each in book["acknowledged"] if not stored[each]]
    broken += [f"stored {times} times: {each}" for each, times in stored.items() if each and times > 1]
    for each in rows.deliveries:
        if each["settled_at"] is None:
            broken.append(f"never settled: {each['id']} ({each['detail']})")
        elif each["outcome"] == "quarantined":
            broken.append(f"quarantined: {each['id']} ({each['detail']})")
    return broken


async def objects_whole(world: World, rows: Rows) -> tuple[list[str], int]:
    """Every asset's objects can be read and are what their rows say; and how many objects no row names."""
    store = _store(world)
    broken = []
    for asset in rows.assets:
        content = await _read(store, asset["storage_key"])
        if content is None or hashlib.sha256(content).hexdigest() != asset["sha256"]:
            broken.append(f"the object of {asset['id']} is gone or another")
    named = {asset[key] for asset in rows.assets for key in ("storage_key", "peaks_key")} | {OWNER_KEY}
    orphans = 0
    async for batch in obstore.list(store):
        orphans += len([each for each in batch if each["path"] not in named])
    if world.database_url.startswith("sqlite"):
        # A write that was cut short is hidden by the store's listing.
        orphans += len([path for path in (world.folder / "assets").rglob("*") if "#" in path.name])
    return broken, orphans


def only_living_folders(world: World) -> list[str]:
    """While the members live: of temporary folders each has its own, and in it nothing of a step."""
    broken = []
    for machine in world.machines:
        living = {str(member.pid) for member in machine.members}
        for folder in (machine.var_dir / "tmp").iterdir():
            if folder.name.partition("-")[0] not in living:
                broken.append(f"left by a dead process: {folder}")
                continue
            left = {path.name for path in folder.iterdir()} - {"lock", "worker"}
            broken += [f"left by a step: {folder / name}" for name in left]
    return broken


def nothing_temporary(world: World) -> list[str]:
    """After the members have ended."""
    folders = [each for machine in world.machines for each in (machine.var_dir / "tmp").iterdir()]
    return [f"left after the end: {folder}" for folder in folders]


def no_orphan_process(world: World) -> list[str]:
    """No process of ours lives whose parents are all dead."""
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    lost = [process for process in world.kin() if process.pid not in ours]
    return [f"an orphan: {process.pid} {_words(process)}" for process in lost]


def no_process(world: World) -> list[str]:
    """After the members have ended."""
    return [f"still running: {process.pid} {_words(process)}" for process in world.kin()]


def no_secret_told(world: World) -> list[str]:
    """I7: what the members said holds none of our secrets."""
    broken = []
    for member in world.members:
        said = member.log.read_text(errors="replace")
        broken += [f"{member.name} said a secret" for secret in (TOKEN, SECRET) if secret in said]
    return broken


def ended_in_time(rows: Rows, *, slack: timedelta = timedelta(seconds=30)) -> list[str]:
    """I8: no job outlived its deadline."""
    return [
        f"{job['id']} ended after its deadline"
        for job in rows.jobs
        if job["finished_at"] is not None and job["finished_at"] > job["deadline_at"] + slack
    ]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _store(world: World) -> ObjectStore:
    if world.storage_url.startswith("file://"):
        return obstore.store.LocalStore(world.storage_url.removeprefix("file://"))
    return from_url(  # type: ignore[call-overload,no-any-return]
        world.storage_url,
        config={key.lower(): value for key, value in world.bucket.items()},
        client_options={"allow_http": True},
    )


async def _read(store: ObjectStore, key: str) -> bytes | None:
    try:
        return bytes(await (await obstore.get_async(store, key)).bytes_async())
    except FileNotFoundError:
        return None
