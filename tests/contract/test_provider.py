"""ONE suite of promises for every provider: Replicate over its stateful fake, Cog over a real Cog server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.errors import PredictionUnknown, ProviderBadResponse, ProviderRejected, ProviderUnavailable
from app.gpu.groups import Group
from app.provider.base import Order, Prediction, Provider
from app.provider.cog import Cog
from app.provider.replicate import Replicate
from tests.contract.gpu_ground import calling, gpu_worker, moody, write_schema
from tests.contract.test_provider_cog import SCHEMA, CogServer, Receiver
from tests.fakes.provider import SECRET, TERMINAL, TOKEN, FakeReplicate, served


@dataclass
class World:
    """A provider, the other side behind it, and the place where its hooks arrive."""

    provider: Provider
    receiver: Receiver
    url: str
    play: Callable[[str, str], Awaitable[None]]
    """Let a prediction go its way: `succeed`, `raise` or `sleep` (begin, then wait)."""
    vanish: Callable[[], Awaitable[None]]

    def order(self, mode: str, attempt_id: str = "att_1") -> Order:
        url = f"{self.url}/v1/webhooks/{self.provider.name}/{attempt_id}?token=t0k"
        return Order(attempt_id, "music", "meta/musicgen", {"mode": mode}, url, deadline_s=60)

    async def start(self, mode: str) -> Prediction:
        made = await self.provider.create(self.order(mode))
        assert made.id
        await self.play(made.id, mode)
        return made

    def heard(self, hook: tuple[str, dict[str, str], bytes, int]) -> Prediction:
        path, headers, body, _ = hook
        assert path.rsplit("/", 1)[-1] == "att_1"
        self.provider.verify(headers, body, now=datetime.now(UTC))
        return self.provider.parse(body)


REAL = [pytest.param(name, marks=pytest.mark.real) for name in ("cog", "gpu_worker")]


@pytest.fixture(params=["replicate", *REAL])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "replicate":
        async with _replicate_world() as made:
            yield made
    elif request.param == "gpu_worker":
        async with _gpu_worker_world(tmp_path) as made:
            yield made
    else:
        async with _cog_world(tmp_path) as made:
            yield made


async def test_a_created_prediction_tells_its_success_to_the_callback_url(world: World) -> None:
    made = await world.start("succeed")
    assert made.status in ("starting", "processing")
    news = world.heard(await world.receiver.terminal())
    assert (news.id, news.status, news.output, news.error) == (made.id, "succeeded", "hi", None)
    assert news.metrics["predict_time"] > 0


async def test_a_failing_model_tells_its_error(world: World) -> None:
    await world.start("raise")
    news = world.heard(await world.receiver.terminal())
    assert news.status == "failed"
    assert news.error is not None
    assert "boom" in news.error


async def test_progress_is_heard_while_it_runs_and_a_cancel_ends_it(world: World) -> None:
    made = await world.start("sleep")
    assert made.id
    while (news := world.heard(await world.receiver.news())).progress is None:
        assert news.status not in TERMINAL
    assert (news.progress, news.step) == (0.5, "sleep")
    await world.provider.cancel(made.id)
    assert world.heard(await world.receiver.terminal()).status == "canceled"
    await world.provider.cancel(made.id)  # ended already: no error


async def test_canceling_the_unknown_is_no_error(world: World) -> None:
    await world.provider.cancel("nobody")
    await world.provider.cancel("../shutdown")
    assert (await world.provider.health()).state == "ready"


async def test_the_unknown_cannot_be_read(world: World) -> None:
    for prediction_id in ("nobody", "../account", "", "a?b"):
        with pytest.raises(PredictionUnknown):
            await world.provider.get(prediction_id)


async def test_polling_and_finding_answer_exactly_where_it_is_promised(world: World) -> None:
    made = await world.start("succeed")
    assert made.id
    await world.receiver.terminal()
    since = datetime.now(UTC)
    if world.provider.can_poll:
        assert (await world.provider.get(made.id)).output == "hi"
        found = await world.provider.find("att_1", since=since)
        assert found is not None
        assert found.id == made.id
        assert await world.provider.find("att_", since=since) is None
        return
    with pytest.raises(PredictionUnknown):
        await world.provider.get(made.id)
    with pytest.raises(PredictionUnknown):
        await world.provider.find("att_1", since=since)


async def test_a_refused_input_is_rejected_with_the_field(world: World) -> None:
    wrong = world.order("succeed")
    with pytest.raises(ProviderRejected) as caught:
        await world.provider.create(
            Order(wrong.attempt_id, wrong.kind, wrong.model, {"mode": 5}, wrong.callback_url)
        )
    assert caught.value.status == 422
    assert caught.value.invalid_fields[0]["field"].endswith("mode")


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
async def test_an_input_that_is_not_json_is_rejected_and_never_sent(world: World, value: object) -> None:
    good = world.order("succeed")
    with pytest.raises(ProviderRejected):
        await world.provider.create(
            Order(good.attempt_id, good.kind, good.model, {"mode": value}, good.callback_url)
        )
    assert world.receiver.hooks.empty()


async def test_a_vanished_provider_is_unavailable_and_down(world: World) -> None:
    assert (await world.provider.health()).state == "ready"
    await world.vanish()
    with pytest.raises(ProviderUnavailable) as caught:
        await world.provider.create(world.order("succeed"))
    assert not caught.value.ambiguous
    with pytest.raises(ProviderUnavailable):
        await world.provider.cancel("att_1")
    assert (await world.provider.health()).state == "down"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"<html>", b"[" * 100_000, b'{"status":"a","status":"b"}']
)
async def test_a_body_that_is_no_prediction_is_a_bad_response_with_the_raw(world: World, body: bytes) -> None:
    with pytest.raises(ProviderBadResponse) as caught:
        world.provider.parse(body)
    assert caught.value.raw == body[:65_536]


async def test_outputs_may_be_fetched_from_its_own_hosts_only(world: World) -> None:
    rules = world.provider.download_rules()
    assert rules.hosts
    assert set(rules.plain_http) <= set(rules.hosts)


class _Line(httpx.AsyncBaseTransport):
    """The wire to the fake, which a test can cut."""

    def __init__(self, fake: FakeReplicate) -> None:
        self._inner = httpx.ASGITransport(app=fake)
        self.cut = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.cut:
            raise httpx.ConnectError("connection refused", request=request)
        return await self._inner.handle_async_request(request)


@contextlib.asynccontextmanager
async def _replicate_world() -> AsyncIterator[World]:
    receiver = Receiver()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=receiver)) as hooks:
        fake = FakeReplicate(hooks=hooks, input_types={"mode": str})
        line = _Line(fake)
        provider = Replicate(token=TOKEN, base_url=fake.base_url, secrets=[SECRET], transport=line)

        async def play(prediction_id: str, mode: str) -> None:
            await fake.begin(prediction_id)
            await fake.log(prediction_id, f"progress 0.50 {mode}\n")
            if mode == "succeed":
                await fake.finish(prediction_id, output="hi")
            if mode == "raise":
                await fake.finish(prediction_id, error="boom")

        async def vanish() -> None:
            line.cut = True

        yield World(provider, receiver, "http://reprise.test", play, vanish)
        await provider.aclose()


@contextlib.asynccontextmanager
async def _cog_world(folder: Path) -> AsyncIterator[World]:
    receiver = Receiver()
    async with served(receiver) as url:
        server = await CogServer.start(folder, schema=True)
        provider = Cog(urls={"*": server.url})

        async def play(prediction_id: str, mode: str) -> None:
            """The real one goes by itself."""

        try:
            await server.ready()
            yield World(provider, receiver, url, play, server.kill)
        finally:
            await provider.aclose()
            await server.kill()


@contextlib.asynccontextmanager
async def _gpu_worker_world(folder: Path) -> AsyncIterator[World]:
    receiver = Receiver()
    group = Group("moody", (), moody(folder))
    write_schema(folder / "engines" / group.name, SCHEMA)
    async with served(receiver) as url, contextlib.AsyncExitStack() as running:
        worker = await running.enter_async_context(gpu_worker(folder, [group]))
        provider = Cog(urls={"*": worker.url})

        async def play(prediction_id: str, mode: str) -> None:
            """It goes by itself."""

        async with calling(worker, f"{url}/warm") as caller:
            # Loaded once, so that it can refuse an input at once, as a Cog server does.
            await caller.put("first")
            await receiver.terminal()
        try:
            yield World(provider, receiver, url, play, running.aclose)
        finally:
            await provider.aclose()
