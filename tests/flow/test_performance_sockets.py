"""The devices of a performance over Socket.IO: a really served app, and python-socketio's own client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from socketio.exceptions import ConnectionError as Refused

from app.access.callers import Scope
from db.tables import Performance
from tests.flow.conftest import OpenStage, Stage, as_data_uri, tone
from tests.flow.sockets import LIMIT_S, Listener, listening_to, served
from tests.flow.test_performances import made, singing, song
from tests.flow.test_tenants import key_for

ALL = (
    "performance_state", "control_updated", "playback_play", "playback_pause", "playback_seek",
)  # fmt: skip
CONTROLS = ("vocal_volume", "instrumental_volume", "lyrics_size", "lyrics_offset")
SHOWN = (*CONTROLS, "is_playing", "duration", "version")
NOBODYS = f"prf_{'0' * 32}"


def device(url: str, **how: Any) -> Any:
    return listening_to(url, namespace="/performance", **how)


def screen(listener: Listener) -> dict[str, Any]:
    """What the device shows: the highest version that it has heard of."""
    heard = listener.named(*ALL)
    return dict(max(heard, key=lambda state: int(state["version"]))) if heard else {}


async def shows(listener: Listener, version: int) -> dict[str, Any]:
    """What it shows once it has heard of that version."""
    await listener.until(lambda: screen(listener).get("version", 0) >= version)
    return screen(listener)


@dataclass(frozen=True, slots=True)
class House:
    """A tenant with a key and a performance."""

    key: str
    key_id: str
    headers: dict[str, str]
    performance_id: str


async def house(line: Stage, tenant: str) -> House:
    issued = await key_for(line, tenant)
    headers = {"authorization": f"Bearer {issued.text}"}
    row = (await line.client.post("/v1/performances", json={}, headers=headers)).json()
    return House(issued.text, issued.key.id, headers, row["id"])


def shown(state: dict[str, Any]) -> dict[str, Any]:
    return {name: state[name] for name in SHOWN}


@asynccontextmanager
async def two_devices(line: Stage, performance_id: str | None) -> AsyncIterator[tuple[Listener, Listener]]:
    async with served(line.runtime) as (url, _), device(url) as stage, device(url) as phone:
        for each in (stage, phone):
            await each.ask("join_performance", {"performance_id": performance_id} if performance_id else None)
        yield stage, phone


async def test_two_devices_that_change_one_control_at_once_show_the_same(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        row = await made(line)
        async with two_devices(line, row["id"]) as (stage, phone):

            async def slide(who: Listener, values: list[float]) -> None:
                for value in values:
                    await who.ask("update_performance_control", {"vocal_volume": value})

            await asyncio.gather(slide(stage, [0.1, 0.3, 0.5, 0.7]), slide(phone, [0.2, 0.4, 0.6, 0.8]))
            screens = [await shows(each, 9) for each in (stage, phone)]
            assert screens[0]["vocal_volume"] in (0.7, 0.8), "whoever came last"
            assert shown(screens[0]) == shown(screens[1])
            for each in (stage, phone):
                versions = [state["version"] for state in each.named(*ALL)]
                assert versions == sorted(versions), "said in their order"
            row = (await line.client.get(f"/v1/performances/{row['id']}")).json()
            assert row["state"]["vocal_volume"] == screens[0]["vocal_volume"]


async def test_what_one_device_does_all_hear_with_the_version_the_sender_too(sqlite_line: Stage) -> None:
    _, asset_id = await song(sqlite_line, as_data_uri(tone(20.0)))
    row = await made(sqlite_line, instrumental=asset_id)
    async with two_devices(sqlite_line, row["id"]) as (stage, phone):
        acts: list[tuple[str, Any, str]] = [
            ("playback_play", None, "playback_play"),
            ("playback_seek", {"current_time": 12.5}, "playback_seek"),
            (
                "update_performance_control",
                {"lyrics_size": "large", "lyrics_offset": -250},
                "control_updated",
            ),
            (
                "update_performance_control",
                {"control": "instrumental_volume", "value": 0.5},
                "control_updated",
            ),
            ("playback_pause", {"currentTime": 12.6}, "playback_pause"),
        ]
        for number, (message, payload, event) in enumerate(acts):
            answered = await phone.ask(message, payload)
            assert answered["version"] == number + 2
            for each in (stage, phone):
                state = await shows(each, number + 2)
                assert each.named(event)[-1] == state
                assert {name: answered[name] for name in SHOWN} == shown(state)
        assert (state["lyrics_size"], state["lyrics_offset"], state["instrumental_volume"]) == (
            "large",
            -250,
            0.5,
        )
        assert 12.5 <= state["current_time"] <= 20.0
        assert [each.get("control") for each in stage.named("control_updated")] == [
            None,
            "instrumental_volume",
        ]
        assert [event for event, _ in stage.heard if event in ALL] == [
            "performance_state", *(event for _, _, event in acts),
        ], "each once"  # fmt: skip
        assert (await phone.ask("playback_pause"))["version"] == 6, "what changes nothing says so"


async def test_whoever_comes_late_is_at_the_live_position(sqlite_line: Stage) -> None:
    _, asset_id = await song(sqlite_line, as_data_uri(tone(30.0)))
    row = await made(sqlite_line, instrumental=asset_id)
    async with served(sqlite_line.runtime) as (url, _), device(url) as stage:
        await stage.ask("join_performance", {"performance_id": row["id"]})
        await stage.ask("playback_play")
        await stage.ask("playback_seek", {"current_time": 5.0})
        # Ten seconds go by: the row says since when it plays.
        [stored] = await sqlite_line.rows(Performance)
        since = stored.position_at - timedelta(seconds=10)
        await sqlite_line.change(Performance, row["id"], position_at=since, version=stored.version + 1)
        async with device(url) as late:
            state = await late.ask("join_performance", {"performance_id": row["id"]})
            assert state == await late.wait_for("performance_state")
            assert state["is_playing"]
            assert 15.0 <= state["current_time"] <= 30.0


async def test_without_a_name_it_is_the_tenants_own_performance_made_once(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        async with (
            served(line.runtime) as (url, _),
            device(url) as one,
            device(url) as two,
            device(url) as three,
        ):
            states = await asyncio.gather(*(each.ask("join_performance") for each in (one, two, three)))
            assert len({state["performance_id"] for state in states}) == 1
        [only] = (await line.client.get("/v1/performances")).json()["items"]
        assert (only["is_default"], only["id"]) == (True, states[0]["performance_id"])
        assert {name: states[0][name] for name in CONTROLS} == {
            "vocal_volume": 0.0, "instrumental_volume": 1.0, "lyrics_size": "medium", "lyrics_offset": 0,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "payload", "code", "field"),
    [
        ("update_performance_control", {"vocal_volume": 80}, "invalid_input", "vocal_volume"),
        ("update_performance_control", {"vocal_volume": "1"}, "invalid_input", "vocal_volume"),
        ("update_performance_control", {"vocal_volume": True}, "invalid_input", "vocal_volume"),
        ("update_performance_control", {"vocal_volume": float("nan")}, "invalid_input", "vocal_volume"),
        ("update_performance_control", {"lyrics_size": "huge"}, "invalid_input", "lyrics_size"),
        ("update_performance_control", {"lyrics_offset": 0.5}, "invalid_input", "lyrics_offset"),
        ("update_performance_control", {"volume": 1}, "invalid_input", "volume"),
        ("update_performance_control", {"control": "volume", "value": 1}, "invalid_input", "control"),
        ("update_performance_control", {}, "invalid_input", "vocal_volume"),
        ("playback_seek", {}, "invalid_input", "current_time"),
        ("playback_seek", {"current_time": -1}, "invalid_input", "current_time"),
        ("playback_seek", [5], "invalid_input", None),
        ("update_player_state", {"current_time": 1}, "invalid_input", "is_playing"),
        ("join_performance", {"performance_id": "../1"}, "invalid_input", "performance_id"),
        ("join_performance", {"performance_id": NOBODYS}, "not_found", None),
        ("performance_state", {}, "unknown_message", None),
    ],
)
async def test_a_message_that_is_wrong_is_answered_with_the_field_and_changes_nothing(
    sqlite_line: Stage, message: str, payload: Any, code: str, field: str | None
) -> None:
    """Fault 65: also an event of the server's own that a client emits."""
    row = await made(sqlite_line)
    async with two_devices(sqlite_line, row["id"]) as (stage, phone):
        answer = await phone.ask(message, payload)
        assert (answer["error"]["code"], answer["error"]["event"]) == (code, message)
        if field is not None:
            assert answer["error"]["field"].startswith(field)
        assert await phone.wait_for("error") == answer["error"]
        assert (await stage.ask("playback_pause"))["version"] == 1


async def test_a_device_that_has_joined_nothing_moves_nothing(sqlite_line: Stage) -> None:
    row = await made(sqlite_line)
    async with served(sqlite_line.runtime) as (url, _), device(url) as phone:
        assert (await phone.ask("playback_play"))["error"]["code"] == "not_joined"
        await phone.ask("join_performance", {"performance_id": row["id"]})
        await phone.ask("leave_performance")
        assert (await phone.ask("playback_play"))["error"]["code"] == "not_joined"


async def test_rooms_are_apart_also_for_one_tenant(sqlite_line: Stage) -> None:
    """No global room: what happens in one performance is heard in no other."""
    rows = [await made(sqlite_line, title=title) for title in ("Friday", "Saturday")]
    async with served(sqlite_line.runtime) as (url, _), device(url) as friday, device(url) as saturday:
        for each, row in zip((friday, saturday), rows, strict=True):
            await each.ask("join_performance", {"performance_id": row["id"]})
        await friday.ask("update_performance_control", {"vocal_volume": 0.9})
        await shows(friday, 2)
        # Moved to the other: it hears of that alone.
        await friday.ask("join_performance", {"performance_id": rows[1]["id"]})
        await saturday.ask("update_performance_control", {"vocal_volume": 0.1})
        await saturday.wait_for("control_updated")
        assert {state["performance_id"] for state in saturday.named(*ALL)} == {rows[1]["id"]}
        last = await friday.wait_for("control_updated", 2)
        assert (last["performance_id"], last["vocal_volume"]) == (rows[1]["id"], 0.1)


async def test_another_tenants_performance_is_as_one_that_never_was(stage_on: OpenStage) -> None:
    """Fault 18, fault 65: a foreign room cannot be joined, and a key that may only read moves nothing."""
    async with stage_on() as line:
        ours, theirs = await house(line, "acme"), await house(line, "umbrella")
        reader = await key_for(line, "umbrella", Scope.JOBS_READ)
        async with served(line.runtime) as (url, _):
            async with device(url, token=ours.key) as stranger, device(url, token=reader.text) as looker:
                asked = {"performance_id": theirs.performance_id}
                foreign = await stranger.ask("join_performance", asked)
                never = await stranger.ask("join_performance", {"performance_id": NOBODYS})
                said = foreign["error"]["message"].replace(asked["performance_id"], NOBODYS)
                assert (foreign["error"]["code"], said) == ("not_found", never["error"]["message"])
                assert (await looker.ask("join_performance", asked))["version"] == 1
                refused = await looker.ask("playback_play")
                assert refused["error"]["code"] == "forbidden"
            with pytest.raises(Refused):
                await Listener("/performance").connect(url)


async def test_a_guests_phone_is_a_remote_control_of_one_performance_for_its_time(
    stage_on_sqlite: OpenStage,
) -> None:
    async with stage_on_sqlite() as line:
        ours = await house(line, "acme")
        path = f"/v1/performances/{ours.performance_id}"
        other = (await line.client.post("/v1/performances", json={}, headers=ours.headers)).json()["id"]

        async def invite() -> str:
            reply = await line.client.post(f"{path}/remote-tokens", headers=ours.headers)
            return str(reply.json()["token"])

        async with served(line.runtime) as (url, _), device(url, token=ours.key) as stage:
            await stage.ask("join_performance", {"performance_id": ours.performance_id})
            async with device(url, token=await invite()) as guest:
                assert (await guest.ask("join_performance"))["performance_id"] == ours.performance_id
                moved = await guest.ask("update_performance_control", {"vocal_volume": 0.4})
                assert (await shows(stage, moved["version"]))["vocal_volume"] == 0.4
                foreign = await guest.ask("join_performance", {"performance_id": other})
                assert foreign["error"]["code"] == "not_found"
                report = {"is_playing": True, "current_time": 1.0}
                assert (await guest.ask("update_player_state", report))["error"]["code"] == "forbidden"
            # Of no other namespace, and not after its time.
            for namespace, text in (("/jobs", await invite()), ("/performance", (await invite())[:-2])):
                with pytest.raises(Refused):
                    await Listener(namespace).connect(url, token=text)
            token = await invite()
            await line.client.post(f"/v1/keys/{ours.key_id}/revoke", headers=ours.headers)
            with pytest.raises(Refused):
                await Listener("/performance").connect(url, token=token)


async def test_a_guest_is_shown_out_when_the_time_is_over(sqlite_line: Stage) -> None:
    row = await made(sqlite_line)
    issued = (await sqlite_line.client.post(f"/v1/performances/{row['id']}/remote-tokens")).json()
    async with served(sqlite_line.runtime) as (url, app), device(url, token=issued["token"]) as guest:
        await guest.ask("join_performance")
        [member] = app.api.state.sockets._namespaces["/performance"].members.values()
        # As the loop's clock would, in four hours.
        timer = member.state.leaving
        timer._callback(*timer._args)
        assert (await guest.wait_for("closed"))["reason"] == "unauthenticated"
        await guest.wait_for("disconnect")


async def test_the_singers_are_told_and_the_next_one_comes_on_at_the_end(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        (_, first), (_, second) = await song(line), await song(line, as_data_uri(tone(0.9, hz=300)))
        row = await made(line)
        path = f"/v1/performances/{row['id']}"
        async with two_devices(line, row["id"]) as (stage, phone):
            for singer, asset_id in (("Ana", first), ("Ben", second)):
                body = {"singer": singer, "instrumental": asset_id, "title": f"Song of {singer}"}
                await line.client.post(f"{path}/singers", json=body)
            await phone.until(lambda: any(len(each["items"]) == 2 for each in phone.named("queue_updated")))
            await line.client.post(f"{path}/singers/next", json={})
            called = await phone.wait_for("play_song")
            assert (called["singer"], called["song"]["instrumental"]) == ("Ana", first)
            played = await stage.ask("playback_play")
            ended = {"is_playing": False, "current_time": 0.6, "duration": 0.6, "version": played["version"]}
            for each in (stage, phone):
                await each.ask("update_player_state", {**ended, "ended": True})
            for each in (stage, phone):
                called = await each.wait_for("play_song", 2)
                assert (called["singer"], called["song"]["instrumental"]) == ("Ben", second)
                last = each.named("queue_updated")[-1]
                assert (last["singing"]["singer"], last["items"], last["version"]) == ("Ben", [], 5)
                state = screen(each)
                assert (state["is_playing"], state["current_time"], state["duration"]) == (False, 0.0, 0.9)
                assert state["song"]["title"] == "Song of Ben"
            assert await singing(line, path) == ("Ben", [])
            assert len(phone.named("play_song")) == 2


async def test_reports_from_before_a_seek_do_not_undo_it(sqlite_line: Stage) -> None:
    """However many come, and however far from where the song is by now."""
    _, asset_id = await song(sqlite_line, as_data_uri(tone(30.0)))
    row = await made(sqlite_line, instrumental=asset_id)
    async with two_devices(sqlite_line, row["id"]) as (stage, phone):
        played = await stage.ask("playback_play")
        sought = await phone.ask("playback_seek", {"current_time": 20.0})
        # As if it had stood there for long: only the version says that the player speaks of before.
        since = (await sqlite_line.rows(Performance))[0].position_at - timedelta(seconds=5)
        await sqlite_line.change(Performance, row["id"], position_at=since)
        for at in range(12):
            late = {
                "isPlaying": True,
                "currentTime": at * 0.3,
                "duration": 30.0,
                "version": played["version"],
            }
            answer = await stage.ask("update_player_state", late)
            assert answer["version"] <= sought["version"]
        blind = {"is_playing": False, "current_time": 30.0, "ended": True, "version": played["version"]}
        await stage.ask("update_player_state", blind)
        [stored] = await sqlite_line.rows(Performance)
        assert (stored.version, stored.position_s, stored.is_playing) == (sought["version"], 20.0, True)
        assert (await shows(stage, sought["version"]))["current_time"] >= 20.0


async def test_the_position_follows_the_one_player_there_is(sqlite_line: Stage) -> None:
    """It had to load: all screens wait for it, and not it for them."""
    _, asset_id = await song(sqlite_line, as_data_uri(tone(300.0)))
    row = await made(sqlite_line, instrumental=asset_id)
    async with two_devices(sqlite_line, row["id"]) as (stage, phone):
        played = await stage.ask("playback_play")
        since = (await sqlite_line.rows(Performance))[0].position_at - timedelta(seconds=200)
        await sqlite_line.change(Performance, row["id"], position_at=since)
        await phone.ask("join_performance", {"performance_id": row["id"]})  # the room looks
        said = {"is_playing": True, "current_time": 2.0, "duration": 300.0, "version": played["version"]}
        assert (await stage.ask("update_player_state", said))["version"] == played["version"] + 1
        for each in (stage, phone):
            state = await shows(each, played["version"] + 1)
            assert 2.0 <= state["current_time"] < 150.0


async def test_a_restart_forgets_nothing(stage_on: OpenStage) -> None:
    """Fault 63: devices come back to another process, and to the state and position that they left."""
    async with stage_on() as line:
        _, asset_id = await song(line, as_data_uri(tone(30.0)))
        row = await made(line, instrumental=asset_id)
        async with two_devices(line, row["id"]) as (stage, phone):
            await phone.ask("update_performance_control", {"vocal_volume": 0.3})
            await stage.ask("playback_play")
            before = await stage.ask("playback_seek", {"current_time": 7.0})
        async with stage_on() as again, two_devices(again, row["id"]) as (stage, phone):
            states = [screen(each) for each in (stage, phone)]
            assert shown(states[0]) == shown(states[1]) == shown(before)
            assert states[0]["vocal_volume"] == 0.3
            assert 7.0 <= states[0]["current_time"] <= states[1]["current_time"] <= 30.0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_devices_of_two_processes_show_the_same(stage_on: OpenStage) -> None:
    """Each tells its own clients, by hints of the database: no other part is between them."""
    async with stage_on() as here, stage_on() as there:
        row = await made(here)
        async with (
            served(here.runtime) as (one, _),
            served(there.runtime) as (two, _),
            device(one) as stage,
            device(two) as phone,
        ):
            for each in (stage, phone):
                await each.ask("join_performance", {"performance_id": row["id"]})
            for at, each in enumerate((stage, phone) * 4):
                await each.ask("update_performance_control", {"instrumental_volume": at / 10})
            screens = [await shows(each, 9) for each in (stage, phone)]
            assert shown(screens[0]) == shown(screens[1])
            assert screens[0]["instrumental_volume"] == 0.7


async def test_a_flood_of_messages_ends_the_connection_and_no_other(stage_on_sqlite: OpenStage) -> None:
    """Fault 65: bounded for each client; a few hundred at once are more than anybody's hands make."""
    async with stage_on_sqlite(socket_messages_per_s=5) as line:
        row = await made(line)
        async with served(line.runtime) as (url, _), device(url) as calm, device(url) as wild:
            for each in (calm, wild):
                await each.ask("join_performance", {"performance_id": row["id"]})
            with contextlib.suppress(Exception):  # whatever its library makes of the end of its line
                for at in range(300):
                    change = {"lyrics_offset": at}
                    await wild.client.emit("update_performance_control", change, namespace="/performance")
            assert (await wild.wait_for("closed"))["reason"] == "rate_limited"
            answer = await calm.ask("update_performance_control", {"vocal_volume": 1})
            assert answer["vocal_volume"] == 1.0
            assert answer["version"] < 100
            await shows(calm, answer["version"])


async def test_a_performance_that_is_deleted_lets_its_devices_go(sqlite_line: Stage) -> None:
    row = await made(sqlite_line)
    async with two_devices(sqlite_line, row["id"]) as (stage, phone):
        await sqlite_line.client.delete(f"/v1/performances/{row['id']}")
        for each in (stage, phone):
            assert await each.wait_for("performance_deleted") == {"performance_id": row["id"]}
        async with asyncio.timeout(LIMIT_S):
            while (await phone.ask("playback_play"))["error"]["code"] != "not_joined":
                await asyncio.sleep(0)


async def test_nothing_is_left_of_a_room_when_all_have_gone(sqlite_line: Stage) -> None:
    row = await made(sqlite_line)
    notifier = sqlite_line.runtime.line.notifier
    before = notifier.count_subscriptions()
    async with served(sqlite_line.runtime) as (url, app):
        rooms = app.api.state.sockets._namespaces["/performance"]._rooms
        async with device(url) as one:
            async with device(url) as two:
                for each in (one, two):
                    await each.ask("join_performance", {"performance_id": row["id"]})
                assert (len(rooms), notifier.count_subscriptions()) == (1, before + 1)
                await one.ask("join_performance", {"performance_id": NOBODYS})
            await one.ask("join_performance", {"performance_id": row["id"]})
            await one.ask("leave_performance")
            async with asyncio.timeout(LIMIT_S):
                while rooms:
                    await one.ask("leave_performance")
            assert notifier.count_subscriptions() == before
