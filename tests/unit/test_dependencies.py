"""Looking at a part outside: one look at a time, an answer in time, and the memory of the last good one."""

from __future__ import annotations

import asyncio

import pytest

from app.watch.dependencies import OLDEST_S, Dependency, Remembered, Standing, Unanswered


class Part:
    """Answers when it is let; counts how often it is asked, and by how many at once."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = self.inside = self.most_inside = 0
        self.answer = Standing(ok=True)

    async def look(self) -> Standing:
        self.asked += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return self.answer


async def test_many_who_ask_together_are_one_look() -> None:
    part = Part()
    dependency = Dependency(part.look)
    asking = [asyncio.create_task(dependency.stand(within_s=10)) for _ in range(200)]
    await asyncio.sleep(0)
    part.open.set()
    assert all(standing.ok for standing in await asyncio.gather(*asking))
    assert part.asked == 1


async def test_a_part_that_hangs_is_told_of_in_time_and_never_asked_twice_at_once() -> None:
    part = Part()
    dependency = Dependency(part.look)
    for _ in range(5):
        standing = await dependency.stand(within_s=0.01)
        assert not standing.ok
        assert "no answer for" in standing.detail
    assert (part.asked, part.most_inside) == (1, 1)
    part.open.set()
    assert (await dependency.stand(within_s=10)).ok
    await dependency.aclose()


async def test_a_look_that_never_ends_is_ended_and_the_next_one_is_a_new_one() -> None:
    part = Part()
    dependency = Dependency(part.look, limit_s=0.02)
    assert (await dependency.stand(within_s=10)).detail == "no answer within 0.02 s"
    assert part.inside == 0
    part.open.set()
    assert (await dependency.stand(within_s=10)).ok
    assert part.asked == 2


async def test_the_last_success_is_remembered_through_a_failure() -> None:
    part = Part()
    part.open.set()
    dependency = Dependency(part.look)
    part.answer = Standing(ok=False, detail="away")
    assert (await dependency.stand(within_s=10)).last_ok_s is None
    part.answer = Standing(ok=True)
    assert (await dependency.stand(within_s=10)).last_ok_s is not None
    part.answer = Standing(ok=False, detail="away")
    standing = await dependency.stand(within_s=10)
    assert (standing.ok, standing.detail) == (False, "away")
    assert standing.last_ok_s is not None


async def test_a_look_that_breaks_is_an_answer_and_not_an_exception() -> None:
    async def broken() -> Standing:
        raise LookupError("secret")

    standing = await Dependency(broken).stand(within_s=10)
    assert (standing.ok, standing.detail) == (False, "LookupError")


async def test_an_answer_is_kept_for_as_long_as_it_is_fresh_and_a_failure_too() -> None:
    asked = []

    async def ask() -> int:
        asked.append(1)
        if len(asked) == 1:
            raise LookupError
        return len(asked)

    kept = Remembered(ask, fresh_s=1000)
    for _ in range(3):
        with pytest.raises(LookupError):
            await kept.get(within_s=10)
    assert len(asked) == 1
    passing = Remembered(ask, fresh_s=0)
    assert [await passing.get(within_s=10) for _ in range(2)] == [2, 3]


async def test_whoever_gives_up_does_not_end_the_look_of_the_others() -> None:
    part = Part()
    kept = Remembered(part.look, fresh_s=0)
    patient = asyncio.create_task(kept.get(within_s=10))
    hasty = asyncio.create_task(kept.get(within_s=10))
    await asyncio.sleep(0)
    hasty.cancel()
    with pytest.raises(Unanswered):
        await kept.get(within_s=0.01)
    part.open.set()
    assert (await patient).ok
    assert part.asked == 1


async def test_an_answer_that_took_long_is_kept_for_longer() -> None:
    part = Part()
    kept = Remembered(part.look, fresh_s=0, most_share=0.0001)
    asking = asyncio.create_task(kept.get(within_s=10))
    with pytest.raises(Unanswered):
        await kept.get(within_s=0.02)
    part.open.set()
    await asking
    # At least 0.02 s of asking is 200 s of not asking: more than any answer may be old.
    assert kept._kept_s == OLDEST_S
    for _ in range(5):
        await kept.get(within_s=10)
    assert part.asked == 1
