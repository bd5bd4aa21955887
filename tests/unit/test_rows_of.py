"""A row that comes from the database is the same thing as one that was made here."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from db.tables import Asset

ROW: dict[str, Any] = {
    "id": "ast_1",
    "sha256": "0" * 64,
    "storage_key": "00/0.wav",
    "peaks_key": "00/0.peaks.json",
    "media_type": "audio/wav",
    "size_bytes": 44,
    "duration_s": 1.5,
    "sample_rate": 44_100,
    "channels": 2,
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
}


def test_a_row_as_it_was_read_is_the_row_as_it_was_made() -> None:
    read, made = Asset.of(ROW), Asset(**ROW)
    assert read == made
    assert read.model_dump() == made.model_dump() == ROW


def test_a_row_that_was_read_can_be_changed_and_copied() -> None:
    read = Asset.of(ROW)
    read.channels = 1
    copied = read.model_copy(update={"media_type": "audio/flac"})
    assert (read.channels, read.media_type) == (1, "audio/wav")
    assert (copied.channels, copied.media_type) == (1, "audio/flac")
    assert ROW["channels"] == 2


def test_the_first_thing_that_a_process_does_may_be_to_read_a_row() -> None:
    """What the mapper sets up by itself when the first row is constructed must be there before."""
    reading = "from db.tables import Asset; print(Asset.of({'id': 'ast_1'}).id)"
    done = subprocess.run(
        [sys.executable, "-c", reading],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "ast_1\n", done.stderr
