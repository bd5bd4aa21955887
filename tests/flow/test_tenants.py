"""Tenants: two on one service, and neither sees, changes or pages through anything of the other's.

The routes are those that the app has: each new one is tried here, or fails here until it is said how.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from app.access.callers import Caller, Scope
from app.access.desk import Issued
from app.access.links import rotate_links
from app.main import create_api, create_app
from app.outbound import Outbound
from app.web.parts import Administrator, Reader, Replayer, Writer
from db.ids import make_id
from db.tables import (
    AccessKey,
    Announcement,
    Audit,
    BulkAct,
    Delivery,
    Endpoint,
    Job,
    Lyrics,
    PartialUpload,
    Performance,
    RecoveryRun,
    Upload,
    Voice,
)
from db.voices import insert_voice
from tests.fakes.examiner import vector
from tests.fakes.provider import served
from tests.flow.conftest import TONE, OpenStage, Stage, as_data_uri, tone
from tests.flow.test_feed import LIMIT_S, messages

RAIN = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
NOBODYS = "0" * 32
OPEN = {
    "/healthz", "/readyz", "/metrics", "/docs", "/docs/errors", "/docs/start.js",
    "/session", "/session/end", "/static/{path:path}", "/performances/{performance_id}/remote",
}  # fmt: skip
"""Routes that belong to no tenant. A remote is a frame without a fact in it, for guests: they have no key."""
BODIES: dict[str, Any] = {
    "/v1/keys/{key_id}/rotate": {"overlap_s": 0},
    "/v1/jobs/{job_id}/rerun": {"from": "finish"},
    "/v1/lyrics/{lyrics_id}": {"version": 1, "title": "x"},
    "/v1/lyrics/{lyrics_id}/shift": {"version": 1, "ms": 1},
    "/v1/lyrics/{lyrics_id}/lines": {"version": 1, "lines": [{"start_ms": 0, "end_ms": 1, "text": "x"}]},
    "/v1/lyrics/{lyrics_id}/restore": {"version": 1, "number": 1},
    "/v1/performances/{performance_id}": {"title": "x"},
    "/v1/performances/{performance_id}/singers": {"singer": "x"},
    "/v1/performances/{performance_id}/singers/order": {"version": 1, "ids": []},
    "/v1/performances/{performance_id}/singers/next": {},
    "/v1/performances/{performance_id}/singers/{entry_id}": {"position": 1},
    "/v1/voices/{voice_id}": {"name": "mine now"},
}
"""What is sent where a body is needed to come as far as the id."""
LISTS: dict[str, Any] = {
    "POST /api/v1/convert/song": None,
    "POST /v1/announcements/resend": {"since": "2020-01-01T00:00:00Z", "state": "pending"},
    "POST /v1/deliveries/import": {"headers": {}, "body_base64": ""},
    "POST /v1/deliveries/replay": {},
    "POST /v1/jobs": RAIN,
    "POST /v1/jobs/bulk": {"action": "cancel", "q": "kind:sound_effect"},
    "POST /v1/lyrics": {"lrc": "[00:01.00]x"},
    "POST /v1/performances": {},
    "POST /v1/keys": {"name": "x", "scopes": ["admin"]},
    "POST /v1/recoveries": {},
    "POST /v1/socket-tokens": None,
    "POST /v1/uploads": None,
    "OPTIONS /v1/uploads": None,
    "POST /v1/voices": {"name": "x", "upload_id": f"upl_{NOBODYS}"},
    "POST /v1/webhook-secrets": {"overlap_s": 0},
}
"""What is sent to a route without an id in its path that makes something."""
BY_LINK = "/v1/assets/{asset_id}/content"
"""Asks for a key that may read only where there is no signed link; tried by itself below."""
OWNED: tuple[Any, ...] = (
    Job, Delivery, AccessKey, Announcement, Endpoint, BulkAct, RecoveryRun, Upload, PartialUpload,
    Lyrics, Performance, Voice,
)  # fmt: skip


@pytest.fixture
def stage_on(stage_on: OpenStage) -> OpenStage:
    """A stage whose callers may be told on this machine, where nobody listens."""
    door = Outbound(allow=("127.0.0.1",), idle_timeout_s=20, connect_timeout_s=20)
    return partial(stage_on, ports={"outbound": door})


def routes_of(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """Every route of the API that belongs to tenants, by method and path."""
    for context in iter_route_contexts(app.routes):
        route = context.route
        if isinstance(route, APIRoute) and route.path not in OPEN:
            for method in route.methods:
                yield f"{method} {route.path}", route


async def belongings(line: Stage, tenant: str | None = None) -> list[Any]:
    """All that tenants have, or one of them has; when a key was last used is no change."""
    found = [row for table in OWNED for row in await line.rows(table)]
    for row in found:
        if isinstance(row, AccessKey):
            row.last_used_at = None
    whose = {row.id: row.tenant for row in found if isinstance(row, Job)}
    return [
        row
        for row in found
        if tenant is None or (whose.get(row.job_id) if isinstance(row, Delivery) else row.tenant) == tenant
    ]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One side: its key and the ids of what it has."""

    headers: dict[str, str]
    ids: dict[str, str]


async def key_for(line: Stage, tenant: str, *scopes: Scope) -> Issued:
    by = Caller(tenant, frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name=f"key of {tenant}", scopes=scopes or [Scope.ADMIN])
    line.runtime.keyring.close_house()
    return issued


async def add_voice(line: Stage, tenant: str, upload_id: str) -> str:
    """A voice of what was uploaded, as if that had been examined."""
    [its] = [row for row in await line.rows(Upload) if row.id == upload_id]
    voice = Voice(
        id=make_id("voi"),
        tenant=tenant,
        name=f"voice of {tenant}",
        created_at=its.created_at,
        asset_id=its.asset_id,
        upload_id=make_id("upl"),
        duration_s=20.0,
        embedding_model="test/1",
        embedding=base64.b64decode(vector(1)),
    )
    async with line.runtime.line.database.transaction() as tx:
        await insert_voice(tx, voice)
    return voice.id


async def settle_in(line: Stage, tenant: str) -> Tenant:
    """A tenant with one of everything: a job that has succeeded with an output of the tenant's own, its news,
    an announcement that nobody has taken, an upload, a bulk act, a recovery, a secret, a key."""
    issued = await key_for(line, tenant)
    headers = {"authorization": f"Bearer {issued.text}"}
    asked = await line.client.post(
        "/v1/jobs", json=RAIN | {"callback_url": f"http://127.0.0.1:65535/{tenant}"}, headers=headers
    )
    assert asked.status_code == 202, asked.text
    job_id = asked.json()["id"]
    await line.drain()
    # The same bytes would be one asset, of both.
    sound = as_data_uri(tone(hz=300.0 + sum(tenant.encode()) % 500))
    await line.fake.finish(list(line.fake.predictions)[-1], output=sound)
    await line.drain()
    job = (await line.client.get(f"/v1/jobs/{job_id}", headers=headers)).json()
    assert job["state"] == "succeeded"
    news = (await line.client.get("/v1/deliveries", params={"job_id": job_id}, headers=headers)).json()
    sent = await line.client.post(
        "/v1/uploads", files={"file": ("talk.wav", tone(0.7), "audio/wav")}, headers=headers
    )
    voice_id = await add_voice(line, tenant, sent.json()["upload_id"])
    [told] = (await line.client.get("/v1/announcements", headers=headers)).json()["items"]
    assert (told["state"], told["attempts"]) == ("pending", 1)
    [secret] = (await line.client.get("/v1/webhook-secrets", headers=headers)).json()["items"]
    failed = {"action": "retry", "q": "state:failed"}
    act = await line.client.post("/v1/jobs/bulk", json=failed, headers=headers)
    recovery = await line.client.post("/v1/recoveries", json={}, headers=headers)
    assert (act.status_code, recovery.status_code) == (202, 202), (act.text, recovery.text)
    await line.drain()
    asset_id = job["outputs"]["audio"]["asset_id"]
    words = await line.client.post("/v1/lyrics", json={"lrc": f"[00:01.00]{tenant}"}, headers=headers)
    evening = await line.client.post("/v1/performances", json={"title": tenant}, headers=headers)
    singer = {"singer": tenant, "instrumental": asset_id, "lyrics_id": words.json()["id"]}
    path = f"/v1/performances/{evening.json()['id']}/singers"
    entry = await line.client.post(path, json=singer, headers=headers)
    assert entry.status_code == 201, entry.text
    return Tenant(
        headers,
        {
            "job_id": job_id,
            "delivery_id": news["items"][0]["id"],
            "asset_id": asset_id,
            "announcement_id": told["id"],
            "endpoint_id": told["endpoint_id"],
            "act_id": act.json()["id"],
            "recovery_id": recovery.json()["id"],
            "secret": secret["secret"],
            "key_id": issued.key.id,
            "upload_id": sent.json()["upload_id"],
            "lyrics_id": words.json()["id"],
            "number": str(2**31 - 1),
            "performance_id": evening.json()["id"],
            "entry_id": entry.json()["id"],
            "voice_id": voice_id,
        },
    )


def strange(own_id: str) -> str:
    """An id of the same kind that never was; a number says nothing of itself."""
    if own_id.isdigit():
        return own_id
    return f"{own_id.partition('_')[0]}_{NOBODYS}"


def said(reply: httpx.Response, own_id: str) -> tuple[int, str, set[str]]:
    """An answer without what names the request or the id."""
    text = re.sub(r"req_[0-9a-f]{32}", "", reply.text).replace(own_id, "ID")
    return reply.status_code, text, set(reply.headers)


async def test_another_tenants_id_is_as_one_that_never_was_on_every_route(stage_on: OpenStage) -> None:
    """Fault 18: jobs, events, streams, deliveries, assets, announcements, endpoints, bulk acts, recoveries,
    keys; whatever the method, the words and the headers."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")

        async def add(path: str, **body: Any) -> dict[str, Any]:
            return dict((await line.client.post(path, json=body, headers=theirs.headers)).json())

        live, canceled = [(await add("/v1/jobs", **RAIN))["id"] for _ in range(2)]
        await add(f"/v1/jobs/{canceled}/cancel")
        await line.drain()
        # In every state that some verb could move on from.
        begun = {
            "act_id": (await add("/v1/jobs/bulk", action="cancel", ids=[live]))["id"],
            "recovery_id": (await add("/v1/recoveries"))["id"],
        }
        of_theirs = [theirs.ids, theirs.ids | begun | {"job_id": live}, theirs.ids | {"job_id": canceled}]
        assert {(await line.client.get(path, headers=theirs.headers)).json()["state"] for path in (
            f"/v1/jobs/bulk/{begun['act_id']}", f"/v1/recoveries/{begun['recovery_id']}"
        )} == {"queued", "running"}  # fmt: skip
        before = await belongings(line)
        tried = 0
        for name, route in routes_of(create_api(line.runtime)):
            [method, path], parameters = name.split(), re.findall(r"{(\w+)}", route.path)
            if not parameters:
                continue
            assert set(parameters) <= set(theirs.ids), f"{name}: say in `settle_in` whose ids these are"
            for accept in ("application/json", "text/event-stream"):
                answers = []
                for ids in (*of_theirs, {key: strange(value) for key, value in theirs.ids.items()}):
                    filled = path.format(**ids)
                    reply = await line.client.request(
                        method, filled, headers=ours.headers | {"accept": accept}, json=BODIES.get(path)
                    )
                    assert reply.status_code == 404, (name, reply.status_code, reply.text)
                    answers.append(said(reply, ids[parameters[0]]))
                assert all(answer == answers[-1] for answer in answers), name
                tried += 1
        assert tried >= 44
        assert await belongings(line) == before, "nothing was changed"


async def test_no_list_shows_anything_of_another_tenants(stage_on: OpenStage) -> None:
    """Fault 18."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        live = (await line.client.post("/v1/jobs", json=RAIN, headers=theirs.headers)).json()["id"]
        await line.drain()
        # A number names nothing alone, and stands in a form as the largest that may be given.
        known = [each for each in theirs.ids.values() if not each.isdigit()]
        before, shown = await belongings(line, "umbrella"), [live, *known]
        tried = 0
        for name, _ in routes_of(create_api(line.runtime)):
            method, path = name.split()
            if "{" in path:
                continue
            assert method == "GET" or name in LISTS, f"{name}: say in `LISTS` what is sent to it"
            reply = await line.client.request(method, path, headers=ours.headers, json=LISTS.get(name))
            assert reply.status_code < 500, (name, reply.text)
            for their_id in shown:
                assert their_id not in reply.text, name
            assert "umbrella" not in reply.text, name
            wanted = {**theirs.ids, "job_id": live, "endpoint": theirs.ids["endpoint_id"], "q": live}
            narrowed = await line.client.request(
                method, path, params=wanted, headers=ours.headers, json=LISTS.get(name)
            )
            # A page gives a search back in its box; an address in its link.
            echoed = re.sub(rf'(q=|name="q" value="){live}', "", narrowed.text)
            assert not any(each in echoed for each in shown), name
            tried += 1
        assert tried >= 20
        await line.drain()
        assert await belongings(line, "umbrella") == before, "nor did what was asked for come to theirs"
        mine = (await line.client.get("/v1/jobs", headers=theirs.headers)).json()["items"]
        assert [job["id"] for job in mine] == [live, theirs.ids["job_id"]], "and sees all of its own"


@pytest.mark.parametrize("path", ["/v1/events", "/v1/deliveries"])
async def test_no_stream_tells_anything_of_another_tenants(stage_on: OpenStage, path: str) -> None:
    """Fault 18: neither of what was, nor of what comes while it is open."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")

        async def whole(who: Tenant) -> str:
            asked = await line.client.post("/v1/jobs", json=RAIN, headers=who.headers)
            await line.drain()
            await line.fake.finish(line.fake.live()[0], output=TONE)
            await line.drain()
            return str(asked.json()["id"])

        last = {"/v1/events": "0", "/v1/deliveries": ours.ids["delivery_id"]}[path]
        headers = ours.headers | {"accept": "text/event-stream", "last-event-id": last}
        async with (
            asyncio.timeout(LIMIT_S),
            served(create_app(line.runtime)) as url,
            httpx.AsyncClient(base_url=url, timeout=LIMIT_S, headers=headers) as client,
            client.stream("GET", path, params={"body": "1"}) as reply,
        ):
            assert reply.status_code == 200
            of_theirs, of_ours = [await whole(who) for who in (theirs, ours)]
            [news] = (
                await line.client.get("/v1/deliveries", params={"job_id": of_ours}, headers=ours.headers)
            ).json()["items"]
            said = []
            async for each in messages(reply):
                said.append(str(each))
                if (each.get("event"), each["data"].get("job_id")) == ("job.succeeded", of_ours):
                    break
                if each.get("id") == news["id"]:
                    break
        assert len(said) >= {"/v1/events": 6, "/v1/deliveries": 2}[path]
        # The stream has gone past theirs: they came before ours.
        for their_id in (of_theirs, "umbrella", *theirs.ids.values()):
            assert not any(their_id in each for each in said)


async def test_a_signed_link_opens_its_own_tenants_asset_alone(stage_on: OpenStage) -> None:
    """Fault 18: neither the tenant nor the asset in it can be put in another's place."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        assert ours.ids["asset_id"] != theirs.ids["asset_id"]
        links = {}
        for who in (ours, theirs):
            shown = await line.client.get(f"/v1/assets/{who.ids['asset_id']}", headers=who.headers)
            links[who.ids["asset_id"]] = shown.json()["url"]
            assert (await line.client.get(shown.json()["url"])).status_code == 200
        path, _, query = links[theirs.ids["asset_id"]].partition("?")
        given, our_path = dict(parse_qsl(query)), links[ours.ids["asset_id"]].partition("?")[0]
        refused = [
            (path, given | {"tenant": "acme"}),
            (our_path, given),
            (our_path, given | {"tenant": "acme"}),
            (path, dict(parse_qsl(links[ours.ids["asset_id"]].partition("?")[2]))),
            (path, {"tenant": "acme"}),
            (path, {"tenant": "umbrella"}),
        ]
        for to, params in refused:
            for headers in ({}, ours.headers):
                reply = await line.client.get(to, params=params, headers=headers)
                # What is no whole link is none: then it takes a key before anything else.
                status = 403 if headers or "signature" in params else 401
                assert reply.status_code == status, (to, params, reply.text)
        # Not even one that we signed opens what the tenant in it does not have.
        signed = line.runtime.links.url(theirs.ids["asset_id"], tenant="acme")
        assert (await line.client.get(signed)).status_code == 410
        writer = await key_for(line, "umbrella", Scope.JOBS_WRITE)
        reply = await line.client.get(path, headers={"authorization": f"Bearer {writer.text}"})
        assert reply.status_code == 403, "without a link it takes a key that may read"


def test_every_route_says_what_a_caller_must_be_allowed(sqlite_line: Stage) -> None:
    """Fault 17: a route without a scope would be open to every key."""
    guards = {each.__metadata__[0].dependency for each in (Reader, Writer, Replayer, Administrator)}
    for name, route in routes_of(create_api(sqlite_line.runtime)):
        if route.path == BY_LINK:
            continue
        declared = {each.call for each in route.dependant.dependencies}
        assert declared & guards, f"{name}: take a Reader, Writer, Replayer or Administrator"


async def test_a_route_that_is_not_listed_as_open_answers_nobody_without_a_key(sqlite_line: Stage) -> None:
    """Fault 17: also what nobody has built, so that what is built next is closed."""
    await key_for(sqlite_line, "acme")
    names = [name for name, _ in routes_of(create_api(sqlite_line.runtime))]
    for name in [*names, "GET /v1/next", "POST /api/v1/next"]:
        method, path = name.split()
        filled = re.sub(r"{\w+}", "x", path)
        reply = await sqlite_line.client.request(method, filled)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), name


async def test_a_job_may_not_name_another_tenants_files(stage_on: OpenStage) -> None:
    """Fault 18: an upload, and the output of a job."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        job = (await line.client.get(f"/v1/jobs/{theirs.ids['job_id']}", headers=theirs.headers)).json()
        # Its own bytes, so that they are no asset of ours too: the same content is one asset.
        sent = await line.client.post(
            "/v1/uploads", files={"file": ("x.wav", tone(0.9), "audio/wav")}, headers=theirs.headers
        )
        upload_id = sent.json()["upload_id"]
        for file_id in (upload_id, f"upl_{NOBODYS}"):
            body = {"kind": "transcription", "input": {"audio": file_id}}
            refused = await line.client.post("/v1/jobs", json=body, headers=ours.headers)
            assert (refused.status_code, refused.json()["field"]) == (422, "input.audio")
            assert refused.json()["detail"] == "input.audio: there is no such upload or asset"
        assert job["outputs"]["audio"]["asset_id"].startswith("ast_")


async def test_news_of_no_job_is_shown_to_the_operator_alone(stage_on: OpenStage) -> None:
    """Fault 18: it may be anybody's."""
    async with stage_on() as line:
        body = b'{"status": "starting"}'
        assert (await line.post("att_nobody", body, line.fake.signed("msg_1", body))).status_code == 200
        await line.drain()
        [stray] = await line.rows(Delivery)
        seen = {}
        for tenant, scope in (
            ("default", Scope.ADMIN),
            ("default", Scope.JOBS_READ),
            ("acme", Scope.ADMIN),
        ):
            issued = await key_for(line, tenant, scope)
            headers = {"authorization": f"Bearer {issued.text}"}
            shown = await line.client.get(f"/v1/deliveries/{stray.id}", headers=headers)
            listed = (await line.client.get("/v1/deliveries", headers=headers)).json()["items"]
            seen[tenant, scope] = (shown.status_code, len(listed))
        assert seen == {
            ("default", Scope.ADMIN): (200, 1),
            ("default", Scope.JOBS_READ): (404, 0),
            ("acme", Scope.ADMIN): (404, 0),
        }


async def test_news_that_is_not_applied_yet_belongs_to_its_attempts_tenant(stage_on: OpenStage) -> None:
    """Fault 18."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        await line.client.post("/v1/jobs", json=RAIN, headers=theirs.headers)
        await line.drain()
        attempt = (await line.attempts())[-1]
        body = b'{"status": "processing"}'
        assert (await line.post(attempt.id, body, line.fake.signed("msg_n", body))).status_code == 200
        fresh = next(each for each in await line.rows(Delivery) if each.message_id == "msg_n")
        assert fresh.job_id is None
        for headers, status in ((ours.headers, 404), (theirs.headers, 200)):
            reply = await line.client.get(f"/v1/deliveries/{fresh.id}", headers=headers)
            assert reply.status_code == status


async def test_a_cursor_leads_on_in_its_own_list_alone(stage_on: OpenStage) -> None:
    """Fault 20: tampered, of another filter, of another list, of another tenant."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        for _ in range(2):
            await line.client.post("/v1/jobs", json=RAIN, headers=ours.headers)
        wanted = {"limit": "1", "kind": "sound_effect"}
        page = (await line.client.get("/v1/jobs", params=wanted, headers=ours.headers)).json()
        cursor = page["next_cursor"]
        good = await line.client.get("/v1/jobs", params=wanted | {"cursor": cursor}, headers=ours.headers)
        assert good.status_code == 200
        wider = await line.client.get(
            "/v1/jobs", params=wanted | {"cursor": cursor, "limit": "50"}, headers=ours.headers
        )
        assert wider.status_code == 200, "the size of a page may change on the way"
        refused = [
            ("/v1/jobs", wanted, theirs),
            ("/v1/jobs", {**wanted, "kind": "speech"}, ours),
            ("/v1/jobs", {"limit": "1"}, ours),
            ("/v1/jobs", {**wanted, "state": "queued"}, ours),
            ("/v1/jobs", {**wanted, "q": "rain"}, ours),
            ("/v1/jobs", {**wanted, "since": "2020-01-01T00:00:00Z"}, ours),
            ("/v1/deliveries", {"limit": "1"}, ours),
            ("/v1/keys", {"limit": "1"}, ours),
            ("/v1/audit", {"limit": "1"}, ours),
            ("/v1/costs", {"limit": "1"}, ours),
        ]
        for path, params, who in refused:
            reply = await line.client.get(path, params={**params, "cursor": cursor}, headers=who.headers)
            assert (reply.status_code, reply.json()["code"]) == (400, "invalid_cursor"), (path, params)
        packed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        for at in range(len(packed)):
            changed = bytes([*packed[:at], packed[at] ^ 1, *packed[at + 1 :]])
            text = base64.urlsafe_b64encode(changed).decode().rstrip("=")
            reply = await line.client.get("/v1/jobs", params=wanted | {"cursor": text}, headers=ours.headers)
            assert reply.status_code == 400


async def test_each_tenant_reads_its_own_books(stage_on: OpenStage) -> None:
    """Fault 18: what a neighbour spends is nobody else's business."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        for _ in range(2):
            await line.client.post("/v1/jobs", json=RAIN, headers=theirs.headers)
        await line.drain()
        for prediction_id in list(line.fake.live()):
            await line.fake.finish(prediction_id, output=TONE)
        await line.drain()
        for who, attempts in ((ours, 1), (theirs, 3)):
            for group in ("provider", "kind", "job", "day"):
                params = {"group_by": group}
                report = (await line.client.get("/v1/costs", params=params, headers=who.headers)).json()
                assert report["total"]["attempts"] == attempts
                assert sum(each["attempts"] for each in report["items"]) == attempts


async def test_a_recovery_asks_about_the_callers_own_attempts_alone(stage_on: OpenStage) -> None:
    """Fault 18."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        job_ids = {}
        for who in (ours, theirs):
            reply = await line.client.post("/v1/jobs", json=RAIN, headers=who.headers)
            job_ids[who.headers["authorization"]] = reply.json()["id"]
        await line.drain()
        for who in (ours, theirs):
            reply = await line.client.post("/v1/recoveries", json={"dry_run": True}, headers=who.headers)
            found = [each["job_id"] for each in reply.json()["found"]]
            assert found == [job_ids[who.headers["authorization"]]]


async def test_who_did_what_is_in_the_log_of_its_tenant_with_key_and_request(stage_on: OpenStage) -> None:
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        job_id = (await line.client.post("/v1/jobs", json=RAIN, headers=ours.headers)).json()["id"]
        who = ours.headers | {"x-request-id": "request-of-acme"}
        await line.client.post(f"/v1/jobs/{job_id}/cancel", headers=who)
        await line.client.post(f"/v1/jobs/{job_id}/cancel", headers=who)
        await line.client.post(f"/v1/jobs/{job_id}/retry", headers=who)
        await line.client.post(f"/v1/deliveries/{ours.ids['delivery_id']}/replay", headers=who)
        await line.client.post("/v1/recoveries", json={}, headers=who)
        made = (
            await line.client.post("/v1/keys", json={"name": "n", "scopes": ["jobs:read"]}, headers=who)
        ).json()
        await line.client.post(f"/v1/keys/{made['id']}/rotate", json={}, headers=who)
        await line.client.post(f"/v1/keys/{made['id']}/revoke", headers=who)
        # Another tenant's tries leave no trace: nothing was done.
        await line.client.post(f"/v1/keys/{made['id']}/revoke", headers=theirs.headers)
        await line.client.post(f"/v1/jobs/{job_id}/cancel", headers=theirs.headers)
        await line.client.post(f"/v1/announcements/{ours.ids['announcement_id']}/resend", headers=who)
        since = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z", "state": "pending"}
        for dry_run in (True, False):
            await line.client.post("/v1/announcements/resend", json=since | {"dry_run": dry_run}, headers=who)
        await line.client.post(f"/v1/endpoints/{ours.ids['endpoint_id']}/enable", headers=who)
        await line.client.post("/v1/webhook-secrets", json={}, headers=who)
        for path in (
            f"/v1/announcements/{ours.ids['announcement_id']}/resend",
            f"/v1/endpoints/{ours.ids['endpoint_id']}/enable",
        ):
            await line.client.post(path, headers=theirs.headers)
        page = await line.client.get("/v1/audit", params={"limit": "200"}, headers=ours.headers)
        items = page.json()["items"][::-1]
        acts = [item["act"] for item in items]
        assert acts == [
            "key.created", "bulk.begun", "recovery.begun",
            "lyrics.created", "performance.created", "singers.changed",
            "job.canceled", "job.retried", "delivery.replayed", "recovery.begun",
            "key.created", "key.rotated", "key.created", "key.revoked",
            "announcement.resent", "announcements.resent", "endpoint.enabled", "secret.rotated",
        ]  # fmt: skip
        assert {item["key_id"] for item in items[1:]} == {ours.ids["key_id"]}
        assert {item["request_id"] for item in items[6:]} == {"request-of-acme"}
        assert [item["subject"] for item in items[6:8]] == [job_id, job_id]
        assert [item["subject"] for item in items[-4:]] == [
            ours.ids["announcement_id"], "2020-01-01T00:00:00+00:00/2100-01-01T00:00:00+00:00",
            ours.ids["endpoint_id"], "webhook-secret 2",
        ]  # fmt: skip
        assert (items[0]["key_id"], items[0]["subject"]) == (None, ours.ids["key_id"])
        page = await line.client.get("/v1/audit", params={"limit": "2"}, headers=ours.headers)
        more = {"limit": "200", "cursor": page.json()["next_cursor"]}
        rest = (await line.client.get("/v1/audit", params=more, headers=ours.headers)).json()["items"]
        assert page.json()["items"] + rest == items[::-1]
        only = {"act": "job.canceled", "subject": job_id}
        found = (await line.client.get("/v1/audit", params=only, headers=ours.headers)).json()["items"]
        assert [each["act"] for each in found] == ["job.canceled"]
        of_theirs = (await line.client.get("/v1/audit", headers=theirs.headers)).json()["items"][::-1]
        assert [each["subject"] for each in of_theirs] == [
            theirs.ids[name]
            for name in (
                "key_id",
                "act_id",
                "recovery_id",
                "lyrics_id",
                "performance_id",
                "performance_id",
            )
        ]


async def test_that_the_secret_of_links_was_changed_is_in_the_operators_log(sqlite_line: Stage) -> None:
    await rotate_links(sqlite_line.runtime.line.database, at_once=True)
    [row] = await sqlite_line.rows(Audit)
    assert (row.tenant, row.key_id, row.act, row.subject) == ("default", None, "links.rotated", "links")


async def test_the_log_forgets_what_is_older_than_its_time(stage_on: OpenStage) -> None:
    async with stage_on(audit_s=3600) as line:
        await key_for(line, "acme")
        assert await line.runtime.housekeeper.forget_acts() == 0
        async with stage_on(audit_s=0.001) as later:
            assert await later.runtime.housekeeper.forget_acts() == 1
            assert await later.runtime.housekeeper.forget_acts() == 0


@pytest.mark.parametrize("tenant", ["", "Acme", "a b", "x" * 64, "-a", "a/b", "ä"])
async def test_a_tenants_name_is_plain(sqlite_line: Stage, tenant: str) -> None:
    with pytest.raises(Exception, match="tenant"):
        await key_for(sqlite_line, tenant)
