"""What every notifier promises: hints reach who came before them, are merged, and nobody is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.notify import InProcessNotifier, Notifier


@pytest.fixture(params=[InProcessNotifier])
def notifier(request: pytest.FixtureRequest) -> Notifier:
    make: Callable[[], Notifier] = request.param
    return make()


async def test_a_subscriber_hears_its_topic_and_no_other(notifier: Notifier) -> None:
    with notifier.subscribe("job:a") as a, notifier.subscribe("job:b") as b:
        notifier.publish("job:a")
        assert await a.wait(1) is True
        assert await b.wait(0) is False


async def test_a_hint_between_subscribing_and_waiting_is_heard(notifier: Notifier) -> None:
    with notifier.subscribe("t") as subscription:
        notifier.publish("t")
        await asyncio.sleep(0)
        assert await subscription.wait(0) is True


async def test_hints_between_two_waits_are_merged_and_never_lost(notifier: Notifier) -> None:
    with notifier.subscribe("t") as subscription:
        for _ in range(5):
            notifier.publish("t")
        assert await subscription.wait(1) is True
        assert await subscription.wait(0) is False
        notifier.publish("t")
        assert await subscription.wait(1) is True


async def test_a_hint_wakes_everyone_who_waits(notifier: Notifier) -> None:
    async def wait() -> bool:
        with notifier.subscribe("t") as subscription:
            return await subscription.wait(10)

    waiters = [asyncio.create_task(wait()) for _ in range(1000)]
    await asyncio.sleep(0)
    assert notifier.count_subscriptions() == 1000
    notifier.publish("t")
    assert all(await asyncio.gather(*waiters))
    assert notifier.count_subscriptions() == 0


async def test_who_comes_after_the_hint_does_not_hear_it(notifier: Notifier) -> None:
    notifier.publish("t")
    with notifier.subscribe("t") as subscription:
        assert await subscription.wait(0) is False


@pytest.mark.parametrize("leaving", ["timeout", "cancel", "error"])
async def test_a_waiter_that_leaves_leaves_nothing_behind(notifier: Notifier, leaving: str) -> None:
    async def wait() -> None:
        with notifier.subscribe("t") as subscription:
            if leaving == "error":
                raise RuntimeError
            await subscription.wait(0 if leaving == "timeout" else None)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    if leaving == "cancel":
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert notifier.count_subscriptions() == 0
    notifier.publish("t")


async def test_leaving_does_not_take_the_neighbours_along(notifier: Notifier) -> None:
    with notifier.subscribe("t") as stays:
        with notifier.subscribe("t"):
            assert notifier.count_subscriptions() == 2
        assert notifier.count_subscriptions() == 1
        notifier.publish("t")
        assert await stays.wait(1) is True


async def test_a_subscriber_may_leave_while_the_hint_goes_round(notifier: Notifier) -> None:
    async def once() -> None:
        with notifier.subscribe("t") as subscription:
            await subscription.wait(10)

    tasks = [asyncio.create_task(once()) for _ in range(10)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    notifier.publish("t")
    tasks[7].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 2
    assert notifier.count_subscriptions() == 0
