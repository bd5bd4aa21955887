"""Tenants: two on one service, and neither sees, changes or pages through anything of the other's.

The routes are those that the app has: each new one is tried here, or fails here until it is said how.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from app.access.callers import Caller, Scope
from app.access.desk import Issued
from app.main import create_api
from app.web.parts import Administrator, Reader, Replayer, Writer
from db.tables import AccessKey, Delivery, Job
from tests.flow.conftest import TONE, OpenStage, Stage, tone

RAIN = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
NOBODYS = "0" * 32
OPEN = {"/healthz", "/readyz", "/metrics", "/docs", "/docs/errors", "/docs/start.js"}
"""Routes that belong to no tenant."""
BODIES: dict[str, Any] = {
    "/v1/keys/{key_id}/rotate": {"overlap_s": 0},
}
"""What is sent where a body is needed to come as far as the id."""
LISTS: dict[str, Any] = {
    "POST /v1/jobs": RAIN,
    "POST /v1/keys": {"name": "x", "scopes": ["admin"]},
    "POST /v1/recoveries": {},
    "POST /v1/uploads": None,
}
"""What is sent to a route without an id in its path that makes something."""
ASSETS = "/v1/assets/"


def routes_of(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """Every route of the API that belongs to tenants, by method and path."""
    for context in iter_route_contexts(app.routes):
        route = context.route
        if isinstance(route, APIRoute) and route.path not in OPEN and not route.path.startswith(ASSETS):
            for method in route.methods - {"HEAD"}:
                yield f"{method} {route.path}", route


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


async def settle_in(line: Stage, tenant: str) -> Tenant:
    """A tenant with one of everything: a job that has succeeded, its news, an upload, a key."""
    issued = await key_for(line, tenant)
    headers = {"authorization": f"Bearer {issued.text}"}
    asked = await line.client.post("/v1/jobs", json=RAIN, headers=headers)
    assert asked.status_code == 202, asked.text
    job_id = asked.json()["id"]
    await line.drain()
    await line.fake.finish(list(line.fake.predictions)[-1], output=TONE)
    await line.drain()
    job = (await line.client.get(f"/v1/jobs/{job_id}", headers=headers)).json()
    assert job["state"] == "succeeded"
    news = (await line.client.get("/v1/deliveries", params={"job_id": job_id}, headers=headers)).json()
    sent = await line.client.post(
        "/v1/uploads", files={"file": ("talk.wav", tone(0.7), "audio/wav")}, headers=headers
    )
    return Tenant(
        headers,
        {
            "job_id": job_id,
            "delivery_id": news["items"][0]["id"],
            "key_id": issued.key.id,
            "upload_id": sent.json()["upload_id"],
        },
    )


def strange(own_id: str) -> str:
    """An id of the same kind that never was."""
    return f"{own_id.partition('_')[0]}_{NOBODYS}"


def said(reply: httpx.Response, own_id: str) -> tuple[int, str, set[str]]:
    """An answer without what names the request or the id."""
    text = re.sub(r"req_[0-9a-f]{32}", "", reply.text).replace(own_id, "ID")
    return reply.status_code, text, set(reply.headers)


async def test_another_tenants_id_is_as_one_that_never_was_on_every_route(stage_on: OpenStage) -> None:
    """Fault 18: jobs, events, streams, deliveries, keys; whatever the method, the words and the headers."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        live, canceled = [
            (await line.client.post("/v1/jobs", json=RAIN, headers=theirs.headers)).json()["id"]
            for _ in range(2)
        ]
        await line.client.post(f"/v1/jobs/{canceled}/cancel", headers=theirs.headers)
        before = {table: await line.rows(table) for table in (Job, Delivery, AccessKey)}
        # In every state that some verb could move on from.
        of_theirs = [theirs.ids | {"job_id": job_id} for job_id in (theirs.ids["job_id"], live, canceled)]
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
        assert tried >= 16
        after = {table: await line.rows(table) for table in (Job, Delivery, AccessKey)}
        for row in (*before[AccessKey], *after[AccessKey]):
            row.last_used_at = None
        assert before == after, "nothing was changed"


async def test_no_list_shows_anything_of_another_tenants(stage_on: OpenStage) -> None:
    """Fault 18."""
    async with stage_on() as line:
        ours, theirs = await settle_in(line, "acme"), await settle_in(line, "umbrella")
        tried = 0
        for name, _ in routes_of(create_api(line.runtime)):
            method, path = name.split()
            if "{" in path:
                continue
            assert method == "GET" or name in LISTS, f"{name}: say in `LISTS` what is sent to it"
            reply = await line.client.request(method, path, headers=ours.headers, json=LISTS.get(name))
            assert reply.status_code < 500, (name, reply.text)
            for their_id in theirs.ids.values():
                assert their_id not in reply.text, name
            assert "umbrella" not in reply.text, name
            narrowed = await line.client.request(
                method, path, params=theirs.ids, headers=ours.headers, json=LISTS.get(name)
            )
            assert theirs.ids["job_id"] not in narrowed.text, name
            tried += 1
        assert tried >= 9
        mine = (await line.client.get("/v1/jobs", headers=theirs.headers)).json()["items"]
        assert [job["id"] for job in mine] == [theirs.ids["job_id"]], "and sees all of its own"


def test_every_route_says_what_a_caller_must_be_allowed(sqlite_line: Stage) -> None:
    """Fault 17: a route without a scope would be open to every key."""
    guards = {each.__metadata__[0].dependency for each in (Reader, Writer, Replayer, Administrator)}
    for name, route in routes_of(create_api(sqlite_line.runtime)):
        declared = {each.call for each in route.dependant.dependencies}
        assert declared & guards, f"{name}: take a Reader, Writer, Replayer or Administrator"


async def test_a_route_that_is_not_listed_as_open_answers_nobody_without_a_key(sqlite_line: Stage) -> None:
    """Fault 17: also what nobody has built, so that what is built next is closed."""
    await key_for(sqlite_line, "acme")
    names = [name for name, _ in routes_of(create_api(sqlite_line.runtime))]
    for name in [*names, "GET /v1/next", "POST /api/v1/next", "GET /v1/assets/ast_x"]:
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
        items = (await line.client.get("/v1/audit", headers=ours.headers)).json()["items"][::-1]
        acts = [item["act"] for item in items]
        assert acts == [
            "key.created", "job.canceled", "job.retried", "delivery.replayed", "recovery.begun",
            "key.created", "key.rotated", "key.created", "key.revoked",
        ]  # fmt: skip
        assert {item["key_id"] for item in items[1:]} == {ours.ids["key_id"]}
        assert {item["request_id"] for item in items[1:]} == {"request-of-acme"}
        assert [item["subject"] for item in items[1:3]] == [job_id, job_id]
        assert (items[0]["key_id"], items[0]["subject"]) == (None, ours.ids["key_id"])
        page = await line.client.get("/v1/audit", params={"limit": "2"}, headers=ours.headers)
        more = {"limit": "200", "cursor": page.json()["next_cursor"]}
        rest = (await line.client.get("/v1/audit", params=more, headers=ours.headers)).json()["items"]
        assert page.json()["items"] + rest == items[::-1]
        only = {"act": "job.canceled", "subject": job_id}
        found = (await line.client.get("/v1/audit", params=only, headers=ours.headers)).json()["items"]
        assert [each["act"] for each in found] == ["job.canceled"]
        [theirs_made] = (await line.client.get("/v1/audit", headers=theirs.headers)).json()["items"]
        assert theirs_made["subject"] == theirs.ids["key_id"]


async def test_the_log_forgets_what_is_older_than_its_time(stage_on: OpenStage) -> None:
    async with stage_on(audit_s=3600) as line:
        await settle_in(line, "acme")
        assert await line.runtime.housekeeper.forget_acts() == 0
        async with stage_on(audit_s=0.001) as later:
            assert await later.runtime.housekeeper.forget_acts() == 1
            assert await later.runtime.housekeeper.forget_acts() == 0


@pytest.mark.parametrize("tenant", ["", "Acme", "a b", "x" * 64, "-a", "a/b", "ä"])
async def test_a_tenants_name_is_plain(sqlite_line: Stage, tenant: str) -> None:
    with pytest.raises(Exception, match="tenant"):
        await key_for(sqlite_line, tenant)
