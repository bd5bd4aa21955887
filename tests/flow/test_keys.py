"""Keys: who has none, or one that does not hold, comes no further than 401; a scope says what one may do."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.access import keyring as keyring_module
from app.access.callers import Caller, Scope
from app.access.keys import digest_of, make_key
from app.errors import StartupError
from app.serve import running_service
from app.wiring import open_runtime
from db.session import Database
from db.tables import AccessKey, Audit, Job
from tests.conftest import make_settings
from tests.flow.conftest import OpenStage, Stage

RAIN = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
SHORT = {"access_cache_s": 0.001}
"""A look is believed for no longer than it takes."""


@pytest.fixture
async def strict(stage_on: OpenStage) -> AsyncIterator[Stage]:
    """A stage that looks at the rows again for every request."""
    async with stage_on(**SHORT) as line:
        yield line


async def issue(
    line: Stage, *scopes: Scope, tenant: str = "default", expires_at: datetime | None = None
) -> tuple[str, dict[str, str]]:
    """A key made as the commands make one: its id, and the header that carries it."""
    by = Caller(tenant, frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name="test", scopes=scopes, expires_at=expires_at)
    line.runtime.keyring.close_house()
    return issued.key.id, {"authorization": f"Bearer {issued.text}"}


async def ask(line: Stage, **headers: str) -> httpx.Response:
    return await line.client.get("/v1/jobs", headers=headers)


async def test_the_first_key_closes_the_house(strict: Stage) -> None:
    """Fault 17: and until then whoever reaches it needs none."""
    assert (await ask(strict)).status_code == 200
    new = {"name": "first", "scopes": ["admin"]}
    reply = await strict.client.post("/v1/keys", json=new)
    assert reply.status_code == 201
    assert reply.headers["cache-control"] == "no-store"
    assert (await ask(strict)).status_code == 401
    assert (await ask(strict, authorization=f"Bearer {reply.json()['key']}")).status_code == 200


async def test_a_key_that_another_process_made_closes_the_house(
    stage_on: OpenStage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17: the commands write the row; the service sees it at its next look."""
    monkeypatch.setattr(keyring_module, "HOUSE_LOOK_S", 0.0)
    async with stage_on() as line:
        assert (await ask(line)).status_code == 200
        by = Caller("default", frozenset(Scope))
        issued = await line.runtime.key_desk.create(by, name="cli", scopes=[Scope.JOBS_READ])
        assert (await ask(line)).status_code == 401
        assert (await ask(line, authorization=f"Bearer {issued.text}")).status_code == 200


async def test_every_key_that_does_not_hold_is_refused_in_the_same_words(strict: Stage) -> None:
    """Fault 17: none, unknown, malformed, revoked, expired, of another scheme, sent twice."""
    now = datetime.now(UTC)
    key_id, good = await issue(strict, Scope.ADMIN)
    revoked_id, revoked = await issue(strict, Scope.ADMIN)
    await strict.client.post(f"/v1/keys/{revoked_id}/revoke", headers=good)
    expired_id, expired = await issue(strict, Scope.ADMIN, expires_at=now + timedelta(hours=1))
    await strict.change(AccessKey, expired_id, expires_at=now - timedelta(seconds=1))
    text = good["authorization"].removeprefix("Bearer ")
    headers: list[list[tuple[str, str]]] = [
        [],
        [("authorization", f"Bearer {make_key().text}")],
        [("authorization", "Bearer x")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {text}x")],
        [("authorization", f"Bearer {text[:-1]}")],
        [("authorization", f"Bearer {text.upper()}")],
        [("authorization", f"Basic {text}")],
        [("authorization", text)],
        [("authorization", "Bearer " + "x" * 5000)],
        [("x-api-key", text)],
        list(revoked.items()),
        list(expired.items()),
    ]
    told = set()
    for each in headers:
        reply = await strict.client.post("/v1/jobs", json=RAIN, headers=each)
        assert reply.status_code == 401, each
        assert reply.headers["www-authenticate"] == "Bearer"
        told.add((reply.json()["code"], reply.json()["detail"]))
    assert len(told) == 1
    assert await strict.count(Job) == 0
    assert (await ask(strict, **good)).status_code == 200
    assert key_id != revoked_id


async def test_a_key_in_the_address_is_refused_although_it_holds(strict: Stage) -> None:
    """Fault 17."""
    _, good = await issue(strict, Scope.ADMIN)
    text = good["authorization"].removeprefix("Bearer ")
    for query in (f"api_key={text}", f"access_token={text}", f"q={text}"):
        for headers in ({}, good):
            reply = await strict.client.get(f"/v1/jobs?{query}", headers=headers)
            assert (reply.status_code, reply.json()["code"]) == (400, "key_in_address")
            assert text not in reply.text


NEEDS: list[tuple[str, str, Scope]] = [
    ("GET", "/v1/jobs", Scope.JOBS_READ),
    ("GET", "/v1/jobs/job_x", Scope.JOBS_READ),
    ("GET", "/v1/jobs/job_x/events", Scope.JOBS_READ),
    ("GET", "/v1/costs", Scope.JOBS_READ),
    ("GET", "/v1/deliveries", Scope.JOBS_READ),
    ("GET", "/v1/deliveries/dlv_x", Scope.JOBS_READ),
    ("POST", "/v1/jobs/job_x/cancel", Scope.JOBS_WRITE),
    ("POST", "/v1/jobs/job_x/retry", Scope.JOBS_WRITE),
    ("POST", "/v1/uploads", Scope.JOBS_WRITE),
    ("POST", "/v1/deliveries/dlv_x/replay", Scope.DELIVERIES_REPLAY),
    ("GET", "/v1/keys", Scope.ADMIN),
    ("POST", "/v1/keys/key_x/revoke", Scope.ADMIN),
    ("GET", "/v1/audit", Scope.ADMIN),
]


async def test_a_missing_scope_is_403_and_the_right_one_or_admin_goes_on(strict: Stage) -> None:
    """Fault 17."""
    by_scope = {scope: (await issue(strict, scope))[1] for scope in Scope}
    for method, path, needed in NEEDS:
        for scope, headers in by_scope.items():
            reply = await strict.client.request(method, path, headers=headers)
            allowed = scope in (needed, Scope.ADMIN)
            assert (reply.status_code == 403) is not allowed, (method, path, scope, reply.text)
            if not allowed:
                assert reply.json()["code"] == "forbidden"
                assert needed.value in reply.json()["detail"]


async def test_what_needs_no_key_answers_without_one(strict: Stage) -> None:
    await issue(strict, Scope.ADMIN)
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/errors", "/metrics"):
        assert (await strict.client.get(path)).status_code in (200, 503), path
    hook = await strict.client.post("/v1/webhooks/replicate/att_x?token=nothing", content=b"{}")
    assert hook.status_code == 401
    assert "www-authenticate" not in hook.headers, "a provider's door asks for no key of ours"


async def test_figures_are_shown_to_this_machine_and_to_administrators_alone(strict: Stage) -> None:
    _, reader = await issue(strict, Scope.JOBS_READ)
    _, admin = await issue(strict, Scope.ADMIN)
    there = {"x-forwarded-for": "203.0.113.7"}
    assert (await strict.client.get("/metrics")).status_code == 200
    assert (await strict.client.get("/metrics", headers=there)).status_code == 401
    assert (await strict.client.get("/metrics", headers=there | reader)).status_code == 403
    assert (await strict.client.get("/metrics", headers=there | admin)).status_code == 200


async def test_a_signed_link_needs_no_key_and_an_unsigned_one_does(strict: Stage) -> None:
    await issue(strict, Scope.ADMIN)
    assert (await strict.client.get("/v1/assets/ast_x/content")).status_code == 401
    altered = await strict.client.get("/v1/assets/ast_x/content?expires=1&signature=x")
    assert (altered.status_code, altered.json()["code"]) == (403, "forbidden")
    assert (await strict.client.get("/v1/assets/ast_x?signature=x")).status_code == 401


async def test_a_revoked_key_holds_no_longer_than_a_look_is_believed(stage_on: OpenStage) -> None:
    """Fault 17: revoked by another process, which tells this one nothing."""
    async with stage_on(access_cache_s=60) as line:
        key_id, headers = await issue(line, Scope.JOBS_READ)
        assert (await ask(line, **headers)).status_code == 200
        await line.runtime.key_desk.revoke(Caller("default", frozenset()), key_id)
        assert (await ask(line, **headers)).status_code == 200, "it was looked up a moment ago"
        line.runtime.keyring._life_s = 0.0
        assert (await ask(line, **headers)).status_code == 401


async def test_a_warm_key_reads_no_row(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(access_cache_s=60) as line:
        _, headers = await issue(line, Scope.JOBS_READ)
        keyring = line.runtime.keyring
        await keyring.prove(headers["authorization"])
        reads = 0
        database = line.runtime.line.database
        reading = database.reading

        def counted() -> Any:
            nonlocal reads
            reads += 1
            return reading()

        keyring._database = type("Counted", (), {"reading": staticmethod(counted)})()  # type: ignore[assignment]
        for _ in range(100):
            await keyring.prove(headers["authorization"])
        assert reads == 0
        strangers = [f"Bearer {make_key().text}" for _ in range(3)]
        for stranger in strangers * 5:
            with pytest.raises(keyring_module.KeyNeeded):
                await keyring.prove(stranger)
        assert reads == 3, "what is no key is remembered too"


async def test_callers_that_come_at_once_share_one_look(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(access_cache_s=60) as line:
        _, headers = await issue(line, Scope.JOBS_READ)
        replies = await asyncio.gather(*(ask(line, **headers) for _ in range(50)))
        assert {reply.status_code for reply in replies} == {200}
        assert len(line.runtime.keyring._known) == 1


async def test_what_is_remembered_of_strangers_is_bounded_and_displaces_no_key(
    stage_on_sqlite: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "MOST_REMEMBERED", 20)
    async with stage_on_sqlite(access_cache_s=60) as line:
        _, headers = await issue(line, Scope.JOBS_READ)
        await ask(line, **headers)
        for _ in range(50):
            await ask(line, authorization=f"Bearer {make_key().text}")
        assert len(line.runtime.keyring._unknown) == 20
        assert len(line.runtime.keyring._known) == 1


async def test_a_key_is_compared_in_constant_time_whether_it_is_known_or_not(
    strict: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 17: each refusal and each proof is one comparison of two digests of one length."""
    compared: list[tuple[int, int]] = []

    def compare(ours: str, given: str) -> bool:
        compared.append((len(ours), len(given)))
        return hmac.compare_digest(ours, given)

    monkeypatch.setattr(keyring_module, "hmac", type("Watched", (), {"compare_digest": compare}))
    key_id, good = await issue(strict, Scope.ADMIN)
    unknown = {"authorization": f"Bearer {make_key().text}"}
    for headers in (good, unknown, {}):
        await ask(strict, **headers)
    await strict.client.post(f"/v1/keys/{key_id}/revoke", headers=good)
    await ask(strict, **good)
    assert compared == [(64, 64)] * 5


async def test_a_key_is_kept_as_a_digest_alone_and_shown_once(strict: Stage) -> None:
    _, admin = await issue(strict, Scope.ADMIN)
    made = (
        await strict.client.post("/v1/keys", headers=admin, json={"name": "ci", "scopes": ["jobs:read"]})
    ).json()
    text = made["key"]
    listed = await strict.client.get("/v1/keys", headers=admin)
    assert text not in listed.text
    assert "digest" not in listed.text
    assert text.startswith(made["prefix"])
    rows = await strict.rows(AccessKey)
    assert all(text not in str(row.model_dump()) for row in rows)
    assert digest_of(text) in {row.digest for row in rows}


async def test_a_rotated_key_goes_on_for_the_overlap_beside_the_new_one(strict: Stage) -> None:
    _, admin = await issue(strict, Scope.ADMIN)
    key_id, old = await issue(strict, Scope.JOBS_READ)
    reply = await strict.client.post(f"/v1/keys/{key_id}/rotate", headers=admin, json={"overlap_s": 3600})
    assert reply.status_code == 201
    new = {"authorization": f"Bearer {reply.json()['key']}"}
    assert reply.json()["scopes"] == ["jobs:read"]
    assert [(await ask(strict, **each)).status_code for each in (old, new)] == [200, 200]
    await strict.change(AccessKey, key_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert [(await ask(strict, **each)).status_code for each in (old, new)] == [401, 200]
    again = await strict.client.post(f"/v1/keys/{key_id}/rotate", headers=admin, json={})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_a_rotation_without_overlap_ends_the_old_key_at_once(strict: Stage) -> None:
    _, admin = await issue(strict, Scope.ADMIN)
    key_id, old = await issue(strict, Scope.JOBS_READ, expires_at=datetime.now(UTC) + timedelta(days=30))
    reply = await strict.client.post(f"/v1/keys/{key_id}/rotate", headers=admin, json={"overlap_s": 0})
    assert (await ask(strict, **old)).status_code == 401
    ends = datetime.fromisoformat(reply.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < ends <= timedelta(days=30), "as long as the old one was given"


async def test_the_last_use_of_a_key_is_noted_once_a_minute(strict: Stage) -> None:
    key_id, headers = await issue(strict, Scope.JOBS_READ)
    await asyncio.gather(*(ask(strict, **headers) for _ in range(20)))
    await strict.runtime.keyring.aclose()
    [row] = await strict.rows(AccessKey)
    assert row.last_used_at is not None
    assert len(strict.runtime.keyring._noted) == 1
    before = row.last_used_at
    await ask(strict, **headers)
    await strict.runtime.keyring.aclose()
    assert (await strict.rows(AccessKey))[0].last_used_at == before
    assert key_id == row.id


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "scopes": ["admin"]}, "name"),
        ({"name": "a\nb", "scopes": ["admin"]}, "name"),
        ({"name": "x" * 101, "scopes": ["admin"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "x", "scopes": ["admin"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "scopes": ["admin"], "tenant": "other"}, "tenant"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(
    sqlite_line: Stage, body: dict[str, Any], field: str
) -> None:
    reply = await sqlite_line.client.post("/v1/keys", json=body)
    assert (reply.status_code, reply.json()["field"]) == (422, field)
    assert await sqlite_line.count(AccessKey) == await sqlite_line.count(Audit) == 0


async def test_a_service_beyond_this_machine_does_not_start_without_a_key(
    tmp_path: Any, sqlite_url: str
) -> None:
    """Fault 17: and with one it does, and asks for it."""
    settings = make_settings(tmp_path, database_url=sqlite_url, cog_urls="http://127.0.0.1:9")
    with pytest.raises(StartupError, match="reprise keys create"):
        async with running_service(settings, host="0.0.0.0", worker=False, gpu_worker=False):
            pass
    async with open_runtime(settings) as runtime:
        by = Caller("default", frozenset(Scope))
        issued = await runtime.key_desk.create(by, name="first", scopes=[Scope.JOBS_READ])
    async with (
        running_service(settings, host="0.0.0.0", worker=False, gpu_worker=False) as service,
        httpx.AsyncClient(base_url=service.url, timeout=30, trust_env=False) as client,
    ):
        assert (await client.get("/v1/jobs")).status_code == 401
        headers = {"authorization": f"Bearer {issued.text}"}
        assert (await client.get("/v1/jobs", headers=headers)).status_code == 200


async def test_a_house_that_was_closed_stays_so_although_its_rows_are_gone(strict: Stage) -> None:
    """Fault 17: a restored or emptied database opens no running service."""
    strict.runtime.keyring.close_house()
    database: Database = strict.runtime.line.database
    assert await strict.count(AccessKey) == 0
    assert (await ask(strict)).status_code == 401
    assert (await database.health()).ok
