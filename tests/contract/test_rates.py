"""Counting requests: one suite over memory and PostgreSQL, and what happens when the database is slow.

Windows last an hour or a day here, so that no machine that stalls walks out of one; what depends on a
window's end moves the row, not the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from app.access.callers import OPEN_HOUSE, Caller, Scope
from app.rates.limiter import Rates, retry_s
from app.rates.policy import budget_of, read_policy
from db.session import Database
from tests.conftest import TEMPLATE, PostgresServer, make_settings

POLICY = "jobs:write=5/day,jobs:read=100/day"
ANNE = Caller("anne", frozenset(Scope), "key_anne")
BERT = Caller("bert", frozenset(Scope), "key_bert")
WRITE = Scope.JOBS_WRITE


@pytest.fixture
def shared_url(postgres: PostgresServer) -> Iterator[str]:
    name = "test_rates"
    postgres.create(name, TEMPLATE)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=["memory", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
    return str(request.getfixturevalue("shared_url"))


@pytest.fixture
async def rates(any_url: str, tmp_path: Path) -> AsyncIterator[Rates]:
    async with opened(tmp_path, any_url) as made:
        yield made


class opened:  # noqa: N801 - read as a verb
    """Rates on a database, closed again."""

    def __init__(self, folder: Path, url: str, **settings: object) -> None:
        values = {"rate_limits": POLICY, "rate_limits_wait_s": 2, **settings}
        self._settings = make_settings(folder, database_url=url, **values)
        self.database = Database(url)
        self.rates = Rates(self._settings, self.database)

    async def __aenter__(self) -> Rates:
        await self.rates.start()
        return self.rates

    async def __aexit__(self, *_: object) -> None:
        await self.rates.aclose()
        await self.database.aclose()


async def test_the_quota_is_let_in_and_no_request_more(rates: Rates) -> None:
    standings = [await rates.spend(WRITE, ANNE, "") for _ in range(8)]
    assert [each.is_in for each in standings if each] == [True] * 5 + [False] * 3
    assert [each.remaining for each in standings if each] == [4, 3, 2, 1, 0, 0, 0, 0]
    last = standings[-1]
    assert last is not None
    assert last.retry_s > 0
    assert last.policy_header == '"jobs:write";q=5;w=86400'
    assert last.limit_header.startswith('"jobs:write";r=0;t=')


async def test_callers_and_budgets_are_counted_apart(rates: Rates) -> None:
    for _ in range(6):
        await rates.spend(WRITE, ANNE, "")
    other = await rates.spend(WRITE, BERT, "")
    reads = await rates.spend(Scope.JOBS_READ, ANNE, "")
    assert other is not None
    assert reads is not None
    assert other.is_in
    assert (reads.is_in, reads.remaining) == (True, 99)


async def test_a_budget_without_a_limit_is_not_counted(rates: Rates) -> None:
    assert await rates.spend(Scope.DELIVERIES_REPLAY, ANNE, "") is None


async def test_without_a_key_the_address_is_counted(rates: Rates) -> None:
    for _ in range(5):
        await rates.spend(WRITE, OPEN_HOUSE, "127.0.0.1")
    here = await rates.spend(WRITE, OPEN_HOUSE, "127.0.0.1")
    there = await rates.spend(WRITE, OPEN_HOUSE, "127.0.0.2")
    assert here is not None
    assert there is not None
    assert (here.is_in, there.is_in) == (False, True)


async def test_many_at_once_get_the_quota_together(rates: Rates) -> None:
    """Fault 27: a burst at once is let in no further than one after another."""
    standings = await asyncio.gather(*(rates.spend(WRITE, ANNE, "") for _ in range(50)))
    assert sum(each.is_in for each in standings if each) == 5


async def test_a_tenants_keys_are_counted_together_where_that_is_wanted(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/reprise.db"
    async with opened(tmp_path, url, rate_limits_by="tenant") as rates:
        for _ in range(5):
            await rates.spend(WRITE, ANNE, "")
        other_key = await rates.spend(WRITE, Caller("anne", frozenset(Scope), "key_second"), "")
        assert other_key is not None
        assert not other_key.is_in


async def test_processes_on_one_postgresql_count_together(tmp_path: Path, shared_url: str) -> None:
    async with opened(tmp_path / "one", shared_url) as one, opened(tmp_path / "two", shared_url) as two:
        for _ in range(3):
            await one.spend(WRITE, ANNE, "")
        standings = [await two.spend(WRITE, ANNE, "") for _ in range(3)]
        assert [each.is_in for each in standings if each] == [True, True, False]


async def test_the_window_before_weighs_less_and_less(tmp_path: Path, shared_url: str) -> None:
    async with opened(tmp_path, shared_url) as rates:
        for _ in range(5):
            await rates.spend(WRITE, ANNE, "")
        # A window later, the five are the previous window's; two later, they are nobody's.
        await _move_windows(shared_url, by=1)
        before = await rates.spend(WRITE, ANNE, "")
        await _move_windows(shared_url, by=2)
        after = await rates.spend(WRITE, ANNE, "")
        assert before is not None
        assert after is not None
        assert (after.is_in, after.remaining) == (True, 4)
        # Of the five as much counts as is left of the day: how much hangs on when the test runs.
        assert before.remaining <= 4


async def _move_windows(url: str, *, by: int) -> None:
    database = Database(url)
    async with database.transaction() as tx:
        await tx.execute(text("UPDATE rate_counters SET window_no = window_no - :by").bindparams(by=by))
    await database.aclose()


async def test_a_slow_database_makes_nobody_wait_and_shuts_nobody_out(
    tmp_path: Path, shared_url: str
) -> None:
    blocker = Database(shared_url)
    async with opened(tmp_path, shared_url, rate_limits_wait_s=0.05) as rates:
        await rates.spend(WRITE, ANNE, "")
        async with blocker.transaction() as tx:
            await tx.execute(text("LOCK TABLE rate_counters IN ACCESS EXCLUSIVE MODE"))
            # Each of these would wait for the lock for as long as it is held.
            async with asyncio.timeout(30):
                standings = [await rates.spend(WRITE, ANNE, "") for _ in range(6)]
    await blocker.aclose()
    # By itself, the process counts from nothing.
    assert [each.is_in for each in standings if each] == [True] * 5 + [False]


async def test_a_database_that_is_away_at_the_start_is_no_failure(tmp_path: Path) -> None:
    async with opened(tmp_path, "postgresql+asyncpg://nobody@127.0.0.1:1/nothing") as rates:
        standing = await rates.spend(WRITE, ANNE, "")
        assert standing is not None
        assert standing.is_in


async def test_old_rows_are_swept(tmp_path: Path, shared_url: str) -> None:
    async with opened(tmp_path, shared_url) as rates:
        await rates.spend(WRITE, ANNE, "")
        await rates.spend(WRITE, BERT, "")
        database = Database(shared_url)
        async with database.transaction() as tx:
            await tx.execute(
                text("UPDATE rate_counters SET expires_at = now() - interval '1 s' WHERE key LIKE '%anne%'")
            )
        assert rates._counters is not None
        await rates._counters.sweep()
        async with database.reading() as tx:
            left = (await tx.execute(text("SELECT key FROM rate_counters"))).scalars().all()
        await database.aclose()
        assert [key for key in left if "anne" in key] == []
        assert len(left) == 1


@pytest.mark.parametrize(
    ("previous", "previous_s", "current", "current_s", "expected"),
    [
        (0, 0.0, 5, 90.0, 30.0),  # all in this window: until it is the previous one
        (0, 0.0, 10, 90.0, 60.0),  # twice the quota: and until half of that has faded
        (10, 30.0, 0, 90.0, 0.0),  # half of ten is just five: the next moment
        (10, 30.0, 2, 90.0, 12.0),  # 10 * t/60 + 2 = 5 at t = 18
    ],
)
def test_the_wait_is_until_one_more_is_free(
    previous: int, previous_s: float, current: int, current_s: float, expected: float
) -> None:
    assert retry_s(5, 60, previous, previous_s, current, current_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong",
    ["jobs:write", "jobs:write=", "jobs:write=0/minute", "jobs:write=5/fortnight", "jobs:admin=5/minute",
     "jobs:write=5/minute,jobs:write=6/hour", "admin=5/minute", "jobs:write=-5/minute",
     "jobs:write=5/0minute"],
)  # fmt: skip
def test_a_wrong_limit_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_policy(wrong)


def test_limits_are_read_and_none_is_none() -> None:
    policy = read_policy("jobs:write=600/minute, jobs:read=50/10second deliveries:replay=1000/hour")
    assert {scope.value: (item.amount, item.get_expiry()) for scope, item in policy.items()} == {
        "jobs:write": (600, 60),
        "jobs:read": (50, 10),
        "deliveries:replay": (1000, 3600),
    }
    assert read_policy("none") == read_policy("") == {}


@pytest.mark.parametrize(
    ("method", "path", "budget"),
    [
        ("POST", "/v1/jobs", "jobs:write"),
        ("DELETE", "/v1/jobs/job_1", "jobs:write"),
        ("PATCH", "/v1/uploads/upl_1", "jobs:write"),
        ("GET", "/v1/jobs", "jobs:read"),
        ("HEAD", "/v1/assets/ast_1/content", "jobs:read"),
        ("POST", "/v1/deliveries/dlv_1/replay", "deliveries:replay"),
        ("POST", "/v1/recoveries", "deliveries:replay"),
        ("POST", "/v1/webhooks/replicate/att_1", None),
        ("GET", "/healthz", None),
        ("GET", "/docs", None),
    ],
)
def test_each_request_has_its_budget(method: str, path: str, budget: str | None) -> None:
    assert budget_of(method, path) == budget
