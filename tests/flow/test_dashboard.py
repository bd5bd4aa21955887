"""The dashboard over HTTP: signing in, whose pages these are, what they load, and what stands in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import httpx

from app.access.callers import Caller, Scope
from app.access.sessions import COOKIE, Sessions
from app.main import create_app
from app.web.dashboard.files import address_of, shelf
from app.web.dashboard.forms import list_forms
from tests.flow.conftest import PUBLIC_URL, TONE, Stage

PAGE = {"accept": "text/html"}
OWN = {"sec-fetch-site": "same-origin"}
PAGES = (
    "/", "/ledger", "/ledger?view=deliveries", "/ledger?view=refusals", "/status",
    "/songs", "/voices", "/performances",
)  # fmt: skip


async def key_of(line: Stage, tenant: str = "default", *scopes: Scope) -> str:
    by = Caller(tenant, frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name="browser", scopes=scopes or [Scope.ADMIN])
    line.runtime.keyring.close_house()
    return issued.text


async def sign_in(line: Stage, key: str, **form: str) -> httpx.Response:
    return await line.client.post("/session", data={"key": key, **form}, headers={"origin": PUBLIC_URL} | OWN)


async def test_without_a_key_made_yet_every_page_is_open_and_asks_for_nothing(sqlite_line: Stage) -> None:
    job_id, prediction = await sqlite_line.start()
    for page in (*PAGES, f"/jobs/{job_id}", f"/jobs/{job_id}/row"):
        reply = await sqlite_line.client.get(page, headers=PAGE)
        assert reply.status_code == 200, (page, reply.text)
        assert "sign out" not in reply.text.lower()
    await sqlite_line.fake.finish(prediction, output=TONE)
    await sqlite_line.drain()
    shown = (await sqlite_line.client.get(f"/jobs/{job_id}", headers=PAGE)).text
    assert 'data-state="succeeded"' in shown
    assert f"/v1/assets/{(await sqlite_line.read(job_id))['outputs']['audio']['asset_id']}/content" in shown


async def test_a_page_asks_whoever_has_not_signed_in_and_the_api_says_401(sqlite_line: Stage) -> None:
    await key_of(sqlite_line)
    for page in (*PAGES, "/jobs/job_x"):
        reply = await sqlite_line.client.get(page, headers=PAGE)
        assert (reply.status_code, 'action="/session"' in reply.text) == (401, True), page
        assert 'id="link"' not in reply.text, "nothing connects, so nothing says that it is connecting"
    for path in ("/v1/jobs", "/v1/events", "/"):
        reply = await sqlite_line.client.get(path, headers={"accept": "*/*"})
        assert reply.status_code == 401
        assert reply.headers["content-type"] == "application/problem+json"
    assert (await sqlite_line.client.get("/v1/jobs", headers=PAGE)).headers["content-type"] != "text/html"


async def test_a_key_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(sqlite_line: Stage) -> None:
    """Fault 29."""
    key = await key_of(sqlite_line)
    reply = await sign_in(sqlite_line, key, next="/ledger?view=deliveries")
    assert (reply.status_code, reply.headers["location"]) == (303, "/ledger?view=deliveries")
    said = reply.headers["set-cookie"].lower()
    assert all(word in said for word in ("httponly", "samesite=strict", "secure", "max-age=43200", "path=/"))
    assert key not in said
    assert (await sqlite_line.client.get("/", headers=PAGE)).status_code == 200
    assert (await sqlite_line.client.get("/v1/jobs", headers=OWN)).status_code == 200
    out = await sqlite_line.client.post("/session/end", headers=OWN)
    assert out.status_code == 303
    assert (await sqlite_line.client.get("/", headers=PAGE)).status_code == 401


async def test_what_is_no_key_gives_no_cookie_and_says_so_on_the_page(sqlite_line: Stage) -> None:
    await key_of(sqlite_line)
    for key in ("", "rp_aaaaaaaaaa_" + "x" * 43, "no key", "é" * 20):
        reply = await sign_in(sqlite_line, key)
        assert (reply.status_code, "set-cookie" in reply.headers) == (401, False), key
        assert "does not hold" in reply.text


NOT_OURS: tuple[dict[str, str], ...] = (
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"origin": "https://evil.test"},
    {"origin": f"{PUBLIC_URL}:8443"},
    {"origin": "null"},
    {"sec-fetch-site": "same-origin", "origin": "http://reprise.test.evil.test"},
    {},
)


async def test_the_cookie_changes_nothing_unless_a_page_of_ours_asks(sqlite_line: Stage) -> None:
    """Fault 29: another site, another port of this machine, a form, and a browser that says nothing."""
    await sign_in(sqlite_line, await key_of(sqlite_line))
    body = {"kind": "sound_effect", "input": {"prompt": "rain"}}
    for headers in NOT_OURS:
        reply = await sqlite_line.client.post("/v1/jobs", json=body, headers=headers)
        assert reply.status_code in (401, 403), (headers, reply.text)
    mine = await sqlite_line.client.post("/v1/jobs", json=body, headers=OWN | {"origin": PUBLIC_URL})
    assert mine.status_code == 202


async def test_another_sites_page_cannot_sign_a_browser_in(sqlite_line: Stage) -> None:
    key = await key_of(sqlite_line)
    for headers in ({"origin": "https://evil.test"}, {"sec-fetch-site": "cross-site"}):
        reply = await sqlite_line.client.post("/session", data={"key": key}, headers=headers)
        assert (reply.status_code, "set-cookie" in reply.headers) == (403, False)


async def test_signing_in_leads_nowhere_but_here(sqlite_line: Stage) -> None:
    key = await key_of(sqlite_line)
    elsewhere = ("https://evil.test/", "//evil.test", "/\\evil.test", "javascript:alert(1)", "", "/x\r\nA: b")
    for there in elsewhere:
        reply = await sign_in(sqlite_line, key, next=there)
        assert (reply.status_code, reply.headers["location"]) == (303, "/"), there


async def test_a_form_that_is_too_long_is_refused(sqlite_line: Stage) -> None:
    reply = await sign_in(sqlite_line, "x" * 5000)
    assert reply.status_code == 413


async def test_a_session_ends_with_its_key_and_with_its_time_and_cannot_be_altered(
    sqlite_line: Stage,
) -> None:
    """Fault 17."""
    line = sqlite_line
    by = Caller("default", frozenset(Scope))
    issued = await line.runtime.key_desk.create(by, name="browser", scopes=[Scope.ADMIN])
    line.runtime.keyring.close_house()
    cookie = await line.runtime.keyring.sign_in(issued.text)
    line.client.cookies.clear()

    async def status(value: str) -> int:
        return (await line.client.get("/v1/jobs", headers={"cookie": f"{COOKIE}={value}"})).status_code

    assert await status(cookie) == 200
    digest, ends, mark = cookie.split(".")
    altered = [
        f"{digest}.{int(ends) + 1}.{mark}",
        f"{'0' * 64}.{ends}.{mark}",
        f"{digest}.{ends}.{'0' * 64}",
        "x",
    ]
    assert [await status(each) for each in altered] == [401] * 4
    now = line.runtime.line.clock.now()
    sessions = line.runtime.keyring.sessions
    assert sessions.read(cookie, now=now) == digest
    assert sessions.read(cookie, now=datetime(2100, 1, 1, tzinfo=UTC)) is None
    assert Sessions(secret="another", life_s=60).read(cookie, now=now) is None
    await line.runtime.key_desk.revoke(by, issued.key.id)
    line.runtime.keyring.forget()
    assert await status(cookie) == 401


async def test_a_key_beside_the_cookie_is_what_counts(sqlite_line: Stage) -> None:
    await sign_in(sqlite_line, await key_of(sqlite_line, "acme"))
    other = await key_of(sqlite_line, "umbrella")
    made = await sqlite_line.client.post(
        "/v1/jobs",
        json={"kind": "sound_effect", "input": {"prompt": "theirs"}},
        headers={"authorization": f"Bearer {other}"},
    )
    assert made.status_code == 202
    assert "theirs" not in (await sqlite_line.client.get("/", headers=PAGE)).text
    assert (await sqlite_line.client.get(f"/jobs/{made.json()['id']}", headers=PAGE)).status_code == 404


async def test_a_key_that_may_only_read_is_shown_no_verbs(sqlite_line: Stage) -> None:
    job_id = await sqlite_line.ask()
    await sign_in(sqlite_line, await key_of(sqlite_line, "default", Scope.JOBS_READ))
    for page in ("/", f"/jobs/{job_id}", "/ledger"):
        text = (await sqlite_line.client.get(page, headers=PAGE)).text
        assert not re.search(r'data-act=|id="ask"|data-many=|data-replay=', text), page


HOSTILE = '"><img src=x onerror=alert(1)> <script>alert(2)</script> \u202e \x1b[31m {{ 7*7 }} \U0001f600'


async def test_what_callers_write_is_inert_on_every_page(sqlite_line: Stage) -> None:
    """Fault 23: in the prompt, the metadata, the search, and what a provider says."""
    job_id = await sqlite_line.ask(HOSTILE, metadata={"title": HOSTILE})
    await sqlite_line.drain()
    await sqlite_line.fake.finish(list(sqlite_line.fake.predictions)[-1], error=HOSTILE)
    await sqlite_line.drain()
    texts = [
        (await sqlite_line.client.get(page, params=params, headers=PAGE)).text
        for page, params in (("/", {}), ("/", {"q": HOSTILE}), (f"/jobs/{job_id}", {}), ("/ledger", {}))
    ]
    for text in texts:
        assert "<img src=x" not in text
        assert "<script>" not in text
    assert "{{ 7*7 }}" in texts[0], "and it is all there"


async def test_pages_bring_a_policy_without_inline_script_or_style(sqlite_line: Stage) -> None:
    for page in PAGES:
        policy = (await sqlite_line.client.get(page, headers=PAGE)).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-" in policy
        assert "unsafe" not in policy
        assert "http" not in policy


async def test_what_pages_load_is_kept_for_ever_by_its_hash_and_asked_for_anew_without(
    sqlite_line: Stage,
) -> None:
    text = (await sqlite_line.client.get("/", headers=PAGE)).text
    addresses = set(re.findall(r'(?:src|href)="(/static/[^"#]+)', text))
    assert len(addresses) >= 6
    for address in addresses:
        reply = await sqlite_line.client.get(address)
        assert reply.status_code == 200, address
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    plain = await sqlite_line.client.get("/static/client.js")
    assert plain.headers["cache-control"] == "public, no-cache"
    again = await sqlite_line.client.get(
        "/static/client.js", headers={"if-none-match": plain.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")
    other = await sqlite_line.client.get("/static/000000000000/client.js")
    assert other.status_code == 404
    for path in ("/static/../main.py", "/static/%2e%2e/main.py", "/static/vendor/VENDORED.toml", "/static/"):
        assert (await sqlite_line.client.get(path)).status_code == 404, path


def test_every_file_has_an_address_and_a_type() -> None:
    for name, each in shelf().files.items():
        assert address_of(name).endswith(name)
        assert each.media_type != "application/octet-stream", name


async def test_a_search_that_cannot_be_read_is_told_where_it_is_wrong(sqlite_line: Stage) -> None:
    reply = await sqlite_line.client.get("/", params={"q": "state:failled"}, headers=PAGE)
    assert reply.status_code == 200
    assert "column 7" in reply.text


async def test_pages_of_the_queue_lead_on_and_keep_to_their_filter(sqlite_line: Stage) -> None:
    for number in range(53):
        await sqlite_line.ask(f"rain {number}")
    first = (await sqlite_line.client.get("/", params={"q": "rain"}, headers=PAGE)).text
    [more] = re.findall(r'href="(/\?[^"]*cursor=[^"]+)"', first)
    second = (await sqlite_line.client.get(more.replace("&amp;", "&"), headers=PAGE)).text
    found = [re.findall(r'<li class="job" id="(job_\w+)"', text) for text in (first, second)]
    assert [len(each) for each in found] == [50, 3]
    assert not set(found[0]) & set(found[1])
    foreign = await sqlite_line.client.get(
        more.replace("&amp;", "&").replace("q=rain", "q=snow"), headers=PAGE
    )
    assert (foreign.status_code, "text/html" in foreign.headers["content-type"]) == (400, True)


async def test_a_job_that_is_not_there_is_a_page_that_says_so(sqlite_line: Stage) -> None:
    reply = await sqlite_line.client.get("/jobs/job_none", headers=PAGE)
    assert (reply.status_code, "there is no job" in reply.text) == (404, True)


def test_every_kind_has_a_form_with_what_it_needs() -> None:
    forms = {form.kind: form for form in list_forms()}
    effect = {each.name: each for each in (*forms["sound_effect"].first, *forms["sound_effect"].more)}
    assert [each.name for each in forms["sound_effect"].first] == ["prompt", "duration_s"]
    assert (effect["prompt"].control, effect["duration_s"].control) == ("area", "number")
    assert effect["duration_s"].bounds == {"min": 0.5, "max": 30, "step": "any"}
    assert (effect["loop"].control, effect["seed"].bounds["step"]) == ("switch", "1")
    assert {each.control for each in forms["transcription"].first} == {"file"}
    assert {each.control for each in forms["voice_conversion"].first} == {"file", "voice"}
    for form in forms.values():
        assert form.first, form.kind
        assert form.meaning


async def test_the_history_has_a_sample_of_the_line_and_the_figures_are_the_callers_own(
    sqlite_line: Stage,
) -> None:
    await sqlite_line.ask()
    await sqlite_line.runtime.history.take()
    job_id, prediction = await sqlite_line.start(prompt="soon over")
    await sqlite_line.fake.finish(prediction, output=TONE)
    await sqlite_line.drain()
    reply: dict[str, Any] = (await sqlite_line.client.get("/v1/figures")).json()
    assert reply["samples"][0]["depth"]["dispatch"] == 1
    assert [(each["job_id"], each["state"]) for each in reply["ended"]] == [(job_id, "succeeded")]
    stranger = {"authorization": f"Bearer {await key_of(sqlite_line, 'acme')}"}
    assert (await sqlite_line.client.get("/v1/figures", headers=stranger)).json()["ended"] == []


async def test_a_stopping_service_signs_nobody_in(sqlite_line: Stage) -> None:
    front = create_app(sqlite_line.runtime)
    front.close_intake()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=front), base_url=PUBLIC_URL) as client:
        reply = await client.post("/session", data={"key": "x"}, headers=OWN)
    assert reply.status_code == 503
