"""Replicate's own traps, over the stateful fake: lost replies, throttling, odd answers, the token's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from app.errors import (
    PredictionUnknown,
    ProviderBadResponse,
    ProviderRejected,
    ProviderUnavailable,
)
from app.provider.base import Order
from app.provider.replicate import MAX_PAGES, Replicate
from tests.fakes.provider import (
    SECRET,
    TOKEN,
    VERSION,
    Drop,
    FakeReplicate,
    bad_gateway,
    invalid,
    no_credit,
    problem,
    served,
    throttled,
)


class Recorder(httpx.AsyncBaseTransport):
    """The wire to the fake; keeps what was asked, with the limits it was asked under."""

    def __init__(self, fake: FakeReplicate) -> None:
        self._inner = httpx.ASGITransport(app=fake)
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return await self._inner.handle_async_request(request)


@pytest.fixture
def fake() -> FakeReplicate:
    return FakeReplicate()


@pytest.fixture
async def wire(fake: FakeReplicate) -> Recorder:
    return Recorder(fake)


@pytest.fixture
async def replicate(fake: FakeReplicate, wire: Recorder) -> AsyncIterator[Replicate]:
    provider = Replicate(token=TOKEN, base_url=fake.base_url, secrets=[SECRET], transport=wire)
    yield provider
    await provider.aclose()


def order(
    attempt_id: str = "att_1", *, model: str = "meta/musicgen", deadline_s: float | None = None
) -> Order:
    url = f"http://reprise.test/v1/webhooks/replicate/{attempt_id}?token=t0k"
    return Order(attempt_id, "music", model, {"prompt": "rain"}, url, deadline_s)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.parametrize(
    ("model", "path", "version"),
    [
        ("meta/musicgen", "/v1/models/meta/musicgen/predictions", None),
        (f"meta/musicgen:{VERSION}", "/v1/predictions", VERSION),
        (VERSION, "/v1/predictions", VERSION),
    ],
)
async def test_a_model_is_asked_by_name_or_by_version(
    replicate: Replicate, fake: FakeReplicate, model: str, path: str, version: str | None
) -> None:
    made = await replicate.create(order(model=model))
    assert made.status == "starting"
    assert made.callback_url == order().callback_url
    asked = json.loads(fake.seen[-1].body)
    assert (fake.seen[-1].path, asked.get("version")) == (path, version)
    assert asked["webhook_events_filter"] == ["start", "logs", "completed"]


@pytest.mark.parametrize(
    "model", ["", "musicgen", "a/b/c", "../x", "a/..", "a b/c", "a/b:c/d", "a/b?x=1", ":x"]
)
async def test_a_name_that_is_no_model_is_rejected_and_never_sent(
    replicate: Replicate, fake: FakeReplicate, model: str
) -> None:
    with pytest.raises(ProviderRejected):
        await replicate.create(order(model=model))
    assert fake.seen == []


@pytest.mark.parametrize(
    ("deadline_s", "header"), [(None, None), (0.1, "5s"), (60, "60s"), (60.2, "61s"), (1e9, "86400s")]
)
async def test_the_deadline_goes_along_within_replicates_limits(
    replicate: Replicate, wire: Recorder, deadline_s: float | None, header: str | None
) -> None:
    await replicate.create(order(deadline_s=deadline_s))
    await replicate.get("pred" + "1".zfill(22))
    assert [request.headers.get("cancel-after") for request in wire.requests] == [header, None]


async def test_every_call_has_its_limits(replicate: Replicate, wire: Recorder) -> None:
    made = await replicate.create(order())
    await replicate.get(str(made.id))
    await replicate.find("att_1", since=now())
    await replicate.cancel(str(made.id))
    assert (await replicate.health()).state == "ready"
    assert len(wire.requests) == 5
    for request in wire.requests:
        assert all(limit_s > 0 for limit_s in request.extensions["timeout"].values())


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    "error", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError]
)
async def test_a_lost_reply_is_ambiguous_and_the_post_is_not_repeated(
    replicate: Replicate, fake: FakeReplicate, after: bool, error: Callable[[str], httpx.TransportError]
) -> None:
    fake.script("create", Drop(after=after, error=error))
    with pytest.raises(ProviderUnavailable) as caught:
        await replicate.create(order())
    assert caught.value.ambiguous
    assert len(fake.seen) == 1
    found = await replicate.find("att_1", since=now())
    assert (found is not None) is after


async def test_a_lost_reply_over_a_real_connection_is_found_again() -> None:
    fake = FakeReplicate()
    fake.script("create", Drop(after=True))
    async with served(fake) as url:
        provider = Replicate(token=TOKEN, base_url=url + "/v1/", secrets=[SECRET])
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.create(order())
        assert caught.value.ambiguous
        found = await provider.find("att_1", since=now())
        assert found is not None
        assert found.id == fake.live()[0]
        assert provider.download_rules().plain_http == (url.removeprefix("http://"),)
        await provider.aclose()


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout])
async def test_a_request_that_never_left_is_not_ambiguous(
    replicate: Replicate, fake: FakeReplicate, error: Callable[[str], httpx.TransportError]
) -> None:
    fake.script("create", Drop(after=False, error=error))
    with pytest.raises(ProviderUnavailable) as caught:
        await replicate.create(order())
    assert not caught.value.ambiguous


@pytest.mark.parametrize(
    ("told_by", "low_s", "high_s"),
    [("header", 30, 30), ("date", 28, 30), ("body", 30, 30), ("text", 30, 30), ("nothing", None, None)],
)
async def test_a_throttled_create_says_how_long_to_wait(
    replicate: Replicate, fake: FakeReplicate, told_by: str, low_s: float | None, high_s: float | None
) -> None:
    fake.script("create", throttled(30, told_by=told_by))
    with pytest.raises(ProviderUnavailable) as caught:
        await replicate.create(order())
    wait_s = caught.value.retry_after_s
    assert not caught.value.ambiguous
    assert (wait_s is None) if low_s is None or high_s is None else (wait_s and low_s <= wait_s <= high_s)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (no_credit(), 402),
        (problem(401, "Unauthenticated", "You did not pass a valid authentication token"), 401),
        (problem(403, "Forbidden", "no"), 403),
        (problem(404, "Not found", "no such model"), 404),
        (invalid("prompt", "prompt is required"), 422),
        (JSONResponse(["a", "list"], 400), 400),
        (Response("text", 415), 415),
    ],
)
async def test_a_refusal_is_final_and_carries_its_status_and_fields(
    replicate: Replicate, fake: FakeReplicate, reply: Response, status: int
) -> None:
    fake.script("create", reply)
    with pytest.raises(ProviderRejected) as caught:
        await replicate.create(order())
    assert caught.value.status == status
    fields = ({"field": "prompt", "description": "prompt is required"},) if status == 422 else ()
    assert caught.value.invalid_fields == fields


@pytest.mark.parametrize("reply", [bad_gateway(), problem(500, "x", "y"), throttled(0), Response("", 504)])
async def test_a_server_error_on_create_is_never_repeated(
    replicate: Replicate, fake: FakeReplicate, reply: Response
) -> None:
    fake.script("create", reply)
    with pytest.raises(ProviderUnavailable) as caught:
        await replicate.create(order())
    assert caught.value.ambiguous is (reply.status_code >= 500)
    assert len(fake.seen) == 1


@pytest.mark.parametrize(
    "reply",
    [
        HTMLResponse("<html>", 201),
        Response(b"", 201),
        JSONResponse([], 201),
        JSONResponse({}, 201),
        JSONResponse({"status": "starting"}, 201),
        Response(b'{"id":"a","id":"b","status":"starting"}', 201),
        Response(b"[" * 100_000, 200),
    ],
)
async def test_a_garbled_success_is_a_bad_response_with_the_raw(
    replicate: Replicate, fake: FakeReplicate, reply: Response
) -> None:
    fake.script("create", reply)
    with pytest.raises(ProviderBadResponse) as caught:
        await replicate.create(order())
    assert caught.value.raw == reply.body[:65_536]


@pytest.mark.parametrize(
    ("odd", "status"),
    [
        ({"status": "aborted"}, "aborted"),
        ({"status": "reticulating"}, "reticulating"),
        ({"version": ...}, "starting"),
        ({"version": None, "model": None}, "starting"),
        ({"logs": ["a"], "metrics": [], "urls": 3, "error": {"a": 1}}, "starting"),
        ({"input": None, "unheard": {"of": 1}}, "starting"),
    ],
)
async def test_what_the_client_chokes_on_is_read_anyway(
    replicate: Replicate, fake: FakeReplicate, odd: dict[str, Any], status: str
) -> None:
    fake.odd = odd
    made = await replicate.create(order())
    assert (made.id, made.status) == (fake.live()[0] if fake.live() else made.id, status)
    assert (await replicate.get(str(made.id))).status == status
    found = await replicate.find("att_1", since=now())
    assert found is not None
    assert found.status == status


async def test_a_read_survives_single_failures_without_the_clients_ten_tries(
    replicate: Replicate, fake: FakeReplicate
) -> None:
    made = await replicate.create(order())
    fake.script("get", problem(503, "x", "y"), throttled(0))
    assert (await replicate.get(str(made.id))).id == made.id
    fake.seen.clear()
    fake.script("get", *(throttled(600) for _ in range(2)))
    with pytest.raises(ProviderUnavailable) as caught:
        await replicate.get(str(made.id))
    assert caught.value.retry_after_s == 600
    assert len(fake.seen) == 1  # a wait that long is not slept here


async def test_everything_but_create_works_on_a_flaky_server(
    replicate: Replicate, fake: FakeReplicate
) -> None:
    made = await replicate.create(order())
    fake.flaky = True
    assert (await replicate.get(str(made.id))).id == made.id
    assert await replicate.find("att_1", since=now())


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rotated_token_does_not_end_running_predictions(
    replicate: Replicate, fake: FakeReplicate, status: int
) -> None:
    fake.script("get", problem(status, "no", f"bad token {TOKEN}"))
    with pytest.raises(ProviderUnavailable) as caught:
        await replicate.get("p")
    assert TOKEN not in caught.value.message
    fake.token = "r8_rotated"
    assert (await replicate.health()).state == "down"


async def test_find_walks_pages_and_stops_at_what_is_older(replicate: Replicate, fake: FakeReplicate) -> None:
    fake.page_size = 2
    for number in range(7):
        await replicate.create(order(f"att_{number}"))
    found = await replicate.find("att_0", since=now())
    assert found is not None
    assert found.callback_url == order("att_0").callback_url
    fake.seen.clear()
    assert await replicate.find("att_x", since=now() + timedelta(hours=1)) is None
    assert len(fake.seen) == 1
    fake.seen.clear()
    assert await replicate.find("att_x", since=now()) is None
    assert len(fake.seen) == 4


async def test_find_does_not_claim_absence_when_the_pages_run_out(
    replicate: Replicate, fake: FakeReplicate
) -> None:
    fake.page_size = 1
    for number in range(MAX_PAGES + 1):
        await replicate.create(order(f"att_{number}"))
    fake.seen.clear()
    with pytest.raises(ProviderUnavailable):
        await replicate.find("att_x", since=now())
    assert len(fake.seen) == MAX_PAGES


async def test_the_token_never_goes_to_another_host(
    replicate: Replicate, fake: FakeReplicate, wire: Recorder
) -> None:
    fake.page_size = 1
    fake.next_host = "evil.example"
    for number in range(2):
        await replicate.create(order(f"att_{number}"))
    with pytest.raises(ProviderBadResponse):
        await replicate.find("att_0", since=now())
    fake.script("get", Response(status_code=302, headers={"location": "http://evil.example/"}))
    with pytest.raises(ProviderUnavailable):
        await replicate.get("p")
    assert {request.url.host for request in wire.requests} == {"replicate.test"}


async def test_the_wire_itself_refuses_another_host(replicate: Replicate, wire: Recorder) -> None:
    for url in ("http://evil.example/", "https://replicate.test/", "http://replicate.test:81/"):
        with pytest.raises(ProviderUnavailable) as caught:
            await replicate._exchange(partial(replicate._client.predictions.async_list, url), limit_s=5)
        assert not caught.value.ambiguous
    assert wire.requests == []


async def test_two_calls_at_once_keep_their_answers_apart(replicate: Replicate, fake: FakeReplicate) -> None:
    made = await asyncio.gather(*(replicate.create(order(f"att_{number}")) for number in range(20)))
    assert [row.callback_url for row in made] == [order(f"att_{number}").callback_url for number in range(20)]
    assert len({row.id for row in made}) == 20


async def test_a_prediction_unknown_or_expired_is_told_apart(
    replicate: Replicate, fake: FakeReplicate
) -> None:
    with pytest.raises(PredictionUnknown):
        await replicate.get("nobody")
    made = await replicate.create(order())
    await fake.finish(str(made.id), output="u")
    fake.remove_data(str(made.id))
    read = await replicate.get(str(made.id))
    assert (read.status, read.output, read.data_removed) == ("succeeded", None, True)
