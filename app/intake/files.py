"""The files that a job reads: found, judged and kept for it in the transaction that stores the job.

An input that is a file names an upload, or an asset of an earlier job, of the same tenant. Promises: a name
that leads nowhere is refused with the field before anything is stored; a file that was found is there until
the job is deleted; what is stored in the job is the asset's id, whatever was named.

A voice is not kept by the jobs that name it: whoever deletes it is obeyed by those that wait, too. Its
recording is looked up when a job comes in, and again at each attempt.
"""

from __future__ import annotations

from app.errors import InvalidInput, VoiceGone
from app.kinds import get_kind
from db.session import Database, Transaction
from db.tables import Asset, Job
from db.uploads import hold_asset, hold_upload
from db.voices import find_recordings


async def find_files(tx: Transaction, job: Job) -> dict[str, str]:
    """The job's files by input name, as asset ids, which replace what was named in its input.

    They are held until the commit. Raises InvalidInput.
    """
    files: dict[str, str] = {}
    for name in await _missing_voices(tx, job):
        raise InvalidInput(f"input.{name}: there is no such voice", field=f"input.{name}")
    for name, longest_s in get_kind(job.kind).files.items():
        asset = await _find(tx, job, job.input[name])
        if asset is None:
            raise InvalidInput(f"input.{name}: there is no such upload or asset", field=f"input.{name}")
        if not asset.channels:
            raise InvalidInput(f"input.{name}: this asset is not sound", field=f"input.{name}")
        if asset.duration_s > longest_s:
            too_long = f"lasts {asset.duration_s:.0f} s, a {job.kind} takes at most {longest_s:g} s"
            raise InvalidInput(f"input.{name}: {too_long}", field=f"input.{name}")
        files[name] = asset.id
    if files:
        job.input = {**job.input, **files}
    return files


async def _find(tx: Transaction, job: Job, file_id: str) -> Asset | None:
    if file_id.startswith("upl_"):
        return await hold_upload(tx, file_id, tenant=job.tenant, now=job.created_at)
    return await hold_asset(tx, file_id, tenant=job.tenant)


async def find_links(database: Database, job: Job) -> dict[str, str]:
    """The assets that an attempt at this job reads, by input. Raises VoiceGone."""
    kind = get_kind(job.kind)
    links = {name: str(job.input[name]) for name in kind.files}
    if kind.voices:
        async with database.reading() as tx:
            wanted = [str(job.input[name]) for name in kind.voices]
            found = await find_recordings(tx, wanted, tenant=job.tenant)
        if gone := set(wanted) - found.keys():
            raise VoiceGone(f"the voice {min(gone)} was deleted")
        links |= {name: found[str(job.input[name])] for name in kind.voices}
    return links


async def _missing_voices(tx: Transaction, job: Job) -> list[str]:
    """The inputs that name a voice that this tenant does not have."""
    names = get_kind(job.kind).voices
    if not names:
        return []
    found = await find_recordings(tx, [str(job.input[name]) for name in names], tenant=job.tenant)
    return sorted(name for name in names if job.input[name] not in found)
