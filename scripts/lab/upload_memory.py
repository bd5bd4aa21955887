#!/usr/bin/env python
"""See how much memory a service needs while a large file comes: by tus in requests, in one, and by multipart.

    scripts/lab/upload_memory.py [--megabytes 200] [--at-once 1] [--json FILE]

A service of its own without a worker, on SQLite and a folder in a temporary place; noise as WAV goes in as
fast as it is taken. Its memory is the resident set of the service and its children, read every 20 ms; what is
told is the most of it beyond what was there before, and how long it took. Exit code 1 when an upload needs
more than 64 MB for each file that comes at once, or its SHA-256 is another.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
MOST_EACH = 64e6
RATE, CHANNELS = 48_000, 2
CHUNK = 256 * 1024
TUS = {"Tus-Resumable": "1.0.0"}


class Song:
    """A WAV of noise, made as it is read."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes // 4 * 4 + 44
        frame = CHANNELS * 2
        self._noise = random.Random(1).randbytes(4 << 20)
        form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, CHANNELS, RATE, RATE * frame, frame, 16)
        data = self.size_bytes - 44
        self._head = struct.pack("<4sI4s", b"RIFF", self.size_bytes - 8, b"WAVE") + form
        self._head += struct.pack("<4sI", b"data", data)
        digest = hashlib.sha256()
        at = 0
        while at < self.size_bytes:
            piece = self.read(at, CHUNK)
            digest.update(piece)
            at += len(piece)
        self.sha256 = digest.hexdigest()

    def read(self, at: int, most: int) -> bytes:
        if at < 44:
            return self._head[at:]
        place = (at - 44) % len(self._noise)
        return self._noise[place : place + min(most, self.size_bytes - at, len(self._noise) - place)]

    async def stream(self, start: int, end: int) -> AsyncIterator[bytes]:
        at = start
        while at < end:
            piece = self.read(at, min(CHUNK, end - at))[: end - at]
            yield piece
            at += len(piece)


async def by_tus(client: httpx.AsyncClient, song: Song, most: int) -> str:
    begun = await client.post("/v1/uploads", headers={**TUS, "Upload-Length": str(song.size_bytes)})
    address, at = begun.headers["location"], 0
    while at < song.size_bytes:
        end = min(at + most, song.size_bytes)
        headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": str(at)}
        headers["Content-Length"] = str(end - at)
        answer = await client.patch(address, headers=headers, content=song.stream(at, end))
        answer.raise_for_status()
        at = end
    return str((await client.get(address)).json()["sha256"])


async def by_multipart(client: httpx.AsyncClient, song: Song) -> str:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        async for piece in song.stream(0, song.size_bytes):
            yield piece
        yield b"\r\n--b--\r\n"

    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await client.post("/v1/uploads", content=body(), headers=headers)
    answer.raise_for_status()
    return str(answer.json()["sha256"])


def resident(service: psutil.Process) -> int:
    found = 0
    for each in (service, *service.children(recursive=True)):
        try:
            found += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return found


async def measured(service: psutil.Process, work: Callable[[], Awaitable[Any]]) -> tuple[int, float, Any]:
    before, most, began = resident(service), 0, time.monotonic()
    task = asyncio.ensure_future(work())
    while not task.done():
        most = max(most, resident(service) - before)
        await asyncio.wait([task], timeout=0.02)
    return most, time.monotonic() - began, await task


async def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=1, choices=range(1, 9))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    song = Song(given.megabytes * 1_000_000)
    with tempfile.TemporaryDirectory(prefix="reprise-lab-") as folder:
        environment = {
            **os.environ,
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/reprise.db",
            "STORAGE_URL": f"file://{folder}/assets",
            "VAR_DIR": f"{folder}/var",
            "MAX_UPLOAD_BYTES": "2000000000",
            "MAX_CONTENT_LENGTH": "2100000000",
            "RATE_LIMITS": "none",
            "PYTHONPATH": str(ROOT),
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "serve", "--no-worker", "--port", "0",
            env=environment, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return await compare(process, song, given)
        finally:
            process.terminate()
            await process.wait()


async def compare(process: asyncio.subprocess.Process, song: Song, given: argparse.Namespace) -> int:
    service = psutil.Process(process.pid)
    url = await _address(service)
    rows, is_well = [], True
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
        ways: dict[str, Callable[[], Awaitable[str]]] = {
            "warm": lambda: by_multipart(client, Song(2_000_000)),
            "tus, requests of 16 MiB": lambda: by_tus(client, song, 16 << 20),
            "tus, one request": lambda: by_tus(client, song, song.size_bytes),
            "multipart": lambda: by_multipart(client, song),
        }
        for name, send in ways.items():
            most, took_s, digests = await measured(
                service, lambda send=send: asyncio.gather(*(send() for _ in range(given.at_once)))
            )
            if name == "warm":
                continue
            good = most <= MOST_EACH * given.at_once and set(digests) == {song.sha256}
            is_well = is_well and good
            rows.append({"way": name, "peak_mb": round(most / 1e6, 1), "s": round(took_s, 1), "ok": good})
            print(f"{name:28} {rows[-1]['peak_mb']:8} MB {rows[-1]['s']:7} s  {'ok' if good else 'NOT OK'}")
    if given.json:
        given.json.write_text(json.dumps({"bytes": song.size_bytes, "at_once": given.at_once, "rows": rows}))
    return 0 if is_well else 1


async def _address(service: psutil.Process) -> str:
    """Where it listens, once it does."""
    async with asyncio.timeout(60):
        while True:
            for each in service.net_connections("tcp"):
                if each.status == psutil.CONN_LISTEN:
                    return f"http://127.0.0.1:{each.laddr.port}"
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
