"""A database filled with jobs in bulk, as years of use would leave it: for the benches of size.

Ids are UUIDv7 of the time at which the job was made, as the product's are. One job in two hundred is
queued, one running, 4 % failed, 2 % canceled, the rest succeeded; three kinds; one job every 5 s; four
tenants, of which the first has two jobs in three. Each word of a prompt stands in the index of words.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.engine import make_url

from db.search.words import said_in
from db.session import dsn_of

KINDS = ("sound_effect", "background_music", "speech")
WORDS = ("rain", "tin", "roof", "calm", "piano", "river", "night", "train", "bell", "wind", "glass", "step")
APART = timedelta(seconds=5)
TENANTS = ("default", "default", "default", "default", "default", "default", "blue", "red", "green")
WORD_COLUMNS = ("tenant", "word", "created_at", "job_id")
COLUMNS = ("id", "kind", "tenant", "state", "said", "progress", "input", "caller_metadata", "provider",
           "priority", "created_at", "finished_at", "deadline_at", "run_after", "crashes", "seq")  # fmt: skip


async def fill(url: str, count: int, *, state: str | None = None, seed: int = 1) -> list[str]:
    """Add jobs that end now, oldest first; their ids. `state` makes all of them stand there."""
    rows = _rows(count, state, seed)
    if url.startswith("sqlite"):
        return _into_sqlite(url, rows)
    return await _into_postgres(url, rows)


def id_of(at: datetime, noise: bytes) -> str:
    """`job_` and a UUIDv7 (RFC 9562 §5.7) of that time."""
    value = (int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0x2 << 62)
    value |= int.from_bytes(noise[:8], "big") >> 2
    value |= (int.from_bytes(noise[8:10], "big") >> 4) << 64
    return f"job_{value:032x}"


def _rows(count: int, state: str | None, seed: int) -> Iterator[dict[str, Any]]:
    pick = random.Random(seed)
    first = datetime.now(UTC) - count * APART
    for number in range(count):
        at = first + number * APART
        draw = pick.random()
        stands = state or ("queued" if draw < 0.005 else "running" if draw < 0.01 else
                           "failed" if draw < 0.05 else "canceled" if draw < 0.07 else
                           "succeeded")  # fmt: skip
        words = " ".join(pick.choices(WORDS, k=6))
        yield {
            "id": id_of(at, os.urandom(10)), "kind": pick.choice(KINDS), "tenant": pick.choice(TENANTS),
            "state": stands, "said": said_in({"prompt": f"{words} {number}"}), "progress": 0.0,
            "input": json.dumps({"prompt": f"{words} {number}", "duration_s": 5.0}), "caller_metadata": "{}",
            "provider": "auto", "priority": 0, "created_at": at,
            "finished_at": None if stands in ("queued", "running") else at,
            "deadline_at": at + timedelta(days=3650), "run_after": at, "crashes": 0, "seq": 1,
        }  # fmt: skip


def _into_sqlite(url: str, rows: Iterator[dict[str, Any]]) -> list[str]:
    connection = sqlite3.connect(make_url(url).database or "", timeout=60)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
    marks = ", ".join("?" * len(COLUMNS))
    ids: list[str] = []
    words: list[tuple[Any, ...]] = []

    def values() -> Iterator[tuple[Any, ...]]:
        for row in rows:
            ids.append(row["id"])
            stored = {
                name: value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value
                for name, value in row.items()
            }
            words.extend(_words(stored))
            yield tuple(stored[name] for name in COLUMNS)

    connection.executemany(f"INSERT INTO jobs ({', '.join(COLUMNS)}) VALUES ({marks})", values())
    connection.executemany("INSERT INTO job_words VALUES (?, ?, ?, ?)", sorted(words))
    connection.commit()
    connection.execute("ANALYZE")
    connection.close()
    return ids


def _words(row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for word in set(row["said"].split()):
        yield row["tenant"], word, row["created_at"], row["id"]


async def _into_postgres(url: str, rows: Iterator[dict[str, Any]]) -> list[str]:
    import asyncpg

    connection = await asyncpg.connect(dsn_of(url))
    ids: list[str] = []
    words: list[tuple[Any, ...]] = []

    def records() -> Iterator[tuple[Any, ...]]:
        for row in rows:
            ids.append(row["id"])
            words.extend(_words(row))
            yield tuple(row[name] for name in COLUMNS)

    await connection.copy_records_to_table("jobs", records=records(), columns=COLUMNS)
    await connection.copy_records_to_table("job_words", records=sorted(words), columns=WORD_COLUMNS)
    await connection.execute("VACUUM ANALYZE jobs")
    await connection.execute("VACUUM ANALYZE job_words")
    await connection.close()
    return ids
