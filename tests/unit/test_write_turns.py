"""Who writes next on SQLite: the ingress before the stations, but not twice in a row, and nobody is lost."""

from __future__ import annotations

import asyncio

from db.connections.turns import WriteTurns


async def _order(turns: WriteTurns, *names: str) -> list[str]:
    """The order in which these get their turns when all ask while one is held; `i…` is the ingress."""
    order: list[str] = []

    async def write(name: str) -> None:
        async with turns.first if name.startswith("i") else turns.ordinary:
            order.append(name)

    async with turns.ordinary:
        tasks = [asyncio.create_task(write(name)) for name in names]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    return order


async def test_a_webhook_waits_for_one_other_commit_at_most() -> None:
    assert await _order(WriteTurns(limit_s=5.0), "a", "b", "c", "i1") == ["i1", "a", "b", "c"]


async def test_a_flood_of_webhooks_leaves_the_stations_every_other_turn() -> None:
    assert await _order(WriteTurns(limit_s=5.0), "i1", "i2", "i3", "a", "b") == ["i1", "a", "i2", "b", "i3"]


async def test_one_writes_at_a_time_and_in_order_within_a_line() -> None:
    turns = WriteTurns(limit_s=5.0)
    inside = 0

    async def write() -> int:
        nonlocal inside
        async with turns.ordinary:
            inside += 1
            seen = inside
            await asyncio.sleep(0)
            inside -= 1
        return seen

    assert await asyncio.gather(*(write() for _ in range(20))) == [1] * 20


async def test_a_turn_is_not_lost_with_a_writer_that_gives_up() -> None:
    turns = WriteTurns(limit_s=5.0)
    async with turns.ordinary:
        early = asyncio.create_task(_order(turns, "never"))
        late = asyncio.create_task(_order(turns, "b"))
        await asyncio.sleep(0)
        # Before its turn comes.
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
    assert await late == ["b"]
    waits = asyncio.Event()

    async def hold() -> None:
        async with turns.ordinary:
            await waits.wait()

    holder = asyncio.create_task(hold())
    await asyncio.sleep(0)
    handed = asyncio.create_task(_order(turns))
    await asyncio.sleep(0)
    waits.set()
    await holder
    # In the very moment in which it was handed over.
    handed.cancel()
    await asyncio.gather(handed, return_exceptions=True)
    async with asyncio.timeout(60), turns.first:
        pass
