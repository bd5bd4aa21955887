"""What devices share, and the line of singers: the law of both, as state machines that hypothesis drives."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from app.access.callers import Caller, Scope
from app.access.keys import KeyNeeded
from app.errors import Conflict, InvalidInput, NotFound
from app.karaoke.stage import singers
from app.karaoke.stage.remotes import RemoteTokens
from app.karaoke.stage.singers import MOST_WAITING, Entry, Queue, QueueFull, Song
from app.karaoke.stage.state import (
    DRIFT_S,
    SETTLE_S,
    Command,
    Control,
    Load,
    Pause,
    Play,
    Report,
    Seek,
    State,
    apply,
    has_ended,
)

NOW = datetime(2026, 5, 1, 20, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


VOLUMES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
POSITIONS = st.floats(-10, 400, allow_nan=False)
COMMANDS = st.one_of(
    st.builds(Control, vocal_volume=st.none() | VOLUMES, instrumental_volume=st.none() | VOLUMES),
    st.builds(Control, lyrics_size=st.sampled_from(["small", "medium", "large"])),
    st.builds(Control, lyrics_offset=st.integers(-1000, 1000)),
    st.builds(Play, st.none() | POSITIONS),
    st.builds(Pause, st.none() | POSITIONS),
    st.builds(Seek, POSITIONS),
    st.builds(Load, st.sampled_from([0.0, 180.0, 300.0])),
    st.builds(
        Report, POSITIONS, st.booleans(), st.sampled_from([0.0, 180.0]), st.booleans(),
        st.none() | st.integers(0, 60), st.booleans(),
    ),
)  # fmt: skip


class TwoDevices(RuleBasedStateMachine):
    """Devices act at any time; what is told reaches each of them late, out of order, twice or never."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.state = State(position_at=NOW, version=1, moved_version=1)
        self.told: list[State] = []
        self.screens = {"stage": self.state, "phone": self.state}

    @rule(command=COMMANDS, after_s=st.floats(0, 30, allow_nan=False))
    def somebody_acts(self, command: Command, after_s: float) -> None:
        self.now += timedelta(seconds=after_s)
        before = self.state
        self.state = apply(before, command, self.now)
        if self.state is before:
            return
        assert self.state.version > before.version, "who changes something is heard"
        self.told.append(self.state)

    @rule(screen=st.sampled_from(["stage", "phone"]), at=st.integers(0, 1000))
    def something_is_heard(self, screen: str, at: int) -> None:
        if self.told:
            self.hear(screen, self.told[at % len(self.told)])

    @rule(screen=st.sampled_from(["stage", "phone"]))
    def a_screen_comes_back(self, screen: str) -> None:
        self.hear(screen, self.state)

    def hear(self, screen: str, state: State) -> None:
        if state.version > self.screens[screen].version:
            self.screens[screen] = state

    @invariant()
    def a_screen_that_has_heard_the_last_word_shows_what_is(self) -> None:
        for heard in self.screens.values():
            if heard.version == self.state.version:
                assert heard == self.state
                assert heard.live_s(self.now) == self.state.live_s(self.now)
        for screen in self.screens:
            # Whatever it heard before: with the last word, all are alike.
            last = max([self.screens[screen], *self.told[-1:]], key=lambda state: state.version)
            assert last == self.state

    @invariant()
    def the_state_makes_sense(self) -> None:
        state = self.state
        assert 0 <= state.position_s <= (state.duration_s or 43_200)
        assert state.moved_version <= state.version
        assert state.position_at <= self.now
        assert 0 <= state.live_s(self.now) <= (state.duration_s or 43_200)


TestTwoDevices = TwoDevices.TestCase
TestTwoDevices.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@settings(deadline=None)
@given(st.lists(st.tuples(COMMANDS, st.floats(0, 10, allow_nan=False)), max_size=12))
def test_a_version_is_never_given_to_two_states(acts: list[tuple[Command, float]]) -> None:
    state, now, seen = State(position_at=NOW), NOW, {0: State(position_at=NOW)}
    for command, after_s in acts:
        now += timedelta(seconds=after_s)
        state = apply(state, command, now)
        assert seen.setdefault(state.version, state) == state


def playing(position_s: float = 10.0, duration_s: float = 180.0, version: int = 5) -> State:
    return State(
        position_at=NOW, is_playing=True, position_s=position_s, duration_s=duration_s,
        version=version, moved_version=version,
    )  # fmt: skip


def test_whoever_comes_late_is_where_the_others_are() -> None:
    assert playing().live_s(later(42.5)) == 52.5
    assert playing().live_s(later(1000)) == 180.0, "not past the end"
    assert replace(playing(), is_playing=False).live_s(later(42.5)) == 10.0


def test_play_pressed_twice_plays_once() -> None:
    first = apply(State(position_at=NOW, version=1), Play(), NOW)
    assert apply(first, Play(), later(1)) is first
    assert apply(apply(first, Pause(), later(3)), Pause(), later(4)).position_s == 3.0


def test_a_song_that_has_ended_begins_again() -> None:
    ended = replace(playing(position_s=180.0), is_playing=False)
    assert apply(ended, Play(), later(5)).position_s == 0.0


def test_a_report_that_says_what_is_known_changes_nothing() -> None:
    state = playing()
    for second in range(60):
        said = Report(10.0 + second, True, 180.0, seen_version=5, is_alone=True)
        assert apply(state, said, later(second)) is state


def test_a_report_from_before_a_seek_does_not_undo_it() -> None:
    """The player has not heard of it yet: it says where it was."""
    sought = apply(playing(), Seek(100.0), later(10))
    late = Report(20.3, True, 180.0, seen_version=5, is_alone=True)
    assert apply(sought, late, later(10 + SETTLE_S + 1)) is sought
    blind = replace(late, seen_version=None)
    assert apply(sought, blind, later(10 + SETTLE_S + 1)) is sought


@pytest.mark.parametrize(("is_alone", "after_s", "off_s", "follows"), [
    (True, SETTLE_S, DRIFT_S + 0.1, True),
    (True, SETTLE_S - 0.1, DRIFT_S + 0.1, False),
    (True, SETTLE_S, DRIFT_S - 0.1, False),
    (False, SETTLE_S, DRIFT_S + 0.1, False),
])  # fmt: skip
def test_the_position_follows_a_player_that_is_alone_and_off(
    is_alone: bool, after_s: float, off_s: float, follows: bool
) -> None:
    state = playing()
    said = Report(10.0 + after_s - off_s, True, 180.0, seen_version=5, is_alone=is_alone)
    after = apply(state, said, later(after_s))
    assert (after is not state) == follows
    if follows:
        assert after.position_s == pytest.approx(10.0 + after_s - off_s)
        assert after.moved_version == after.version == 6


def test_the_end_is_the_end_once() -> None:
    state = playing(position_s=178.0)
    ended = apply(state, Report(179.8, False, 180.0, seen_version=5), later(2))
    assert has_ended(state, ended)
    assert (ended.is_playing, ended.position_s) == (False, 180.0)
    assert apply(ended, Report(180.0, False, 180.0, ended=True, seen_version=5), later(2.1)) is ended


def test_an_end_from_before_a_seek_back_is_no_end() -> None:
    sought = apply(playing(position_s=179.0), Seek(5.0), later(1))
    for seen in (5, None):
        assert apply(sought, Report(180.0, False, 180.0, ended=True, seen_version=seen), later(2)) is sought


def test_a_player_that_was_blocked_by_its_browser_stops_nobody() -> None:
    state = playing()
    assert apply(state, Report(10.0, False, 180.0, seen_version=5), later(1)) is state


def test_a_song_of_unknown_length_is_as_long_as_the_first_player_says() -> None:
    state = playing(duration_s=0.0)
    known = apply(state, Report(11.0, True, 200.0, seen_version=5), later(1))
    assert (known.duration_s, known.version, known.moved_version) == (200.0, 6, 5)
    assert apply(known, Report(11.0, True, 150.0, seen_version=6), later(1)) is known


def test_a_place_beyond_the_end_is_the_end_once_that_is_known() -> None:
    sought = apply(State(position_at=NOW), Seek(181.0), NOW)
    known = apply(sought, Report(0.0, False, 180.0), NOW)
    assert (known.position_s, known.live_s(later(5)), known.duration_s) == (180.0, 180.0, 180.0)


def entry(number: int) -> Entry:
    return Entry(f"sng_{number}", f"Singer {number}", Song(f"Song {number}"), NOW.isoformat())


class Line(RuleBasedStateMachine):
    """A line of singers beside a plain list: the same people in the same order, whatever happens."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.made = Queue(version=1), 0
        self.waiting: list[str] = []
        self.singing: str | None = None

    def check(self, after: Queue) -> None:
        assert after.version == self.queue.version + (after is not self.queue)
        self.queue = after

    @rule()
    def one_comes(self) -> None:
        self.made += 1
        self.check(singers.add(self.queue, entry(self.made)))
        self.waiting.append(f"sng_{self.made}")

    @rule(at=st.integers(0, 20))
    def one_goes(self, at: int) -> None:
        everybody = [*self.waiting, *([self.singing] if self.singing else [])]
        if not everybody:
            return
        gone = everybody[at % len(everybody)]
        self.check(singers.remove(self.queue, gone))
        if gone == self.singing:
            self.singing = None
        else:
            self.waiting.remove(gone)

    @rule(order=st.randoms(use_true_random=False))
    def the_line_is_put_in_order(self, order: Any) -> None:
        order.shuffle(self.waiting)
        self.check(singers.reorder(self.queue, list(self.waiting)))

    @rule(at=st.integers(0, 20), to=st.integers(1, 20))
    def one_is_moved(self, at: int, to: int) -> None:
        if self.waiting:
            moved = self.waiting.pop(at % len(self.waiting))
            self.waiting.insert(to - 1, moved)
            self.check(singers.move(self.queue, moved, to=to))

    @rule()
    def the_next_one_sings(self) -> None:
        self.check(singers.advance(self.queue))
        self.singing = self.waiting.pop(0) if self.waiting else None

    @invariant()
    def everybody_stands_where_they_should(self) -> None:
        assert [each.id for each in self.queue.waiting] == self.waiting
        assert (self.queue.singing.id if self.queue.singing else None) == self.singing
        assert singers.of_row(singers.as_row(self.queue), self.queue.version) == self.queue


TestLine = Line.TestCase
TestLine.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_what_the_line_does_not_take_changes_nothing() -> None:
    queue = Queue(entry(9), (entry(1), entry(2)), 3)
    for refused, why in (
        (lambda: singers.remove(queue, "sng_7"), NotFound),
        (lambda: singers.move(queue, "sng_9", to=1), NotFound),
        (lambda: singers.reorder(queue, ["sng_1", "sng_1"]), InvalidInput),
        (lambda: singers.reorder(queue, ["sng_1"]), Conflict),
        (lambda: singers.reorder(queue, ["sng_1", "sng_9"]), Conflict),
    ):
        with pytest.raises(why):
            refused()
    full = Queue(None, tuple(entry(number) for number in range(MOST_WAITING)), 1)
    with pytest.raises(QueueFull):
        singers.add(full, entry(MOST_WAITING))


BY = Caller("acme", frozenset(Scope), "key_1")


def test_a_remote_token_opens_one_performance_for_its_time_and_no_more() -> None:
    tokens = RemoteTokens(secret="s", life_s=60)
    token = tokens.issue(BY, "prf_1", now=NOW)
    guest = tokens.read(token.text, now=later(59))
    assert (guest.tenant, guest.key_id, guest.performance_id) == ("acme", "key_1", "prf_1")
    assert guest.scopes == frozenset(), "no route lets a guest in"
    for text, now in (
        (token.text, later(60)),
        (token.text[:-1] + ("A" if token.text[-1] != "A" else "B"), NOW),
        ("rpr_" + "A" + token.text[5:], NOW),
        ("rpr_", NOW),
        ("rpr_é.\ud800", NOW),
        (RemoteTokens(secret="other", life_s=60).issue(BY, "prf_1", now=NOW).text, NOW),
    ):
        with pytest.raises(KeyNeeded):
            tokens.read(text, now=now)
    assert token.text not in repr(token)
