"""Socket.IO at the door: who gets in, what they may send, and how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
import websockets
from socketio.exceptions import ConnectionError as Refused

from app.access.callers import DEFAULT_TENANT, Caller, Scope
from app.access.desk import Issued
from app.main import Front
from app.web.socket.connections import Connection
from app.web.socket.library import MOST_WAITING
from app.web.socket.server import Sockets
from tests.conftest import becomes
from tests.flow.conftest import OpenStage, Stage
from tests.flow.sockets import Listener, listening_to, served


async def key(stage: Stage, *scopes: Scope, tenant: str = DEFAULT_TENANT) -> Issued:
    """A new key; from the first on every caller needs one."""
    admin = Caller(tenant, frozenset(Scope))
    issued = await stage.runtime.key_desk.create(admin, name="test", scopes=scopes or [Scope.JOBS_READ])
    stage.runtime.keyring.close_house()
    stage.runtime.keyring.forget()
    return issued


def sockets_of(app: Front) -> Sockets:
    sockets: Sockets = app.api.state.sockets
    return sockets


def only(app: Front) -> Connection:
    (connection,) = sockets_of(app)._connections.values()
    return connection


async def refusal(url: str, token: str | None = None, **how: Any) -> Any:
    """What somebody is told who is not let in."""
    listener = Listener()
    with pytest.raises(Refused):
        await listener.connect(url, token=token, **how)
    (said,) = listener.refusals
    return said["data"] if isinstance(said, dict) else said


async def polled_refusal(url: str, token: str | None) -> Any:
    """The same, asked by hand: the library's client leaves a poll behind that was refused."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        path = "/socket.io/?EIO=4&transport=polling"
        opened = await client.get(path)
        path += f"&sid={json.loads(opened.text[1:])['sid']}"
        auth = json.dumps({"token": token}) if token else ""
        assert (await client.post(path, content=f"40/jobs,{auth}")).status_code == 200
        said = (await client.get(path)).text
        assert said.startswith("44/jobs,")
        return json.loads(said.removeprefix("44/jobs,"))["data"]


async def raw(url: str, **how: Any) -> websockets.ClientConnection:
    """A WebSocket that says what it likes."""
    address = url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket"
    return await websockets.connect(address, compression=None, open_timeout=30, **how)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_an_open_house_lets_programs_in(sqlite_line: Stage, transport: str) -> None:
    async with (
        served(sqlite_line.runtime) as (url, app),
        listening_to(url, transport=transport) as listener,
    ):
        answer = await listener.ask("subscribe_to_jobs", {})
        assert answer == await listener.wait_for("subscribed") == {"job_id": None, "seq": 0}
        assert sockets_of(app).count == 1
        await listener.client.disconnect()
        await becomes(lambda: sockets_of(app).count == 0)


async def test_polling_goes_over_to_a_websocket_and_on(sqlite_line: Stage) -> None:
    async with served(sqlite_line.runtime) as (url, _):
        listener = Listener()
        await listener.client.connect(url, namespaces=["/jobs"], transports=["polling", "websocket"])
        await listener.ask("subscribe_to_jobs", {})
        assert listener.client.transport() == "websocket"
        await sqlite_line.ask()
        await listener.wait_for("job_created")
        await listener.client.disconnect()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_without_a_key_that_holds_nobody_gets_in_and_is_told_in_one_word(
    sqlite_line: Stage, transport: str
) -> None:
    """Fault 65: no token, a wrong one, one without the scope: a typed refusal."""
    asked = refusal if transport == "websocket" else polled_refusal
    good = await key(sqlite_line)
    blind = await key(sqlite_line, Scope.JOBS_WRITE)
    async with served(sqlite_line.runtime) as (url, app):
        for token in (None, "nonsense", good.text[:-1], "rpt_e30.00", "rpt_", "x" * 5000):
            said = await asked(url, token)
            assert said["code"] == "unauthenticated"
        assert (await asked(url, blind.text))["code"] == "forbidden"
        async with listening_to(url, token=good.text, transport=transport) as listener:
            assert await listener.ask("subscribe_to_jobs", {}) == {"job_id": None, "seq": 0}
            assert sockets_of(app).count >= 1


async def test_a_token_stands_for_its_key_until_it_expires_or_the_key_ends(sqlite_line: Stage) -> None:
    issued = await key(sqlite_line)
    runtime = sqlite_line.runtime
    headers = {"authorization": f"Bearer {issued.text}"}
    reply = await sqlite_line.client.post("/v1/socket-tokens", headers=headers)
    assert (reply.status_code, reply.headers["cache-control"]) == (201, "no-store")
    token = reply.json()["token"]
    caller = runtime.tickets.read(token, now=runtime.line.clock.now())
    assert (caller.tenant, caller.scopes, caller.key_id) == (
        DEFAULT_TENANT, frozenset({Scope.JOBS_READ}), issued.key.id,
    )  # fmt: skip
    async with served(runtime) as (url, _):
        async with listening_to(url, token=token) as listener:
            assert await listener.ask("subscribe_to_jobs", {})
        await runtime.key_desk.revoke(Caller(DEFAULT_TENANT, frozenset(Scope)), issued.key.id)
        assert (await refusal(url, token))["code"] == "unauthenticated"
        stale = runtime.tickets.issue(caller, now=issued.key.created_at.replace(year=2020)).text
        assert (await refusal(url, stale))["code"] == "unauthenticated"
    assert (await sqlite_line.client.post("/v1/socket-tokens")).status_code == 401


async def test_a_key_that_ends_ends_its_connections(sqlite_line: Stage) -> None:
    """Fault 65: revoked in the middle of a connection; and an open house that closes."""
    async with served(sqlite_line.runtime) as (url, app), listening_to(url) as guest:
        await guest.ask("subscribe_to_jobs", {})
        issued = await key(sqlite_line)
        async with listening_to(url, token=issued.text) as listener:
            await listener.ask("subscribe_to_jobs", {})
            await sockets_of(app).look()
            assert (await guest.wait_for("closed"))["reason"] == "unauthenticated"
            assert not listener.named("closed")
            await sqlite_line.runtime.key_desk.revoke(Caller(DEFAULT_TENANT, frozenset(Scope)), issued.key.id)
            await sockets_of(app).look()
            assert (await listener.wait_for("closed"))["reason"] == "unauthenticated"
            await listener.wait_for("disconnect")
            await becomes(lambda: sockets_of(app).count == 0)


async def test_a_foreign_page_opens_nothing(stage_on_sqlite: OpenStage) -> None:
    """Fault 65: a foreign Origin is refused at the handshake, by socket and by poll; a cookie is no proof."""
    home = "https://pages.example"
    async with (
        stage_on_sqlite(cors_allowed_origins=home) as stage,
        served(stage.runtime) as (url, app),
        httpx.AsyncClient(base_url=url) as client,
    ):
        poll = "/socket.io/?EIO=4&transport=polling"
        foreign = {"origin": "https://evil.example"}
        with pytest.raises(websockets.InvalidStatus) as seen:
            await raw(url, additional_headers=foreign)
        assert seen.value.response.status_code == 403
        for reply in (await client.get(poll, headers=foreign), await client.post(poll, headers=foreign)):
            assert (reply.status_code, reply.json()["code"]) == (403, "foreign_origin")
        assert (await client.get(poll, headers={"host": "evil.example"})).status_code == 421
        with pytest.raises(websockets.InvalidStatus):
            await raw(url, additional_headers={"host": "evil.example"})
        assert sockets_of(app).count == 0
        reply = await client.get(poll, headers={"origin": home})
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, home)
        await key(stage)
        cookie = {"cookie": f"session={(await key(stage)).text}"}
        assert (await refusal(url, headers=cookie))["code"] == "unauthenticated"


async def test_a_key_in_the_address_is_refused_unread(sqlite_line: Stage) -> None:
    async with served(sqlite_line.runtime) as (url, app), httpx.AsyncClient(base_url=url) as client:
        reply = await client.get("/socket.io/?EIO=4&transport=polling&access_token=secret")
        assert reply.json()["code"] == "key_in_address"
        assert sockets_of(app).count == 0


async def test_another_tenant_is_not_there(stage_on: OpenStage) -> None:
    """Fault 18: another tenant's job cannot be subscribed to, and nothing of it is told."""
    async with stage_on() as stage, served(stage.runtime) as (url, _):
        ours = await stage.ask("ours")
        mine = await key(stage, *Scope, tenant="other")
        async with listening_to(url, token=mine.text) as listener:
            refused = await listener.ask("subscribe_to_jobs", {"job_id": ours})
            assert refused["error"]["code"] == "not_found"
            await listener.ask("subscribe_to_jobs", {"after_seq": 0})
            await listener.ask("request_jobs_list", {})
            assert (await listener.wait_for("jobs_list"))["jobs"] == []
            default = {"authorization": f"Bearer {(await key(stage, *Scope)).text}"}
            other = {"authorization": f"Bearer {mine.text}"}
            await stage.client.post(f"/v1/jobs/{ours}/cancel", headers=default)
            body = {"kind": "sound_effect", "input": {"prompt": "theirs", "duration_s": 1}}
            theirs = (await stage.client.post("/v1/jobs", json=body, headers=other)).json()["id"]
            await listener.wait_for("job_created")
            assert {each["job_id"] for each in listener.named("job_created", "job_cancelled")} == {theirs}


async def test_what_is_no_message_is_answered_and_changes_nothing(sqlite_line: Stage) -> None:
    """Fault 65: a client that says the server's words, or the library's own, is refused by name."""
    async with (
        served(sqlite_line.runtime) as (url, _),
        listening_to(url) as liar,
        listening_to(url) as listener,
    ):
        for each in (liar, listener):
            await each.ask("subscribe_to_jobs", {})
        for event in ("job_created", "connect", "disconnect", "trigger_event", "__init__", "came"):
            answer = await liar.ask(event, {"seq": 1})
            assert answer["error"]["code"] == "unknown_message"
        wrong = (
            {"job_id": 5},
            {"after_seq": -1},
            {"after_seq": "1"},
            {"odd": 1},
            [1],
            "x",
            {"job_id": "a\0"},
        )
        for payload in wrong:
            assert (await liar.ask("subscribe_to_jobs", payload))["error"]["code"] == "invalid_input"
        assert len(liar.named("error")) == 6 + len(wrong)
        await sqlite_line.ask()
        for each in (liar, listener):
            await each.wait_for("job_created")
            assert len(each.named("job_created")) == 1


@pytest.mark.parametrize(
    "frame",
    [
        b"\x00\x01junk",
        "x",
        "9",
        "4" + "[" * 50_000,
        "42" + "[" * 50_000,
        "42/jobs,{}",
        "42/jobs,[]",
        '42/jobs,[{"a":1}]',
        '451-/jobs,["x",{"_placeholder":true,"num":0}]',
        "4" + "9" * 5000,
        "40/nowhere,",
        '40/jobs,["no mapping"]',
        "m" * 1_000_000,
    ],
    ids=lambda frame: repr(frame[:12]),
)
async def test_junk_ends_its_own_connection_at_most(sqlite_line: Stage, frame: str | bytes) -> None:
    """Fault 65: a 1 MB frame, binary junk, JSON without an end: no error of ours, nobody else notices."""
    async with served(sqlite_line.runtime) as (url, app), listening_to(url) as listener:
        client = await raw(url)
        await client.recv()
        await client.send("40/jobs,")
        assert str(await client.recv()).startswith("40/jobs,")
        await client.send(frame)
        if str(frame).startswith(("40", "42/jobs,[{")):
            # Refused in words, and no more than that.
            await client.close()
        async with asyncio.timeout(30):
            await client.wait_closed()
        await becomes(lambda: sockets_of(app).count == 1)
        assert await listener.ask("subscribe_to_jobs", {})


async def test_who_sends_too_much_is_told_and_closed(stage_on_sqlite: OpenStage) -> None:
    async with (
        stage_on_sqlite(socket_messages_per_s=1) as stage,
        served(stage.runtime) as (url, app),
        listening_to(url) as listener,
    ):
        for _ in range(10):
            await listener.client.emit("request_jobs_list", {}, namespace="/jobs")
        assert (await listener.wait_for("closed"))["reason"] == "rate_limited"
        await becomes(lambda: sockets_of(app).count == 0)


async def test_connections_are_counted_for_all_and_for_each_caller(stage_on_sqlite: OpenStage) -> None:
    async with (
        stage_on_sqlite(socket_connections=3, socket_connections_per_caller=2) as stage,
        served(stage.runtime) as (url, _),
        listening_to(url),
        httpx.AsyncClient(base_url=url) as client,
    ):
        async with listening_to(url):
            assert (await refusal(url))["code"] == "overloaded"
            first = await raw(url)
            reply = await client.get("/socket.io/?EIO=4&transport=polling")
            assert (reply.status_code, reply.json()["code"]) == (503, "overloaded")
            with pytest.raises(websockets.InvalidStatus) as seen:
                await raw(url)
            assert seen.value.response.status_code == 503
            await first.close()
        async with listening_to(url):
            pass


async def test_who_shows_no_key_in_time_is_closed(sqlite_line: Stage) -> None:
    async with served(sqlite_line.runtime) as (url, app):
        client = await raw(url)
        await client.recv()
        only(app).opened_s -= 60
        await sockets_of(app).look()
        async with asyncio.timeout(30):
            await client.wait_closed()
        await becomes(lambda: sockets_of(app).count == 0)


async def test_what_waits_for_a_client_has_an_end_whatever_it_is(sqlite_line: Stage) -> None:
    """Fault 64: past so many packets a client is closed, in every namespace."""
    async with served(sqlite_line.runtime) as (url, app), listening_to(url) as listener:
        await listener.ask("subscribe_to_jobs", {})
        (member,) = only(app).members.values()
        namespace = sockets_of(app).library.namespace_handlers["/jobs"]
        # Nobody writes between: the loop gets no turn.
        for number in range(MOST_WAITING + 50):
            await namespace.tell(member, "job_updated", {"seq": number})
        assert (await listener.wait_for("closed"))["reason"] == "too_slow"
        assert len(listener.named("job_updated")) == MOST_WAITING


async def test_no_token_is_logged(sqlite_line: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 65: refused or let in, at any level."""
    caplog.set_level(logging.DEBUG)
    issued = await key(sqlite_line)
    async with served(sqlite_line.runtime) as (url, _):
        client = await raw(url)
        for token in (issued.text, "not_a_key_at_all"):
            await client.send("40/jobs," + json.dumps({"token": token}))
        await client.recv()
        await client.recv()
        await client.close()
    ours = [record for record in caplog.records if not record.name.startswith("websockets.client")]
    assert not [each for each in ours if "token" in each.getMessage() or issued.text in each.getMessage()]
