"""Promises of `app.provider.cog` that a real server shows rarely: every reply, old and several servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.errors import (
    AppError,
    ProviderBadResponse,
    ProviderBusy,
    ProviderRejected,
    ProviderThrottled,
    ProviderUnavailable,
    StartupError,
    Unauthenticated,
)
from app.provider.base import Order
from app.provider.cog import Cog

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT_CAPACITY = {"error": "At capacity - all prediction slots busy", "status": "failed"}
OLD_BUSY = {"detail": "Already running a prediction"}
OLD_HOOK = {
    "id": "att_1",
    "input": {"prompt": "x"},
    "output": "data:audio/wav;base64,AAAA",
    "logs": "",
    "error": None,
    "status": "succeeded",
    "created_at": "2024-01-01T00:00:00.000000+00:00",
    "started_at": "2024-01-01T00:00:01.000000+00:00",
    "completed_at": "2024-01-01T00:00:02.000000+00:00",
    "metrics": {"predict_time": 1.0},
}
ORDER = Order("att_1", "music", "music", {"prompt": "rain"}, "http://reprise.test/cog/att_1?token=t")


class Servers:
    """Answers by `METHOD host/path`; keeps the requests. An exception as an answer is raised."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers[f"{request.method} {request.url.netloc.decode()}{request.url.path}"]
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return httpx.Response(status, content=body)


def cog(answers: Mapping[str, Any], **more: Any) -> tuple[Cog, Servers]:
    servers = Servers(answers)
    given = {"urls": {"*": "http://cog:5000/"}} | more
    return Cog(**given, transport=httpx.MockTransport(servers)), servers


def replies(status: int, content: Any, health: Any = "READY") -> dict[str, Any]:
    page = (200, {"status": health}) if isinstance(health, str) else health
    return {"PUT cog:5000/predictions/att_1": (status, content), "GET cog:5000/health-check": page}


async def test_a_create_is_a_put_under_our_id_that_does_not_wait() -> None:
    provider, servers = cog(replies(202, {"id": "att_1", "status": "starting"}))
    made = await provider.create(ORDER)
    assert (made.id, made.status) == ("att_1", "starting")
    request = servers.requests[0]
    assert request.headers["prefer"] == "respond-async"
    assert json.loads(request.content) == {
        "input": {"prompt": "rain"},
        "webhook": ORDER.callback_url,
        "webhook_events_filter": ["start", "logs", "completed"],
    }
    assert all(limit_s > 0 for limit_s in request.extensions["timeout"].values())
    await provider.aclose()


@pytest.mark.parametrize(
    ("status", "content", "word"),
    [
        (200, {"output": "x", "status": "succeeded", "metrics": {}}, "succeeded"),
        (200, {"error": "boom", "logs": "", "status": "failed"}, "failed"),
        (202, {"id": "att_1", "input": {}, "status": "processing"}, "processing"),
        (201, OLD_HOOK, "succeeded"),
    ],
)
async def test_a_reply_may_already_be_the_end(status: int, content: Any, word: str) -> None:
    made = await cog(replies(status, content))[0].create(ORDER)
    assert (made.id, made.status) == ("att_1", word)


@pytest.mark.parametrize(
    ("status", "content", "health", "error"),
    [
        (409, AT_CAPACITY, "BUSY", ProviderBusy),
        (409, AT_CAPACITY, "READY", ProviderBusy),
        (409, OLD_BUSY, "BUSY", ProviderBusy),
        (409, AT_CAPACITY, "UNHEALTHY", ProviderUnavailable),
        (409, AT_CAPACITY, "DEFUNCT", ProviderUnavailable),
        (409, AT_CAPACITY, httpx.ConnectError("gone"), ProviderUnavailable),
        (409, AT_CAPACITY, (200, b"<html>"), ProviderBadResponse),
        (409, AT_CAPACITY, (200, {}), ProviderBadResponse),
        (409, AT_CAPACITY, (500, {}), ProviderUnavailable),
        (503, AT_CAPACITY, "STARTING", ProviderUnavailable),
        (503, AT_CAPACITY, "SETUP_FAILED", ProviderRejected),
        (500, b"oops", "READY", ProviderUnavailable),
        (429, b"", "READY", ProviderThrottled),
        (400, b"bad json", "READY", ProviderRejected),
        (404, {"detail": "Not Found"}, "READY", ProviderRejected),
        (415, b"no", "READY", ProviderRejected),
        (422, b"text", "READY", ProviderRejected),
        (307, b"", "READY", ProviderRejected),
        (200, b"<html>", "READY", ProviderBadResponse),
        (202, {"id": "att_1"}, "READY", ProviderBadResponse),
    ],
)
async def test_every_reply_has_its_error(
    status: int, content: Any, health: Any, error: type[AppError]
) -> None:
    provider, servers = cog(replies(status, content, health))
    with pytest.raises(error) as caught:
        await provider.create(ORDER)
    assert type(caught.value) is error
    assert not getattr(caught.value, "ambiguous", False)
    assert [request.method for request in servers.requests].count("PUT") == 1


async def test_a_server_in_setup_is_asked_again_in_a_second() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        await cog(replies(503, AT_CAPACITY, "STARTING"))[0].create(ORDER)
    assert caught.value.retry_after_s == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ReadTimeout, httpx.WriteError, httpx.RemoteProtocolError]
)
async def test_no_failure_of_the_network_is_ambiguous(error: Callable[[str], Exception]) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        await cog({"PUT cog:5000/predictions/att_1": error("x")})[0].create(ORDER)
    assert not caught.value.ambiguous


@pytest.mark.parametrize("attempt_id", ["", "a/b", "../shutdown", "a?b", "a" * 129])
async def test_an_id_that_cannot_stand_in_a_url_is_never_sent(attempt_id: str) -> None:
    provider, servers = cog({})
    with pytest.raises(ProviderRejected):
        await provider.create(Order(attempt_id, "music", "m", {}, "http://x"))
    await provider.cancel(attempt_id)
    assert servers.requests == []


async def test_the_embedded_worker_is_pointed_to_late_and_is_told_the_kind() -> None:
    answers = {"PUT 127.0.0.1:7001/predictions/att_1": (202, {"id": "att_1", "status": "starting"})}
    provider, servers = cog(answers, urls={})
    assert (await provider.health()).state == "starting"
    with pytest.raises(ProviderUnavailable):
        await provider.create(ORDER)
    provider.point("*", "http://127.0.0.1:7001", takes_kind=True)
    await provider.create(ORDER)
    assert json.loads(servers.requests[-1].content)["input"] == {"kind": "music", "prompt": "rain"}
    assert provider.download_rules().plain_http == ("127.0.0.1:7001",)


async def test_a_kind_of_its_own_server_goes_there() -> None:
    answers = {"PUT gpu:5000/predictions/att_1": (202, {"id": "att_1", "status": "starting"})}
    provider, _ = cog(answers, urls={"*": "http://cog:5000", "music": "https://gpu:5000"})
    await provider.create(ORDER)
    rules = provider.download_rules()
    assert (rules.hosts, rules.plain_http) == (("cog:5000", "gpu"), ("cog:5000",))


CANCEL = "/predictions/att_1/cancel"


@pytest.mark.parametrize(
    ("first", "second", "fails"),
    [
        ((200, {}), (404, {}), False),
        ((404, {}), (404, {}), False),
        ((200, {}), httpx.ConnectError("gone"), False),
        ((404, {}), httpx.ConnectError("gone"), True),
        ((404, {}), (503, {}), True),
    ],
)
async def test_a_cancel_asks_every_server_once(first: Any, second: Any, fails: bool) -> None:
    urls = {"*": "http://a", "music": "http://b", "sfx": "http://a/"}
    provider, servers = cog({f"POST a{CANCEL}": first, f"POST b{CANCEL}": second}, urls=urls)
    if fails:
        with pytest.raises(ProviderUnavailable):
            await provider.cancel("att_1")
    else:
        await provider.cancel("att_1")
    assert len(servers.requests) == 2


@pytest.mark.parametrize(
    ("words", "state"),
    [
        (("READY", "BUSY"), "ready"),
        (("UNHEALTHY", "BUSY"), "busy"),
        (("STARTING", "SETUP_FAILED"), "starting"),
        (("DEFUNCT", "REBORN"), "down"),
    ],
)
async def test_the_best_server_is_the_health(words: tuple[str, str], state: str) -> None:
    pages = {
        f"GET {host}/health-check": (200, {"status": word}) for host, word in zip("ab", words, strict=True)
    }
    provider, _ = cog(pages, urls={"*": "http://user:hush@a", "music": "http://b"})
    health = await provider.health()
    assert health.state == state
    assert "hush" not in health.detail


def test_only_the_configured_bearer_is_accepted() -> None:
    provider, _ = cog({}, webhook_auth_token="s3cret")
    assert provider.verify({"authorization": "Bearer s3cret"}, b"", now=NOW).message_id is None
    for wrong in (
        {},
        {"authorization": "Bearer s3cre"},
        {"authorization": "s3cret"},
        {"authorization": "é\ud800"},
    ):
        with pytest.raises(Unauthenticated):
            provider.verify(wrong, b"", now=NOW)
    assert cog({})[0].verify({}, b"", now=NOW).message_id is None


def test_old_and_new_hooks_are_read() -> None:
    provider, _ = cog({})
    old = provider.parse(json.dumps(OLD_HOOK).encode())
    assert (old.id, old.status, old.completed_at) == (
        "att_1",
        "succeeded",
        datetime(2024, 1, 1, 0, 0, 2, tzinfo=UTC),
    )
    listed = provider.parse(b'{"id":"a","logs":"","metrics":{},"output":["data:x"],"status":"processing"}')
    assert listed.output == ["data:x"]
    ours = provider.parse(
        b'{"id":"a","output":{"audio":"data:x","engine":"tono","seed":1},"status":"succeeded"}'
    )
    assert ours.engine == "tono"


@pytest.mark.parametrize("url", ["", "cog:5000", "ftp://x", "http://"])
def test_a_wrong_url_stops_the_start(url: str) -> None:
    with pytest.raises(StartupError):
        Cog(urls={"*": url})
