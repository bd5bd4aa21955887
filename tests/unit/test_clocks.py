"""The time that rows are dated by: the database's, whatever is done to this machine's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.watch.clocks import CATCH_UP, LineClock
from db.session import Database
from tests.fakes.clock import FakeClock

MINUTES = 60.0


def apart_s(clock: LineClock) -> float:
    """How far the line's time is from this test's, whose clock is the database's too."""
    return (clock.now() - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize("shift_s", [-10 * MINUTES, -5.0, 0.0, 10 * MINUTES])
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_server_is_followed_however_wrong_this_machine_is(database: Database, shift_s: float) -> None:
    """Fault 55: the skew is measured, and no row gets it."""
    clock = LineClock(FakeClock(shift_s))
    assert clock.skew_s is None
    await clock.measure(database)
    assert abs(apart_s(clock)) < 1.0
    assert clock.skew_s is not None
    assert abs(clock.skew_s - shift_s) < 1.0
    assert clock.doubt_s < 1.0
    assert abs((clock.wall() - datetime.now(UTC)).total_seconds() - shift_s) < 1.0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_clock_that_is_set_under_us_moves_the_skew_and_not_the_time(database: Database) -> None:
    """Fault 55: a jump of 10 minutes, before and after the next measurement."""
    machine = FakeClock()
    clock = LineClock(machine)
    await clock.measure(database)
    machine.shift_s = 10 * MINUTES
    assert abs(apart_s(clock)) < 1.0
    await clock.measure(database)
    assert abs(apart_s(clock)) < 1.0
    assert clock.skew_s == pytest.approx(10 * MINUTES, abs=1.0)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_measurement_that_the_round_trip_explains_does_not_move_the_time(database: Database) -> None:
    clock = LineClock()
    await clock.measure(database)
    before = clock._offset_s
    there = datetime.fromtimestamp(clock.elapsed_s() + before + 0.2, UTC)
    clock._follow(there, clock.elapsed_s(), 0.3)
    assert clock._offset_s == before
    clock._follow(there, clock.elapsed_s(), 0.05)
    assert clock._offset_s == pytest.approx(before + 0.2, abs=0.05)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("shift_s", [-10 * MINUTES, 10 * MINUTES])
async def test_alone_on_a_file_a_jump_is_followed_slowly(database: Database, shift_s: float) -> None:
    """Fault 55: what waits in the rows neither becomes due at once nor stands still."""
    machine = FakeClock()
    clock = LineClock(machine)
    machine.shift_s = shift_s
    assert abs(apart_s(clock)) < 1.0
    machine.slept_s += 60
    await clock.measure(database)
    moved_s = apart_s(clock) - 60
    assert moved_s == pytest.approx(CATCH_UP * 60 * (1 if shift_s > 0 else -1), abs=1.0)
    for _ in range(200):
        machine.slept_s += 60
        await clock.measure(database)
    assert clock.now() == pytest.approx(machine.wall(), abs=timedelta(seconds=1))
    assert clock.skew_s is None


def test_a_suspension_passes_for_both_clocks() -> None:
    machine = FakeClock()
    clock = LineClock(machine)
    machine.slept_s = 3600
    assert apart_s(clock) == pytest.approx(3600, abs=1.0)


def test_a_moment_of_the_machines_clock_is_found_on_the_lines() -> None:
    """Fault 55: the supervisor says by the machine's clock when a worker died; rows know another."""
    machine = FakeClock()
    clock = LineClock(machine)
    machine.shift_s = -10 * MINUTES
    died_at = machine.wall() - timedelta(seconds=30)
    assert (clock.now() - clock.of_wall(died_at)).total_seconds() == pytest.approx(30, abs=1.0)
