"""The rules of subtitles, held over words of every shape."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kinds.subtitles import (
    GAP_S,
    LINE_CHARACTERS,
    LONGEST_S,
    MOST_LINES,
    READ_PER_S,
    SHORTEST_S,
    Word,
    break_lines,
    make_cues,
    read_srt,
    write_srt,
)


def spoken(text: str, *, start: float = 0.0, each_s: float = 0.3) -> list[Word]:
    """Words said at an even pace."""
    return [
        Word(word, start + at * each_s, start + (at + 1) * each_s) for at, word in enumerate(text.split())
    ]


@st.composite
def speech(draw: st.DrawFn) -> list[Word]:
    """Words in the order of their times, of any length, pace and punctuation."""
    at, words = draw(st.floats(0, 10)), []
    for _ in range(draw(st.integers(0, 60))):
        text = draw(st.text("abcdefgé", min_size=1, max_size=60)) + draw(st.sampled_from(["", ",", ".", "?"]))
        at += draw(st.sampled_from([0.0, 0.05, 0.4, 2.0]))
        end = at + draw(st.floats(0.02, 3))
        words.append(Word(text, at, end))
        at = end
    return words


@given(speech())
def test_no_two_cues_are_on_the_screen_at_once_and_none_says_more_than_two_lines(words: list[Word]) -> None:
    cues = make_cues(words)
    for cue in cues:
        assert 1 <= len(cue.lines) <= MOST_LINES
        assert all(0 < len(line) <= LINE_CHARACTERS for line in cue.lines)
        assert 0 < cue.end - cue.start <= LONGEST_S + 1e-6
    for cue, following in itertools.pairwise(cues):
        assert cue.end <= max(following.start, cue.start + 0.001) + 1e-9


@given(speech())
def test_every_character_is_shown_once_and_in_order(words: list[Word]) -> None:
    shown = "".join(cue.text for cue in make_cues(words)).replace(" ", "")
    assert shown == "".join(word.text for word in words)


@given(speech())
def test_what_is_written_is_read_again(words: list[Word]) -> None:
    cues = make_cues(words)
    again = read_srt(write_srt(cues))
    assert [cue.lines for cue in again] == [cue.lines for cue in cues]
    assert all(abs(one.start - other.start) <= 0.0006 for one, other in zip(again, cues, strict=True))


def test_a_short_exclamation_stays_long_enough_to_be_seen() -> None:
    [cue] = make_cues([Word("No!", 1.0, 1.2)])
    assert cue.end - cue.start == pytest.approx(SHORTEST_S)


def test_fast_speech_stays_on_into_the_silence_after_it_so_that_it_can_be_read() -> None:
    fast = spoken("everything that was said here was said rather quickly.", each_s=0.1)
    [cue, following] = make_cues([*fast, Word("Silence.", 20.0, 20.5)])
    assert cue.end - cue.start == pytest.approx(len(cue.text) / READ_PER_S)
    assert following.start == 20.0


def test_a_cue_makes_way_for_the_next_one_with_a_gap() -> None:
    first, second = make_cues([*spoken("Yes."), *spoken("No.", start=0.4)])
    assert second.start - first.end == pytest.approx(GAP_S)


def test_a_pause_and_the_end_of_a_sentence_part_cues() -> None:
    words = [*spoken("one two. three"), *spoken("four", start=5.0)]
    assert [cue.text for cue in make_cues(words)] == ["one two.", "three", "four"]


def test_a_phrase_without_word_times_shares_its_time_by_length() -> None:
    text = "a phrase of a model that knows no words, only when it began and when it was over, far too long"
    cues = make_cues([Word(text, 10.0, 20.0)])
    assert len(cues) == 2
    assert cues[0].start == 10.0
    assert 14.0 < cues[1].start < 19.0


def test_lines_break_after_a_clause_near_their_middle() -> None:
    assert break_lines("It was the best of times, it was the worst of times") == (
        "It was the best of times,",
        "it was the worst of times",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("WEBVTT\n\n00:00.000 --> 00:01.000\nHi", "subtitle 1 has no number"),
        ("1\n00:00:01,000 --> 00:00:00,500\nHi", "run backwards"),
        ("1\n00:00:05,000 --> 00:00:06,000\nHi\n\n2\n00:00:01,000 --> 00:00:02,000\nHo", "subtitle 2"),
        ('{"segments": []}', "subtitle 1 has no number"),
    ],
)
def test_what_is_no_subrip_text_is_told_apart(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_srt(text)


def test_nothing_said_is_an_empty_text_that_is_subtitles_all_the_same() -> None:
    assert read_srt(write_srt(make_cues([]))) == []
