"""Performances and their singers over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.karaoke.stage.state import Control, Play, Report, Seek
from db.tables import Asset, Audit, Performance, Upload
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri, tone
from tests.flow.test_retention import expire

LRC = "[ti:Two lines]\n[00:00.10]Hello there\n[00:00.30]Good bye\n"
NOBODYS = "0" * 32


async def song(line: Stage, sound: str = TONE) -> tuple[str, str]:
    """A job with an `audio`: its id, and that of its asset."""
    job_id, prediction_id = await line.start()
    await line.fake.finish(prediction_id, output=sound)
    await line.drain()
    return job_id, str((await line.read(job_id))["outputs"]["audio"]["asset_id"])


async def made(line: Stage, **body: Any) -> dict[str, Any]:
    reply = await line.client.post("/v1/performances", json=body)
    assert reply.status_code == 201, reply.text
    assert reply.headers["location"] == f"/v1/performances/{reply.json()['id']}"
    return dict(reply.json())


async def singing(line: Stage, path: str) -> tuple[str | None, list[str]]:
    queue = (await line.client.get(f"{path}/singers")).json()
    assert [each["position"] for each in queue["items"]] == list(range(1, len(queue["items"]) + 1))
    return queue["singing"] and queue["singing"]["singer"], [each["singer"] for each in queue["items"]]


async def test_a_performance_begins_with_its_defaults_and_its_song(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        _, asset_id = await song(line)
        lyrics_id = (await line.client.post("/v1/lyrics", json={"lrc": LRC})).json()["id"]
        shown = await made(line, title="Friday", instrumental=asset_id, lyrics_id=lyrics_id)
        state = shown["state"]
        assert {name: state[name] for name in state if name != "at"} == {
            "vocal_volume": 0.0, "instrumental_volume": 1.0, "lyrics_size": "medium", "lyrics_offset": 0,
            "is_playing": False, "current_time": 0.0, "duration": 0.6, "version": 1,
        }  # fmt: skip
        assert (shown["song"]["title"], shown["song"]["vocals"]) == ("Two lines", None)
        assert (await line.client.get(shown["song"]["instrumental"]["url"])).status_code == 200
        assert shown["queue"] == {"version": 1, "singing": None, "items": []}
        read = (await line.client.get(f"/v1/performances/{shown['id']}")).json()
        assert read["state"]["version"] == 1
        listed = (await line.client.get("/v1/performances")).json()["items"]
        assert [(each["id"], each["is_default"]) for each in listed] == [(shown["id"], False)]


async def test_a_song_may_be_named_by_the_job_that_made_its_stems(sqlite_line: Stage) -> None:
    sent = await sqlite_line.client.post("/v1/uploads", files={"file": ("s.wav", tone(1.0), "audio/wav")})
    body = {"kind": "stem_separation", "input": {"audio": sent.json()["upload_id"]}}
    job_id = (await sqlite_line.client.post("/v1/jobs", json=body)).json()["id"]
    await sqlite_line.drain()
    stems = {"vocals": as_data_uri(tone(1.0, hz=300)), "instrumental": as_data_uri(tone(1.0, hz=200))}
    early = await sqlite_line.client.post("/v1/performances", json={"job_id": job_id})
    assert (early.status_code, early.json()["field"]) == (422, "job_id")
    await sqlite_line.fake.finish(list(sqlite_line.fake.predictions)[-1], output=stems)
    await sqlite_line.drain()
    outputs = (await sqlite_line.read(job_id))["outputs"]
    shown = (await made(sqlite_line, job_id=job_id))["song"]
    assert {name: shown[name]["asset_id"] for name in ("vocals", "instrumental")} == {
        name: outputs[name]["asset_id"] for name in ("vocals", "instrumental")
    }
    assert shown["job_id"] == job_id


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"vocals": f"ast_{NOBODYS}"}, "vocals"),
        ({"job_id": f"job_{NOBODYS}"}, "job_id"),
        ({"lyrics_id": f"lyr_{NOBODYS}"}, "job_id"),
        ({"title": "\u2028 "}, "title"),
        ({"instrumental": "upl_1"}, "instrumental"),
    ],
)
async def test_a_performance_of_nothing_that_is_there_is_refused(
    sqlite_line: Stage, body: dict[str, Any], field: str
) -> None:
    reply = await sqlite_line.client.post("/v1/performances", json=body)
    assert (reply.status_code, reply.json()["field"]) == (422, field)
    assert await sqlite_line.count(Performance) == 0


async def test_the_line_of_singers_keeps_its_order_through_everything(stage_on: OpenStage) -> None:
    """Who is removed promotes nobody, and every place is counted from 1."""
    async with stage_on() as line:
        _, asset_id = await song(line)
        path = f"/v1/performances/{(await made(line))['id']}"
        ids = {}
        for at, singer in enumerate(("Ana", "Ben", "Cem", "Dee"), 1):
            added = await line.client.post(
                f"{path}/singers", json={"singer": singer, "instrumental": asset_id}
            )
            assert (added.status_code, added.json()["position"]) == (201, at)
            ids[singer] = added.json()["id"]
        assert (await line.client.post(f"{path}/singers/next", json={"version": 5})).status_code == 200
        assert await singing(line, path) == ("Ana", ["Ben", "Cem", "Dee"])
        late = await line.client.post(f"{path}/singers/next", json={"version": 5})
        assert (late.status_code, late.json()["code"]) == (409, "stale_version")
        await line.client.delete(f"{path}/singers/{ids['Ben']}")
        assert await singing(line, path) == ("Ana", ["Cem", "Dee"])
        order = {"version": 7, "ids": [ids["Dee"], ids["Cem"]]}
        assert (await line.client.put(f"{path}/singers/order", json=order)).json()["version"] == 8
        await line.client.patch(f"{path}/singers/{ids['Cem']}", json={"position": 1})
        assert await singing(line, path) == ("Ana", ["Cem", "Dee"])
        await line.client.delete(f"{path}/singers/{ids['Ana']}")
        assert await singing(line, path) == (None, ["Cem", "Dee"])
        for body, status in (
            ({"version": 8, "ids": order["ids"]}, 409),
            ({"version": 10, "ids": [ids["Cem"]]}, 409),
            ({"version": 10, "ids": [ids["Cem"]] * 2}, 422),
        ):
            assert (await line.client.put(f"{path}/singers/order", json=body)).status_code == status
        for _ in range(3):
            await line.client.post(f"{path}/singers/next", json={})
        assert await singing(line, path) == (None, [])
        assert {row.act for row in await line.rows(Audit)} == {"performance.created", "singers.changed"}


async def test_of_two_who_call_the_next_singer_at_once_one_does(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        _, asset_id = await song(line)
        path = f"/v1/performances/{(await made(line))['id']}"
        await asyncio.gather(
            *(
                line.client.post(f"{path}/singers", json={"singer": name, "instrumental": asset_id})
                for name in "abcd"
            )
        )
        called = await asyncio.gather(
            *(line.client.post(f"{path}/singers/next", json={"version": 5}) for _ in range(4))
        )
        assert sorted(reply.status_code for reply in called) == [200, 409, 409, 409]
        singer, waiting = await singing(line, path)
        assert sorted([singer or "", *waiting]) == list("abcd")


async def test_devices_that_act_at_once_are_one_after_the_other(stage_on: OpenStage) -> None:
    """No change is lost, none is half there, and each has a version of its own."""
    async with stage_on() as line:
        _, asset_id = await song(line)
        shown = await made(line, instrumental=asset_id)
        stage, tenant = line.runtime.karaoke.performances, "default"
        volumes = [Control(vocal_volume=at / 20) for at in range(1, 11)]
        others = [Control(lyrics_offset=at) for at in range(1, 6)]
        rows = await asyncio.gather(
            *(stage.command(tenant, shown["id"], each) for each in (*volumes, *others))
        )
        assert sorted(row.version for row in rows) == list(range(2, 17))
        last = max(rows, key=lambda row: row.version)
        now = await stage.get(tenant, shown["id"])
        assert (now.vocal_volume, now.lyrics_offset) == (last.vocal_volume, last.lyrics_offset)


async def test_the_end_of_a_song_brings_the_next_singer_once(stage_on: OpenStage) -> None:
    """Two players end at the same moment: one singer comes on, and the song waits at its beginning."""
    async with stage_on() as line:
        (_, first), (_, second) = await song(line), await song(line, as_data_uri(tone(0.9, hz=300)))
        shown = await made(line, instrumental=first)
        path, stage = f"/v1/performances/{shown['id']}", line.runtime.karaoke.performances
        for singer, asset_id in (("Ana", first), ("Ben", second), ("Cem", first)):
            await line.client.post(f"{path}/singers", json={"singer": singer, "instrumental": asset_id})
        await line.client.post(f"{path}/singers/next", json={})
        playing = await stage.command("default", shown["id"], Play())
        ended = Report(0.6, False, 0.6, ended=True, seen_version=playing.version)
        await asyncio.gather(*(stage.command("default", shown["id"], ended) for _ in range(3)))
        assert await singing(line, path) == ("Ben", ["Cem"])
        state = (await line.client.get(path)).json()
        assert (state["state"]["is_playing"], state["state"]["current_time"]) == (False, 0.0)
        assert (state["state"]["duration"], state["song"]["instrumental"]["asset_id"]) == (0.9, second)


async def test_a_song_that_ends_with_nobody_waiting_leaves_an_empty_stage(sqlite_line: Stage) -> None:
    _, asset_id = await song(sqlite_line)
    shown = await made(sqlite_line)
    path, stage = f"/v1/performances/{shown['id']}", sqlite_line.runtime.karaoke.performances
    await sqlite_line.client.post(f"{path}/singers", json={"singer": "Ana", "instrumental": asset_id})
    await sqlite_line.client.post(f"{path}/singers/next", json={})
    playing = await stage.command("default", shown["id"], Play())
    said = Report(0.6, False, 0.6, ended=True, seen_version=playing.version)
    await stage.command("default", shown["id"], said)
    assert await singing(sqlite_line, path) == (None, [])
    state = (await sqlite_line.client.get(path)).json()["state"]
    assert (state["is_playing"], state["current_time"]) == (False, 0.6)


async def test_the_live_position_is_computed_and_not_written(sqlite_line: Stage) -> None:
    _, asset_id = await song(sqlite_line, as_data_uri(tone(30.0)))
    shown = await made(sqlite_line, instrumental=asset_id)
    path, stage = f"/v1/performances/{shown['id']}", sqlite_line.runtime.karaoke.performances
    await stage.command("default", shown["id"], Play())
    sought = await stage.command("default", shown["id"], Seek(5.0))
    read = [(await sqlite_line.client.get(path)).json()["state"] for _ in range(2)]
    assert 5.0 <= read[0]["current_time"] <= read[1]["current_time"] <= 30.0
    assert {each["version"] for each in read} == {sought.version}
    for at in range(50):
        # As a player says it, three times a second.
        told = Report(5.0 + at / 3, True, 30.0, seen_version=sought.version)
        assert (await stage.command("default", shown["id"], told)).version == sought.version


async def test_a_performance_is_renamed_given_another_song_and_deleted(sqlite_line: Stage) -> None:
    _, asset_id = await song(sqlite_line)
    path = f"/v1/performances/{(await made(sqlite_line))['id']}"
    change = {"title": "Saturday", "instrumental": asset_id, "song_title": "Rain"}
    changed = (await sqlite_line.client.patch(path, json=change)).json()
    assert (changed["title"], changed["song"]["title"], changed["state"]["duration"]) == (
        "Saturday",
        "Rain",
        0.6,
    )
    assert (await sqlite_line.client.patch(path, json={})).status_code == 422
    assert (await sqlite_line.client.delete(path)).status_code == 204
    assert (await sqlite_line.client.get(path)).status_code == 404


async def test_a_remote_token_is_for_one_performance_and_in_the_audit_log(sqlite_line: Stage) -> None:
    shown = await made(sqlite_line)
    reply = await sqlite_line.client.post(f"/v1/performances/{shown['id']}/remote-tokens")
    made_token = reply.json()
    assert (reply.status_code, reply.headers["cache-control"]) == (201, "no-store")
    remotes, now = sqlite_line.runtime.karaoke.remotes, sqlite_line.runtime.line.clock.now()
    assert remotes.read(made_token["token"], now=now).performance_id == shown["id"]
    address, _, fragment = made_token["url"].partition("#")
    assert address == f"https://reprise.test/performances/{shown['id']}/remote"
    assert fragment == f"token={made_token['token']}"
    # It is no key.
    issued = {"authorization": f"Bearer {made_token['token']}"}
    await sqlite_line.client.post("/v1/keys", json={"name": "k", "scopes": ["admin"]})
    assert (await sqlite_line.client.get("/v1/performances", headers=issued)).status_code == 401
    acts = [row.act for row in await sqlite_line.rows(Audit)]
    assert acts == ["performance.created", "remote.invited", "key.created"]


@pytest.mark.breaks("I1")
async def test_a_performance_keeps_its_files_when_their_jobs_expire_or_are_forgotten(
    stage_on: OpenStage,
) -> None:
    async with stage_on(retention_s=86_400) as line:
        (loaded_by, loaded), (sung_by, sung) = (
            await song(line),
            await song(line, as_data_uri(tone(0.9, hz=300))),
        )
        path = f"/v1/performances/{(await made(line, job_id=loaded_by))['id']}"
        body = {"singer": "Ana", "instrumental": sung}
        entry_id = (await line.client.post(f"{path}/singers", json=body)).json()["id"]
        assert await expire(line, loaded_by) == 1
        assert (await line.client.post(f"/v1/jobs/{sung_by}/expunge")).status_code == 200
        shown = (await line.client.get(path)).json()
        songs = (shown["song"], shown["queue"]["items"][0]["song"])
        assert [each["instrumental"]["asset_id"] for each in songs] == [loaded, sung]
        for each in songs:
            assert (await line.client.get(each["instrumental"]["url"])).status_code == 200

        await line.client.delete(f"{path}/singers/{entry_id}")
        assert await line.runtime.housekeeper.expire_uploads() == 1
        assert [row.id for row in await line.rows(Asset)] == [loaded], "nobody sings to the other any more"
        await line.client.delete(path)
        assert await line.runtime.housekeeper.expire_uploads() == 1
        assert await line.count(Asset) == await line.count(Upload) == 0
        assert (await line.client.get(songs[0]["instrumental"]["url"])).status_code == 410


async def test_a_file_is_let_go_with_its_last_mention_and_not_before(sqlite_line: Stage) -> None:
    (_, first), (_, second) = await song(sqlite_line), await song(sqlite_line, as_data_uri(tone(0.9, hz=300)))
    path = f"/v1/performances/{(await made(sqlite_line, instrumental=first))['id']}"

    async def kept() -> list[str]:
        held = [row.asset_id for row in await sqlite_line.rows(Upload) if row.expires_at.year > 9000]
        return sorted(held)

    for singer in ("Ana", "Ben"):
        await sqlite_line.client.post(f"{path}/singers", json={"singer": singer, "instrumental": first})
    assert await kept() == [first]
    await sqlite_line.client.post(f"{path}/singers/next", json={})
    await sqlite_line.client.patch(path, json={"instrumental": second})
    assert await kept() == sorted([first, second]), "two still sing to the first"
    for _ in range(2):
        await sqlite_line.client.post(f"{path}/singers/next", json={})
    assert await kept() == [first], "Ben had it loaded, and nobody came after him"
    await sqlite_line.client.patch(path, json={"instrumental": second})
    assert await kept() == [second]
    await sqlite_line.client.patch(path, json={"instrumental": first})
    assert await kept() == [first]
