"""Lyrics and performances by the Python client, over real HTTP: both clients do the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import client as reprise
from db.tables import Lyrics, LyricsVersion, Performance
from tests.flow.client_ground import Ground, ground_on
from tests.flow.conftest import OpenStage
from tests.flow.test_performances import LRC, song

LATER = "[00:00.35]Hello there"


@pytest.fixture(params=["blocking", "async"])
async def ground(request: pytest.FixtureRequest, stage_on_sqlite: OpenStage) -> AsyncIterator[Ground]:
    async with stage_on_sqlite() as stage, ground_on(stage, request.param) as ground:
        yield ground


def said(lyrics: reprise.Lyrics) -> list[tuple[int, str]]:
    return [(line.start_ms, line.text) for line in lyrics.lines]


async def test_lyrics_are_made_corrected_shifted_and_brought_back(ground: Ground) -> None:
    lyrics = ground.client.lyrics
    made = await lyrics.create(lrc=LRC, duration_s=2.5)
    assert (made.title, made.source, made.duration_ms, made.review) == ("Two lines", "lrc", 2500, None)
    assert said(made) == [(100, "Hello there"), (300, "Good bye")]
    shifted = await lyrics.shift(made.id, 250, version=made.version)
    assert said(shifted) == [(350, "Hello there"), (550, "Good bye")]
    assert LATER in await lyrics.lrc(made.id)
    fixed = await lyrics.fix(made.id, [{"index": 1, "text": "Farewell"}], version=2, title="Later")
    assert (fixed.title, said(fixed)[1]) == ("Later", (550, "Farewell"))
    line = {"start_ms": 0, "end_ms": 900, "text": "La"}
    replaced = await lyrics.replace_lines(made.id, [line], version=fixed.version)
    assert said(replaced) == [(0, "La")]
    restored = await lyrics.restore(made.id, 1, version=replaced.version)
    assert said(restored) == said(made) == said(await lyrics.get(made.id))
    assert said(await lyrics.get(made.id, number=3)) == said(fixed)
    assert [each.number for each in await lyrics.versions(made.id)] == [5, 4, 3, 2, 1]
    assert (await lyrics.versions(made.id))[3].made_by == "shift +250 ms"


async def test_lyrics_that_changed_meanwhile_are_a_conflict_and_wrong_ones_name_their_field(
    ground: Ground,
) -> None:
    lyrics = ground.client.lyrics
    made = await lyrics.create(lrc=LRC)
    await lyrics.shift(made.id, 10, version=1)
    with pytest.raises(reprise.Conflict) as stale:
        await lyrics.shift(made.id, 10, version=1)
    assert stale.value.code == "stale_version"
    with pytest.raises(reprise.InvalidInput) as wrong:
        await lyrics.create(job_id=f"job_{'0' * 32}", lrc=LRC)
    assert wrong.value.field == "job_id"


async def test_lyrics_are_listed_page_by_page_and_deleted(ground: Ground) -> None:
    lyrics = ground.client.lyrics
    made = [(await lyrics.create(lrc=LRC, title=f"No. {at}")).id for at in range(3)]
    assert [each.id async for each in lyrics.list(limit=2)] == made[::-1]
    await lyrics.delete(made[0])
    assert [each.id for each in (await lyrics.page()).items] == made[:0:-1]
    with pytest.raises(reprise.NotFound):
        await lyrics.get(made[0])
    assert (await ground.stage.count(Lyrics), await ground.stage.count(LyricsVersion)) == (2, 2)


async def test_a_lost_answer_makes_no_second_version_or_performance(ground: Ground) -> None:
    """Fault 19: nobody knows whether it was done, so it is not done again, and the caller is told."""
    made = await ground.client.lyrics.create(lrc=LRC)
    ground.front.lose("POST", "/shift")
    with pytest.raises(reprise.Unavailable):
        await ground.client.lyrics.shift(made.id, 250, version=1)
    assert (await ground.client.lyrics.get(made.id)).version == 2
    ground.front.lose("POST", "/v1/performances")
    with pytest.raises(reprise.Unavailable):
        await ground.client.performances.create("Friday")
    assert await ground.stage.count(Performance) == 1


async def test_an_evening_with_its_singers(ground: Ground) -> None:
    job_id, asset_id = await song(ground.stage)
    words = await ground.client.lyrics.create(lrc=LRC)
    evening = ground.client.performances
    made = await evening.create("Friday", instrumental=asset_id, lyrics_id=words.id)
    assert (made.title, made.is_default, made.state.is_playing) == ("Friday", False, False)
    assert (made.song.title, made.song.vocals, made.song.lyrics_id) == ("Two lines", None, words.id)
    assert made.song.instrumental.asset_id == asset_id
    changed = await evening.change(made.id, title="Saturday", song_title="Hum", job_id=job_id)
    assert (changed.title, changed.song.title) == ("Saturday", "Hum")

    ada, bob, eve = [await evening.add_singer(made.id, name, job_id=job_id) for name in ("Ada", "Bob", "Eve")]
    assert [each.position for each in (ada, bob, eve)] == [1, 2, 3]

    async def version() -> int:
        return int((await evening.singers(made.id)).version)

    line = await evening.order_singers(made.id, [eve.id, bob.id, ada.id], version=await version())
    assert names(line) == (None, ["Eve", "Bob", "Ada"])
    assert names(await evening.move_singer(made.id, ada.id, 1)) == (None, ["Ada", "Eve", "Bob"])
    seen = await version()
    on_stage = await evening.next_singer(made.id, version=seen)
    assert names(on_stage) == ("Ada", ["Eve", "Bob"])
    with pytest.raises(reprise.Conflict) as late:
        await evening.next_singer(made.id, version=seen)
    assert late.value.code == "stale_version"
    await evening.remove_singer(made.id, eve.id)
    assert names(await evening.singers(made.id)) == ("Ada", ["Bob"])
    assert names((await evening.get(made.id)).queue) == ("Ada", ["Bob"])


async def test_performances_are_listed_deleted_and_opened_to_guests(ground: Ground) -> None:
    evening = ground.client.performances
    made = [(await evening.create(f"No. {at}")).id for at in range(3)]
    assert [each.id async for each in evening.list(limit=2)] == made[::-1]
    invited = await evening.invite(made[2])
    assert invited.url.endswith(f"/performances/{made[2]}/remote#token={invited.token}")
    assert invited.token not in repr(invited)
    await evening.delete(made[2])
    assert [each.id for each in (await evening.page()).items] == made[1::-1]
    with pytest.raises(reprise.NotFound):
        await evening.get(made[2])
    with pytest.raises(reprise.InvalidInput) as wrong:
        await evening.create(job_id=f"job_{'0' * 32}")
    assert wrong.value.field == "job_id"


def names(line: Any) -> tuple[str | None, list[str]]:
    return line.singing and line.singing.singer, [each.singer for each in line.items]
