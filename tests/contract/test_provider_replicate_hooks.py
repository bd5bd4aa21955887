"""Replicate's hooks, secrets and settings, over the stateful fake: what proves a hook, what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.errors import ProviderBadResponse, ProviderUnavailable, StartupError
from app.provider.base import Order
from app.provider.replicate import Replicate
from app.provider.signature import BadSignature
from tests.contract.test_provider_cog import Receiver
from tests.fakes.provider import OTHER_SECRET, SECRET, TOKEN, FakeReplicate


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
async def fake(receiver: Receiver) -> AsyncIterator[FakeReplicate]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=receiver)) as hooks:
        yield FakeReplicate(hooks=hooks)


@pytest.fixture
async def replicate(fake: FakeReplicate) -> AsyncIterator[Replicate]:
    wire = httpx.ASGITransport(app=fake)
    provider = Replicate(token=TOKEN, base_url=fake.base_url, secrets=[SECRET], transport=wire)
    yield provider
    await provider.aclose()


def order(attempt_id: str = "att_1") -> Order:
    url = f"http://reprise.test/v1/webhooks/replicate/{attempt_id}?token=t0k"
    return Order(attempt_id, "music", "meta/musicgen", {"prompt": "rain"}, url)


def now() -> datetime:
    return datetime.now(UTC)


async def test_the_secret_is_fetched_once_and_verifies(fake: FakeReplicate, receiver: Receiver) -> None:
    provider = Replicate(token=TOKEN, base_url=fake.base_url, transport=httpx.ASGITransport(app=fake))
    made = await provider.create(order())
    await fake.finish(str(made.id), output="u")
    _, headers, body, _ = await receiver.news()
    with pytest.raises(ProviderUnavailable):
        provider.verify(headers, body, now=now())
    await provider.prepare()
    await provider.prepare()
    assert provider.verify(headers, body, now=now()).message_id == fake.sent[-1].headers["webhook-id"]
    assert [seen.path for seen in fake.seen].count("/v1/webhooks/default/secret") == 1
    await provider.aclose()


@pytest.mark.parametrize("key", ["", "whsec_", "whsec_hush!", 5, None])
async def test_an_unusable_fetched_secret_is_not_told(fake: FakeReplicate, key: Any) -> None:
    provider = Replicate(token=TOKEN, base_url=fake.base_url, transport=httpx.ASGITransport(app=fake))
    fake.secret = key
    with pytest.raises(ProviderBadResponse) as caught:
        await provider.prepare()
    assert caught.value.raw == b""
    assert "hush" not in str(caught.value)
    await provider.aclose()


async def test_a_forged_hook_is_refused_and_a_second_secret_is_accepted(
    replicate: Replicate, fake: FakeReplicate, receiver: Receiver
) -> None:
    made = await replicate.create(order())
    fake.forge = True
    await fake.finish(str(made.id), output="u")
    _, headers, body, _ = await receiver.news()
    with pytest.raises(BadSignature):
        replicate.verify(headers, body, now=now())
    both = Replicate(token=TOKEN, secrets=[SECRET, OTHER_SECRET], transport=httpx.ASGITransport(app=fake))
    assert both.verify(headers, body, now=now()).message_id


async def test_a_completed_hook_may_come_before_the_create_reply_and_out_of_order(
    replicate: Replicate, fake: FakeReplicate, receiver: Receiver
) -> None:
    fake.early = "u"
    made = await replicate.create(order())
    assert receiver.hooks.qsize() == 1
    path, _, body, _ = await receiver.news()
    assert path.endswith("/att_1")
    assert replicate.parse(body).id == made.id
    fake.early, fake.reorder, fake.double_hooks = None, True, True
    late = await replicate.create(order("att_2"))
    await fake.begin(str(late.id))
    await fake.finish(str(late.id), output="u")
    words = [replicate.parse((await receiver.news())[2]).status for _ in range(3)]
    assert words == ["succeeded", "succeeded", "processing"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": " "},
        {"base_url": "api"},
        {"base_url": "ftp://x"},
        {"secrets": [""]},
        {"base_url": "http://"},
    ],
)
def test_a_wrong_setting_stops_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(StartupError) as caught:
        Replicate(**({"token": "r8_hush"} | wrong))
    assert "hush" not in caught.value.message


def test_the_token_goes_to_the_delivery_hosts_only() -> None:
    rules = Replicate(token="t", secrets=[SECRET]).download_rules()
    assert rules.hosts == ("replicate.delivery", "*.replicate.delivery", "api.replicate.com")
    assert rules.plain_http == ()
    assert rules.headers == {"Authorization": "Bearer t"}
