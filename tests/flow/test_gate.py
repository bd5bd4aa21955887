"""The gate before the API: hosts and origins, headers, methods, budgets. All of it over the real app."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import httpx
import pytest

from app.main import CORS_EXPOSED, create_app
from app.settings import load_settings
from db.tables import Job
from tests.flow.conftest import OpenStage, Stage

GOOD = {"kind": "sound_effect", "input": {"prompt": "rain"}}
ROUTES = (
    "/v1/jobs",
    "/v1/deliveries",
    "/v1/costs",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
)
NEVER = "unsafe-inline", "unsafe-eval", "*"


async def send(
    stage: Stage, method: str, path: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    body = {"json": GOOD} if method == "POST" else {}
    return await stage.client.request(method, path, headers=dict(headers or {}), **body)


# ── headers ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ROUTES),
        ("GET", "/nothing"),
        ("DELETE", "/v1/jobs"),
        ("POST", "/v1/jobs"),
        ("GET", "/docs/errors"),
        ("GET", "/docs/static/swagger-ui.css"),
        ("POST", "/v1/webhooks/replicate/att_1"),
        ("GET", "/v1/webhooks/nobody/att_1"),
    ],
)
async def test_every_answer_tells_a_browser_what_it_is_not_for(
    sqlite_line: Stage, method: str, path: str
) -> None:
    told = (await send(sqlite_line, method, path)).headers
    policy = told["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert [word for word in NEVER if word in policy] == []
    assert told["x-content-type-options"] == "nosniff"
    assert told["referrer-policy"] == "no-referrer"
    assert told["cross-origin-opener-policy"] == told["cross-origin-resource-policy"] == "same-origin"
    assert told["x-request-id"] if "static" not in path else True
    assert told["cache-control"]


@pytest.mark.parametrize(
    ("public_url", "is_told"),
    [("https://reprise.test", True), ("http://127.0.0.1:8000", False), (None, False)],
)
async def test_https_alone_is_asked_for_only_where_it_is_served(
    stage_on_sqlite: OpenStage, public_url: str | None, is_told: bool
) -> None:
    async with stage_on_sqlite(public_url=public_url) as stage:
        reply = await stage.client.get("/healthz")
        assert ("strict-transport-security" in reply.headers) is is_told


async def test_a_page_holds_no_script_of_its_own(sqlite_line: Stage) -> None:
    """Fault 23: what cannot be run inline cannot be smuggled in."""
    for path in ("/docs", "/docs/errors"):
        text = (await sqlite_line.client.get(path)).text
        assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
        assert re.findall(r"\son\w+=|<style|\sstyle=", text) == []
        for address in re.findall(r'(?:src|href)="?([^" >]+)', text):
            assert address.startswith("/"), address
            assert (await sqlite_line.client.get(address)).status_code == 200


async def test_an_error_that_nobody_caught_has_its_id_and_its_headers(sqlite_line: Stage) -> None:
    runtime = sqlite_line.runtime
    app = create_app(runtime)

    @app.api.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a secret")

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.get("/broken", headers={"x-request-id": "mine-and-only-mine"})
    assert (reply.status_code, reply.json()["code"]) == (500, "internal")
    assert reply.json()["request_id"] == reply.headers["x-request-id"] == "mine-and-only-mine"
    assert "content-security-policy" in reply.headers
    assert "secret" not in reply.text


async def test_what_is_refused_while_stopping_has_its_id_and_its_headers(sqlite_line: Stage) -> None:
    app = create_app(sqlite_line.runtime)
    app.close_intake()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://localhost"
    ) as client:
        reply = await client.post("/v1/jobs", json=GOOD)
    assert (reply.status_code, reply.json()["code"]) == (503, "stopping")
    assert reply.json()["request_id"] == reply.headers["x-request-id"] != ""
    assert "content-security-policy" in reply.headers


# ── hosts and origins ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "app.localhost",
     "reprise.test", "reprise.test:443", "Reprise.Test.", "other.test"],
)  # fmt: skip
async def test_a_name_of_ours_is_served(stage_on_sqlite: OpenStage, host: str) -> None:
    async with stage_on_sqlite(allowed_hosts="other.test") as stage:
        assert (await stage.client.get("/v1/jobs", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["rebound.test", "reprise.test.rebound.test", "localhost.rebound.test", "10.0.0.1", "169.254.169.254",
     "127.0.0.1.rebound.test", "127.0.0.1@rebound.test", "2130706433", "", "a b", "[::1",
     "[::ffff:10.0.0.1]"],
)  # fmt: skip
async def test_fault_29_a_name_that_is_not_ours_leads_nowhere(sqlite_line: Stage, host: str) -> None:
    """Fault 29: a page whose name its owner points at loopback is refused, whatever it asks."""
    for method in ("GET", "POST"):
        reply = await send(sqlite_line, method, "/v1/jobs", {"host": host})
        assert (reply.status_code, reply.json()["code"]) == (421, "misdirected_request"), host
    assert await sqlite_line.count(Job) == 0


async def test_probes_may_ask_by_any_name(sqlite_line: Stage) -> None:
    for path in ("/healthz", "/readyz"):
        reply = await sqlite_line.client.get(path, headers={"host": "10.0.0.7:8000"})
        assert reply.status_code in (200, 503)


async def test_every_name_is_served_where_an_operator_says_so(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(allowed_hosts="*") as stage:
        assert (await stage.client.get("/v1/jobs", headers={"host": "any.test"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://foreign.test"},
        {"origin": "null"},
        {"origin": "https://reprise.test.foreign.test"},
        {"origin": "https://reprise.test:8443"},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_fault_29_a_foreign_page_may_change_nothing(
    sqlite_line: Stage, headers: dict[str, str]
) -> None:
    """Fault 29: an open house cannot be driven from a web page."""
    for path in ("/v1/jobs", "/v1/jobs/job_1/cancel", "/v1/recoveries", "/v1/uploads"):
        reply = await send(sqlite_line, "POST", path, headers)
        assert (reply.status_code, reply.json()["code"]) == (403, "foreign_origin"), path
    assert await sqlite_line.count(Job) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://reprise.test"},
        {"origin": "http://localhost:8000", "host": "localhost:8000"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_a_page_of_our_own_and_a_program_may(sqlite_line: Stage, headers: dict[str, str]) -> None:
    assert (await send(sqlite_line, "POST", "/v1/jobs", headers)).status_code == 202


@pytest.mark.parametrize("origin", ["https://foreign.test", "null"])
async def test_fault_29_a_foreign_preflight_is_given_nothing(stage_on_sqlite: OpenStage, origin: str) -> None:
    """Fault 29."""
    asked = {"origin": origin, "access-control-request-method": "POST"}
    for allowed in ("", "https://pages.test"):
        async with stage_on_sqlite(cors_allowed_origins=allowed) as stage:
            reply = await stage.client.options("/v1/jobs", headers=asked)
            assert "access-control-allow-origin" not in reply.headers
            reading = await stage.client.get("/v1/jobs", headers={"origin": origin})
            assert "access-control-allow-origin" not in reading.headers


async def test_a_page_of_an_allowed_origin_may_do_what_it_needs(stage_on_sqlite: OpenStage) -> None:
    page = {"origin": "https://pages.test"}
    async with stage_on_sqlite(cors_allowed_origins="https://pages.test https://other.test") as stage:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            asked = {
                **page,
                "access-control-request-method": method,
                "access-control-request-headers": "authorization, idempotency-key, tus-resumable",
            }
            reply = await stage.client.options("/v1/jobs", headers=asked)
            assert reply.status_code == 200, (method, reply.text)
            assert reply.headers["access-control-allow-origin"] == "https://pages.test"
            assert "access-control-allow-credentials" not in reply.headers
        made = await send(stage, "POST", "/v1/jobs", page)
        assert made.status_code == 202
        exposed = {name.strip() for name in made.headers["access-control-expose-headers"].split(",")}
        assert exposed == set(CORS_EXPOSED)
        assert {"RateLimit", "RateLimit-Policy", "Retry-After", "Upload-Offset"} <= exposed
        assert made.headers["cross-origin-resource-policy"] == "cross-origin"


@pytest.mark.parametrize(
    "origin", ["*", "https://*.pages.test", "pages.test", "https://pages.test/path", "null"]
)
def test_a_wildcard_is_no_list_of_origins(origin: str) -> None:
    from app.errors import StartupError

    with pytest.raises(StartupError, match="CORS_ALLOWED_ORIGINS"):
        load_settings(_env_file=None, cors_allowed_origins=origin)


# ── methods, addresses, heads ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [*ROUTES, "/docs/errors"])
async def test_head_is_there_wherever_get_is(sqlite_line: Stage, path: str) -> None:
    got, headed = await sqlite_line.client.get(path), await sqlite_line.client.head(path)
    assert headed.status_code == got.status_code
    assert headed.content == b""
    assert headed.headers["content-type"] == got.headers["content-type"]


async def test_the_head_of_a_stream_of_events_ends(sqlite_line: Stage) -> None:
    job_id = await sqlite_line.ask()
    async with asyncio.timeout(30):
        reply = await sqlite_line.client.head(
            f"/v1/jobs/{job_id}/events", headers={"accept": "text/event-stream"}
        )
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("POST", "/v1/jobs/job_1", "GET, HEAD"),
        ("GET", "/v1/uploads", "OPTIONS, POST"),
        ("TRACE", "/v1/costs", "GET, HEAD"),
        ("OPTIONS", "/v1/jobs/job_1/cancel", "POST"),
        ("HEAD", "/v1/uploads", "OPTIONS, POST"),
        ("OPTIONS", "/v1/announcements/resend", "POST"),
        ("PUT", "/v1/webhooks/replicate/att_1", "POST"),
    ],
)
async def test_another_method_is_told_which_there_are(
    sqlite_line: Stage, method: str, path: str, allowed: str
) -> None:
    reply = await sqlite_line.client.request(method, path)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("name", ["x-http-method-override", "x-method-override", "x-http-method"])
async def test_no_header_makes_another_method(sqlite_line: Stage, name: str) -> None:
    reply = await sqlite_line.client.get("/v1/jobs", headers={name: "POST"})
    assert (reply.status_code, reply.json()["items"]) == (200, [])
    assert (await send(sqlite_line, "POST", "/v1/jobs?_method=DELETE", {name: "DELETE"})).status_code == 202


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/", "/v1//jobs", "/V1/jobs", "/v1/jobs/../jobs/", "/docs/", "/v1", "/v1/webhooks/replicate/"],
)  # fmt: skip
async def test_fault_15_another_address_is_a_404_and_never_a_redirect(sqlite_line: Stage, path: str) -> None:
    """Fault 15."""
    reply = await sqlite_line.client.get(path)
    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "name", ["authorization", "idempotency-key", "content-length", "content-type", "host"]
)
async def test_two_words_for_one_thing_are_refused(sqlite_line: Stage, name: str) -> None:
    """Fault 11: whoever stands between could have gone by the other one."""
    value = {"content-length": "2", "content-type": "application/json", "host": "localhost"}.get(name, "a")
    twice = [(name.encode(), value.encode()), (name.encode(), value.encode())]
    request = sqlite_line.client.build_request("POST", "/v1/jobs", content=b"{}", headers=twice)
    reply = await sqlite_line.client.send(request)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_header")
    assert await sqlite_line.count(Job) == 0


@pytest.mark.parametrize(
    "headers",
    [[(f"x-{n}", "a") for n in range(120)], [("x-long", "a" * 20_000)], [("x" * 20_000, "a")]],
    ids=["many", "long", "long-name"],
)
async def test_fault_13_a_head_with_too_much_in_it_is_refused(
    sqlite_line: Stage, headers: list[tuple[str, str]]
) -> None:
    """Fault 13."""
    reply = await sqlite_line.client.get("/v1/jobs", headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (431, "head_too_large")


# ── budgets ────────────────────────────────────────────────────────────────────────────────────────────────

LIMITS = "jobs:write=3/day,jobs:read=50/day"


async def test_fault_27_past_the_budget_nothing_is_read_and_nothing_stored(stage_on: OpenStage) -> None:
    """Fault 27: a burst of ten times the limit; what is past it is refused with when to come again."""
    async with stage_on(rate_limits=LIMITS, rate_limits_wait_s=2) as stage:
        replies = [await send(stage, "POST", "/v1/jobs") for _ in range(30)]
        assert [reply.status_code for reply in replies] == [202] * 3 + [429] * 27
        assert await stage.count(Job) == 3
        for reply in replies:
            assert reply.headers["ratelimit-policy"] == '"jobs:write";q=3;w=86400'
            assert re.fullmatch(r'"jobs:write";r=[0-3];t=\d+', reply.headers["ratelimit"])
        refused = replies[-1]
        told = refused.json()
        assert told["code"] == "rate_limited"
        assert refused.headers["retry-after"] == str(told["retry_after_s"])
        assert 1 <= told["retry_after_s"] <= 2 * 86_400
        # Reading is another budget, and news of providers has none.
        reading = await stage.client.get("/v1/jobs")
        assert (reading.status_code, reading.headers["ratelimit"][:17]) == (200, '"jobs:read";r=49;')
        news = await stage.post("att_1", b"{}", stage.fake.signed("m", b"{}"))
        assert news.status_code == 200
        assert "ratelimit" not in news.headers


async def test_a_refused_body_is_not_read(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(rate_limits="jobs:write=1/day") as stage:
        await send(stage, "POST", "/v1/jobs")
        sent = 0

        async def body() -> object:
            nonlocal sent
            while True:
                sent += 1
                yield b"x" * 10_000

        reply = await stage.client.post(
            "/v1/uploads", content=body(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert reply.status_code == 429
        assert sent <= 1


async def test_without_limits_nothing_is_counted_and_nothing_told(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite(rate_limits="none") as stage:
        reply = await stage.client.get("/v1/jobs")
        assert reply.status_code == 200
        assert "ratelimit" not in reply.headers
