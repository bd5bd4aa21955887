"""A parent's own files: what its children made, mixed; and what of theirs it gives back as it is.

A step of the finisher, under its lease. Promises: the mix is stereo, has the rate and the length of the song
that was sent, and a true peak of at most -1.5 dBTP; every figure was measured, of this mix here, of a part by
the model that made it; a mix that was made before by the same recipe is taken as it is. Leaves storing rows
and ending the job to the finisher.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.audio import Audio, Clip, Frame, Layer
from app.crash_points import CrashPoint
from app.errors import NotFound, ProviderBadResponse, StorageUnavailable
from app.intake.shelf import described_sound, shelve
from app.kinds import get_kind
from app.kinds.base import Family, Lane
from app.line import Line
from app.storage import Storage
from db import families as family_rows
from db.assets import find_asset, list_outputs
from db.tables import Asset, Job

MIX = "audio"
"""The output that is made here."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a parent ends with."""

    assets: dict[str, Asset]
    """By output name; some may be stored already."""
    measured: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the children made, by step and output name, and the song that was sent."""

    song: Asset
    made: Mapping[str, Mapping[str, Asset]]
    earlier: tuple[Asset, dict[str, Any] | None] | None
    """The mix of an earlier job by the same recipe, and what was measured of it."""
    figures: dict[str, Any]
    """What was measured of the parts by the models that made them; null for what they did not say."""


class Joiner:
    """Makes the files of parents. One a finisher."""

    def __init__(self, *, line: Line, audio: Audio, storage: Storage) -> None:
        self._line = line
        self._audio = audio
        self._storage = storage

    async def join(self, job: Job, folder: Path, timings: dict[str, float]) -> Joined:
        """Raises ProviderBadResponse where a part is missing, AudioRejected, StorageUnavailable."""
        kind = get_kind(job.kind)
        family, wanted = kind.family, kind.input_model.model_validate(job.input)
        if family is None:
            raise ProviderBadResponse(f"{job.kind} is not made of other jobs")
        parts = await self._read(job, family)
        given = {name: parts.made[part][output] for name, (part, output) in family.places(wanted).items()}
        if parts.earlier is not None:
            mix, measured = parts.earlier
            return Joined({MIX: mix, **given}, measured)
        mix, measured = await self._mix(parts, family.layers(wanted), folder, timings)
        return Joined({MIX: mix, **given}, measured | parts.figures)

    async def _read(self, job: Job, family: Family) -> _Parts:
        async with self._line.database.reading() as tx:
            children = await family_rows.list_children(tx, job.id)
            outputs = await list_outputs(tx, *(child.id for child in children))
            song = await find_asset(tx, job.input["audio"])
            earlier = await family_rows.find_made(tx, job.tenant, job.recipe) if job.recipe else None
            mixes = (await list_outputs(tx, earlier.id)).get(earlier.id, {}) if earlier else {}
        made = {child.step or "": outputs.get(child.id, {}) for child in children}
        missing = [part.name for part in family.parts if not made.get(part.name)]
        if song is None or missing:
            raise ProviderBadResponse(f"what it is made of is gone: {', '.join(missing) or 'the song'}")
        known = (mixes[MIX], earlier.measured) if earlier and MIX in mixes else None
        return _Parts(song, made, known, _figures_of(children))

    async def _mix(
        self, parts: _Parts, lanes: Sequence[Lane], folder: Path, timings: dict[str, float]
    ) -> tuple[Asset, dict[str, Any]]:
        began = time.perf_counter()
        layers = [
            await self._layer(parts.made[lane.part][lane.output], folder / f"layer{number}", lane.volume)
            for number, lane in enumerate(lanes)
        ]
        timings["fetch_s"] = time.perf_counter() - began
        began = time.perf_counter()
        path, rate = folder / "mix.flac", parts.song.sample_rate
        mix = await self._audio.mix(layers, path, Frame(rate, round(parts.song.duration_s * rate)))
        timings["trim_s"] = time.perf_counter() - began
        self._line.reach(CrashPoint.PARTS_JOINED)
        began = time.perf_counter()
        now = self._line.clock.now()
        asset = await shelve(self._storage, self._line.database, path, described_sound(mix.clip), now=now)
        timings["store_s"] = time.perf_counter() - began
        self._line.reach(CrashPoint.OUTPUT_STORED)
        measured = {
            "mix_true_peak_db": mix.measured.true_peak_db,
            "mix_loudness_lufs": mix.measured.loudness_lufs,
            "mix_gain_db": mix.measured.gain_db,
        }
        return asset, measured

    async def _layer(self, asset: Asset, path: Path, volume: float) -> Layer:
        """A stored sound as a file here. It was proven to be sound when it was stored."""
        try:
            with path.open("wb") as file:
                async for chunk in self._storage.read(asset.storage_key):
                    await asyncio.to_thread(file.write, chunk)
        except NotFound as exc:
            raise StorageUnavailable("what it is made of is not in the store") from exc
        except OSError as exc:
            raise StorageUnavailable(f"no room for temporary files: {exc.strerror}") from exc
        clip: Clip = await self._audio.probe(path)
        return Layer(path, clip, volume)


def _figures_of(children: Sequence[Job]) -> dict[str, Any]:
    return {
        name: (child.measured or {}).get(name) for child in children for name in get_kind(child.kind).figures
    }
