"""What the service stands on here: ffmpeg, the database, the store, the disk, the webhook secrets."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import struct
import tempfile
import time
import wave
from pathlib import Path

from app.audio import Audio, default_binary
from app.audio.processes import run
from app.cli.doctor.finding import Check, Finding
from app.errors import EngineUnavailable, StartupError
from app.provider.signature import WebhookSecrets
from app.settings import Settings
from app.wiring.openers import disks_of, open_database, open_storage
from app.workspace import Disks
from db import schema
from db.mysql.server import find_weaknesses

_LITTLE_DISK_BYTES, _NO_DISK_BYTES = 2_000_000_000, 200_000_000
_SLOW_QUERY_MS = 250.0
_RATE_HZ = 44_100
_FILTERS = ("silenceremove", "areverse", "volumedetect")
_ENCODERS = ("libmp3lame", "flac")


async def _check_ffmpeg(settings: Settings) -> list[Finding]:
    binary = settings.ffmpeg_binary or default_binary()
    try:
        said = await run([binary, "-version"], timeout_s=10, stdout_bytes=400)
        filters = await run([binary, "-hide_banner", "-filters"], timeout_s=10, stdout_bytes=200_000)
        encoders = await run([binary, "-hide_banner", "-encoders"], timeout_s=10, stdout_bytes=200_000)
    except EngineUnavailable as exc:
        return [Finding.fail("ffmpeg", exc.message, _FFMPEG_HINT)]
    words = {
        *filters.stdout.decode(errors="replace").split(),
        *encoders.stdout.decode(errors="replace").split(),
    }
    missing = [name for name in (*_FILTERS, *_ENCODERS) if name not in words]
    if said.exit_code != 0 or missing:
        detail = f"{binary}: exit code {said.exit_code}, missing: {', '.join(missing) or 'nothing'}"
        return [Finding.fail("ffmpeg", detail, _FFMPEG_HINT)]
    version = " ".join(said.stdout.decode(errors="replace").split()[:3])
    return [Finding.ok("ffmpeg", f"{version}, with {', '.join((*_FILTERS, *_ENCODERS))}")]


async def _check_trimming(settings: Settings) -> list[Finding]:
    """One second of tone between two of silence must come back as one second."""
    audio = Audio(binary=settings.ffmpeg_binary or default_binary(), timeout_s=10)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "tone.wav"), Path(folder, "trimmed.wav")
        _write_tone(source)
        began = time.perf_counter()
        clip = await audio.trim(source, target, threshold=settings.replicate_silence_threshold)
        took_ms = (time.perf_counter() - began) * 1000
    if not 0.95 <= clip.duration_s <= 1.2:
        detail = f"3 s with 1 s of tone inside came back as {clip.duration_s:.2f} s"
        return [Finding.fail("trimming", detail, "Check REPLICATE_SILENCE_THRESHOLD.")]
    return [
        Finding.ok(
            "trimming", f"3 s with a tone inside came back as {clip.duration_s:.2f} s in {took_ms:.0f} ms"
        )
    ]


async def _check_database(settings: Settings) -> list[Finding]:
    database = open_database(settings)
    try:
        await database.health()  # connects; the second answer tells how long one takes
        health = await database.health()
        if not health.ok:
            return [Finding.fail("database", health.detail, "Check DATABASE_URL and that the server runs.")]
        here, wanted = await schema.current_revision(database), schema.head_revision()
        standing = await schema.standing(database)
        weaknesses = []
        if database.is_mysql:
            weaknesses = await find_weaknesses(database.engine, largest_bytes=settings.max_content_length)
    finally:
        await database.aclose()
    kind = "SQLite" if settings.is_sqlite else "PostgreSQL" if settings.is_shared else "MySQL"
    detail = f"{kind} answers in {health.latency_ms:.1f} ms, schema at {here or 'nothing yet'}"
    if standing in (schema.Standing.CURRENT, schema.Standing.NEWER):
        if health.latency_ms > _SLOW_QUERY_MS:
            return [Finding.warn("database", detail, "That is slow for one row.")]
        if weaknesses:
            return [Finding.warn("database", f"{detail}; {weak}", _MYSQL_HINT) for weak in weaknesses]
        return [Finding.ok("database", detail)]
    if settings.is_sqlite and here is None:
        return [Finding.ok("database", f"{detail}: the first start brings it to {wanted}")]
    if standing is schema.Standing.FOREIGN:
        hint = "Run the release that made it, or let that one take it back."
        return [Finding.fail("database", f"{detail}, which this release cannot work with", hint)]
    return [Finding.fail("database", f"{detail}, this code wants {wanted}", "Run `reprise migrate`.")]


async def _check_storage(settings: Settings) -> list[Finding]:
    wrong = await open_storage(settings).check()
    if wrong:
        return [Finding.fail("storage", f"{settings.storage_url}: {wrong}", _STORAGE_HINT)]
    return [Finding.ok("storage", f"{settings.storage_url} can be written, read and removed from")]


async def _check_disk(settings: Settings) -> list[Finding]:
    writable = await asyncio.to_thread(_writable, settings.var_dir)
    places = {f"{settings.var_dir}/": writable} | await Disks(disks_of(settings), floor_bytes=0).disk_left()
    least = min(places.values())
    free = ", ".join(f"{place} {free / 1e9:.1f} GB" for place, free in places.items() if place != "var")
    detail = f"{settings.var_dir}/ is writable; free: {free}"
    if least < _NO_DISK_BYTES:
        return [Finding.fail("disk", detail, "Make room: jobs will fail to be stored.")]
    if least < _LITTLE_DISK_BYTES:
        return [Finding.warn("disk", detail, "Make room, or give VAR_DIR and STORAGE_URL a larger disk.")]
    return [Finding.ok("disk", detail)]


async def _check_secrets(settings: Settings) -> list[Finding]:
    secret = settings.replicate_webhook_secret
    if secret is None:
        fetched = settings.replicate_api_token is not None
        detail = "not set: fetched from the API at the start" if fetched else "not set, and not needed"
        return [Finding.ok("webhook secret", detail)]
    given = secret.get_secret_value().split()
    try:
        WebhookSecrets(given)
    except StartupError as exc:
        return [Finding.fail("webhook secret", exc.message, _SECRETS_HINT)]
    return [Finding.ok("webhook secret", f"{len(given)} in REPLICATE_WEBHOOK_SECRET, each decodes")]


def _write_tone(path: Path) -> None:
    silence = [0] * _RATE_HZ
    tone = [round(12_000 * math.sin(2 * math.pi * 440 * at / _RATE_HZ)) for at in range(_RATE_HZ)]
    samples = [*silence, *tone, *silence]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(_RATE_HZ)
        out.writeframes(struct.pack(f"<{len(samples)}h", *samples))


def _writable(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder)
    os.close(handle)
    Path(name).unlink()
    return shutil.disk_usage(folder).free


_MYSQL_HINT = "Set it in the server's configuration: docs/how-to/run-on-mysql.md."
_FFMPEG_HINT = "Set FFMPEG_BINARY to an ffmpeg with these parts, or leave it empty for the one in the wheel."
_STORAGE_HINT = "Check that STORAGE_URL is a folder that this user may write."
_SECRETS_HINT = "REPLICATE_WEBHOOK_SECRET: `whsec_…` as the API gives it, several separated by spaces."
_DISK_HINT = "Check that VAR_DIR is a folder that this user may write."

LOCAL_CHECKS = (
    Check("ffmpeg", _check_ffmpeg, 20, _FFMPEG_HINT),
    Check("trimming", _check_trimming, 20, _FFMPEG_HINT),
    Check("database", _check_database, 15, "Check DATABASE_URL."),
    Check("storage", _check_storage, 15, _STORAGE_HINT),
    Check("disk", _check_disk, 10, _DISK_HINT),
    Check("webhook secret", _check_secrets, 5, _SECRETS_HINT),
)
