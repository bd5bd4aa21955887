"""What can be sung: a song named by a job or by its assets, checked to be the tenant's own sound.

Its sound is held until the commit, by which the performance that it goes into keeps it (`files`).
"""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import InvalidInput
from app.karaoke.lyrics.lines import clean
from app.karaoke.stage.singers import Song
from db.assets import list_outputs
from db.jobs import find_job
from db.karaoke.lyrics import find_lyrics
from db.session import Transaction
from db.tables import Asset
from db.uploads import hold_asset

MOST_TITLE_CHARS = 200
UNTITLED = "Untitled"


@dataclass(frozen=True, slots=True)
class WantedSong:
    """A song as a caller names it."""

    title: str | None = None
    job_id: str | None = None
    """A `stem_separation`, or a `voice_conversion` that returned its stems; any job with an `audio`."""
    vocals: str | None = None
    instrumental: str | None = None
    lyrics_id: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.job_id or self.vocals or self.instrumental or self.lyrics_id)


async def find_song(tx: Transaction, tenant: str, wanted: WantedSong) -> Song:
    """The song with its assets. Raises InvalidInput naming the field that leads nowhere."""
    stems: dict[str, Asset] = {}
    if wanted.job_id is not None:
        stems = await _stems_of(tx, tenant, wanted.job_id)
    for name in ("vocals", "instrumental"):
        asset_id = getattr(wanted, name)
        if asset_id is not None:
            stems[name] = await _sound(tx, tenant, asset_id, name)
    if not stems:
        raise InvalidInput("job_id: name a job, or `vocals`, `instrumental` or both", field="job_id")
    title = None
    if wanted.lyrics_id is not None:
        lyrics = await find_lyrics(tx, wanted.lyrics_id, tenant=tenant)
        if lyrics is None:
            raise InvalidInput("lyrics_id: there are no such lyrics", field="lyrics_id")
        title = lyrics.title
    return Song(
        title=name_of(wanted.title, "title", default=title or UNTITLED),
        vocals=stems["vocals"].id if "vocals" in stems else None,
        instrumental=stems["instrumental"].id if "instrumental" in stems else None,
        lyrics_id=wanted.lyrics_id,
        job_id=wanted.job_id,
        duration_s=round(max(asset.duration_s for asset in stems.values()), 3),
    )


def name_of(given: str | None, field: str, *, default: str | None = None) -> str:
    """A title or a name as screens may show it. Raises InvalidInput."""
    found = clean(given if given is not None else default or "")[:MOST_TITLE_CHARS].strip()
    if not found:
        raise InvalidInput(f"{field}: at least one character that can be seen", field=field)
    return found


async def _stems_of(tx: Transaction, tenant: str, job_id: str) -> dict[str, Asset]:
    job = await find_job(tx, job_id)
    if job is None or job.tenant != tenant:
        raise InvalidInput("job_id: there is no such job", field="job_id")
    outputs = (await list_outputs(tx, job_id)).get(job_id, {})
    sounds = {name: asset for name, asset in outputs.items() if asset.channels}
    stems: dict[str, Asset] = {name: sounds[name] for name in ("vocals", "instrumental") if name in sounds}
    if not stems and "audio" in sounds:
        # One file with all in it is sung to, too: only its voice cannot be turned down.
        stems["instrumental"] = sounds["audio"]
    held = [
        await hold_asset(tx, asset_id, tenant=tenant) for asset_id in sorted(a.id for a in stems.values())
    ]
    if not stems or None in held:
        raise InvalidInput(
            f"job_id: a {job.kind} that is {job.state} has no sound to sing to", field="job_id"
        )
    return stems


async def _sound(tx: Transaction, tenant: str, asset_id: str, field: str) -> Asset:
    asset = await hold_asset(tx, asset_id, tenant=tenant)
    if asset is None:
        raise InvalidInput(f"{field}: there is no such asset", field=field)
    if not asset.channels:
        raise InvalidInput(f"{field}: this asset is not sound", field=field)
    return asset
