"""The parts of karaoke, made once a runtime."""

from __future__ import annotations

from dataclasses import dataclass

from app.karaoke.lyrics.book import LyricsBook
from app.karaoke.stage.performances import Performances
from app.karaoke.stage.remotes import RemoteTokens
from app.line import Line
from app.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Karaoke:
    """What the edge works with."""

    lyrics: LyricsBook
    performances: Performances
    remotes: RemoteTokens


def make_karaoke(line: Line, storage: Storage, *, secret: str) -> Karaoke:
    """`secret` is the installation's."""
    return Karaoke(
        lyrics=LyricsBook(line=line, storage=storage),
        performances=Performances(line=line),
        remotes=RemoteTokens(secret=secret, life_s=line.settings.remote_token_s),
    )
