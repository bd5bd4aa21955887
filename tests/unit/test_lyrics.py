"""Lyrics: words to lines, LRC out and in, corrections. Properties by hypothesis, the rules by example."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import InvalidInput
from app.karaoke.lyrics.edits import Fix, fix, replaced, shift
from app.karaoke.lyrics.lines import (
    GAP_MS,
    LATEST_MS,
    LEAST_CONFIDENCE,
    MOST_LINE_CHARS,
    MOST_WORDS,
    Line,
    Word,
    as_rows,
    clean,
    hear,
    keep_sure,
    make_lines,
    of_rows,
)
from app.karaoke.lyrics.lrc import (
    MOST_BYTES,
    InvalidLyrics,
    Sheet,
    SheetLine,
    format_lrc,
    lines_of,
    parse_lrc,
    sheet_of,
)
from app.karaoke.lyrics.review import review
from app.kinds.transcription import Transcript


def transcript(*segments: dict[str, Any], duration: float = 60.0) -> Transcript:
    return Transcript.model_validate({"language": "en", "duration": duration, "segments": list(segments)})


def sung(text: str, start: float, each_s: float = 0.4, probability: float | None = 0.9) -> dict[str, Any]:
    """A segment whose words follow each other without a pause."""
    words = [
        {
            "word": word,
            "start": start + at * each_s,
            "end": start + (at + 1) * each_s,
            "probability": probability,
        }
        for at, word in enumerate(text.split())
    ]
    return {"start": start, "end": words[-1]["end"], "text": text, "words": words}


def lines_from(*segments: dict[str, Any]) -> list[Line]:
    return make_lines(keep_sure(hear(transcript(*segments)).words))


# A machine that stalls fails no test.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Words as a model may give them: any text, any order, times that overlap or stand still.
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
TIMES = st.floats(0, 600, allow_nan=False)
WORDS = st.builds(
    lambda word, start, length, probability: {
        "word": word, "start": start, "end": start + length, "probability": probability,
    },
    TEXTS, TIMES, st.floats(0, 3, allow_nan=False), st.none() | st.floats(0, 1, allow_nan=False),
)  # fmt: skip
SEGMENTS = st.builds(
    lambda start, length, text, words: {"start": start, "end": start + length, "text": text, "words": words},
    TIMES, st.floats(0, 20, allow_nan=False), st.text(max_size=80), st.lists(WORDS, max_size=20),
)  # fmt: skip


@PATIENT
@given(st.lists(SEGMENTS, max_size=6))
def test_every_word_that_is_believed_stands_in_one_line_and_no_other_does(segments: list[Any]) -> None:
    heard = hear(transcript(*segments))
    kept = keep_sure(heard.words)
    lines = make_lines(kept)
    assert [word for line in lines for word in line.words] == kept
    assert all(word.confidence is None or word.confidence >= LEAST_CONFIDENCE for word in kept)
    assert [line.start_ms for line in lines] == sorted(line.start_ms for line in lines)
    for line in lines:
        assert 0 <= line.start_ms <= line.end_ms <= LATEST_MS
        assert line.text
        assert len(line.text) <= MOST_LINE_CHARS


@PATIENT
@given(st.lists(SEGMENTS, max_size=6))
def test_a_line_has_two_to_eight_words_and_no_pause_in_it(segments: list[Any]) -> None:
    words = keep_sure(hear(transcript(*segments)).words)
    lines = make_lines(words)
    for line in lines:
        pauses = [b.start_ms - a.end_ms for a, b in zip(line.words, line.words[1:], strict=False)]
        assert all(pause <= GAP_MS for pause in pauses)
        assert len(line.words) <= MOST_WORDS
    for at, line in enumerate(lines):
        if len(line.words) == 1:  # only where pauses stand on both sides
            assert at == 0 or line.start_ms - lines[at - 1].words[-1].end_ms > GAP_MS
            assert at + 1 == len(lines) or lines[at + 1].start_ms - line.words[-1].end_ms > GAP_MS


@PATIENT
@given(st.lists(SEGMENTS, max_size=4))
def test_lines_are_stored_as_they_are(segments: list[Any]) -> None:
    lines = make_lines(hear(transcript(*segments)).words)
    assert of_rows(as_rows(lines)) == lines


def test_a_line_ends_at_the_end_of_a_sentence_where_that_is_near() -> None:
    lines = lines_from(sung("I was here long before. You came along and sang this song. Now go", 1.0))
    assert [line.text for line in lines] == [
        "I was here long before.", "You came along and sang this song.", "Now go",
    ]  # fmt: skip


def test_without_marks_lines_have_five_words() -> None:
    lines = lines_from(sung(" ".join(f"w{n}" for n in range(20)), 0.0))
    assert [len(line.words) for line in lines] == [5, 5, 5, 5]


def test_a_pause_of_more_than_two_seconds_ends_the_line_and_one_of_two_does_not() -> None:
    together = lines_from(sung("one two", 0.0, 0.5), sung("three four", 3.0, 0.5))
    apart = lines_from(sung("one two", 0.0, 0.5), sung("three four", 3.001, 0.5))
    assert [line.text for line in together] == ["one two three four"]
    assert [line.text for line in apart] == ["one two", "three four"]


def test_words_that_the_model_hardly_believes_are_left_out() -> None:
    [line] = lines_from(
        sung("one two", 0.0), sung("noise", 0.8, probability=0.29), sung("three", 1.2, probability=0.3)
    )
    assert line.text == "one two three"


def test_a_segment_without_word_times_is_spread_and_says_so() -> None:
    heard = hear(transcript({"start": 2.0, "end": 4.0, "text": "ab abcd ab", "words": []}))
    assert [(word.text, word.start_ms, word.end_ms) for word in heard.words] == [
        ("ab", 2000, 2500), ("abcd", 2500, 3500), ("ab", 3500, 4000),
    ]  # fmt: skip
    figures = review(heard, heard.words, make_lines(heard.words))
    assert (figures.estimated, figures.flags) == (3, ("estimated_times",))
    assert figures.mean_confidence is None, "what was not measured is not known"


def test_the_figures_are_measured_on_the_words() -> None:
    heard = hear(
        transcript(
            sung("a b c d", 0.0, 1.0, 0.9), sung("e f g h", 10.0, 1.0, 0.2), sung("i j", 30.0, 1.0, 0.5)
        )
    )
    kept = keep_sure(heard.words)
    figures = review(heard, kept, make_lines(kept))
    assert (figures.words, figures.dropped) == (10, 4)
    assert figures.mean_confidence == pytest.approx((4 * 0.9 + 4 * 0.2 + 2 * 0.5) / 10)
    assert figures.low_confidence_share == 0.4
    assert figures.coverage == 0.6, "4 + 2 of 4 + 4 + 2 seconds"
    assert figures.timing_consistency == 0.0, "one pause, of 26 s"
    assert set(figures.flags) == {
        "low_mean_confidence", "many_low_confidence_words", "low_coverage", "inconsistent_timing",
    }  # fmt: skip


def test_good_lyrics_raise_no_flag_and_none_at_all_one() -> None:
    heard = hear(transcript(sung("all of this is well and clearly sung", 1.0, probability=0.95)))
    assert review(heard, heard.words, make_lines(heard.words)).flags == ()
    nothing = review(hear(transcript()), [], [])
    assert nothing.flags == ("no_words",)
    assert (nothing.coverage, nothing.timing_consistency, nothing.mean_confidence) == (None, None, None)


# Sheets as LRC can say them: hundredths, lines by time, ends before the next begins.
CLEAN = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).map(clean).filter(bool)
WORD = CLEAN.filter(lambda text: " " not in text)


@st.composite
def sheets(draw: st.DrawFn, *, words: bool) -> Sheet:
    starts = sorted(draw(st.lists(st.integers(0, 59_999), min_size=1, max_size=12)))
    lines = []
    for at, start in enumerate(starts):
        following = starts[at + 1] if at + 1 < len(starts) else 60_500
        spoken = sorted(draw(st.lists(st.integers(start, following), max_size=5))) if words else []
        timed = tuple((10 * each, draw(WORD)) for each in spoken)
        least = max(start + 1, spoken[-1] if spoken else 0)
        ends = (
            st.integers(least, following - 1).map(lambda ms: 10 * ms) if least < following else st.nothing()
        )
        text = " ".join(word for _, word in timed) if timed else draw(CLEAN)
        lines.append(SheetLine(10 * start, text, timed, draw(st.none() | ends)))
    names = st.text("abcdefgh", min_size=1, max_size=6)
    tags = draw(st.dictionaries(names, CLEAN, max_size=3))
    return Sheet(tuple(lines), tuple(tags.items()))


@PATIENT
@given(sheets(words=False))
def test_what_is_written_as_lrc_is_read_back_as_it_was(sheet: Sheet) -> None:
    assert parse_lrc(format_lrc(sheet)) == sheet


@PATIENT
@given(sheets(words=True))
def test_what_is_written_as_enhanced_lrc_is_read_back_as_it_was(sheet: Sheet) -> None:
    assert parse_lrc(format_lrc(sheet, words=True)) == sheet


@PATIENT
@given(st.lists(SEGMENTS, max_size=4))
def test_lyrics_of_any_transcript_survive_a_file_to_the_hundredth(segments: list[Any]) -> None:
    lines = make_lines(hear(transcript(*segments)).words)
    if not lines:
        return
    sheet = sheet_of(lines)
    read = parse_lrc(format_lrc(sheet))
    assert [(line.start_ms, line.text) for line in read.lines] == [
        ((line.start_ms + 5) // 10 * 10, line.text) for line in lines
    ]
    assert len(lines_of(read)) == len(lines)


@PATIENT
@given(st.text(max_size=400) | st.text("[]<>:.0123456789abo+-\n ", max_size=200))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        sheet = parse_lrc(text)
    except InvalidLyrics:
        return  # and by no other error
    again = parse_lrc(format_lrc(sheet, words=True))
    assert [line.text for line in again.lines] == [line.text for line in sheet.lines]
    assert all(0 <= line.start_ms <= line.end_ms <= LATEST_MS for line in lines_of(sheet))


def test_a_file_of_somebody_elses_is_read_as_players_read_it() -> None:
    text = (
        "\ufeff[ti: A Song ]\r\n[ar:Somebody]\r\n[offset:+500]\r\n\r\n"
        "[00:10.5][00:30.500]Again and again\r\n[00:12]Once\r\n[00:14.00]\r\n"
        "[00:20.25]<00:20.25>By <00:21.00>word\r\n"
    )
    sheet = parse_lrc(text)
    assert sheet.tags == (("ti", "A Song"), ("ar", "Somebody"))
    assert [(line.start_ms, line.end_ms, line.text) for line in sheet.lines] == [
        (10_000, None, "Again and again"), (11_500, 13_500, "Once"), (19_750, None, "By word"),
        (30_000, None, "Again and again"),
    ]  # fmt: skip
    assert sheet.lines[2].words == ((19_750, "By"), (20_500, "word"))
    lines = lines_of(sheet, duration_ms=31_000)
    assert [(line.start_ms, line.end_ms) for line in lines] == [
        (10_000, 11_500), (11_500, 13_500), (19_750, 30_000), (30_000, 31_000),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[00:01.00]a\n[00:61.00]b", 2, "61 seconds"),
        ("[00:01.00]a\nno time here", 2, "no time tag"),
        ("[00:01.00]a\n\n[0a:12]b", 3, "'[0a:12]b' is no time tag"),
        ("[00:01.00][00:1x]b", 1, "no time tag"),
        ("[offset:soon]\n[00:01.00]a", 1, "offset"),
        ("[00:01.00]<00:03.00>a <00:02.00>b", 1, "backwards"),
        ("[00:01.00]" + "a" * (MOST_LINE_CHARS + 1), 1, "characters"),
        ("[00:01.00]" * 101 + "a", 1, "time tags before one text"),
        ("[00:01.00]\n" + "[00:02.00]a\n" * 4001, 4001, "more than 2000 lines"),
        ("", None, "no line with a time tag"),
        ("[ti:only]\n[00:01.00]", None, "no line with a time tag"),
        ("x" * (MOST_BYTES + 1), None, "at most 512 kB"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_line(text: str, line: int | None, said: str) -> None:
    with pytest.raises(InvalidLyrics) as refused:
        parse_lrc(text)
    assert said in refused.value.message
    assert refused.value.line == line
    assert refused.value.message.startswith(f"line {line}: " if line else "")


LINES = [
    Line(1000, 3000, "one two", (Word("one", 1000, 2000, 0.9), Word("two", 2000, 3000, 0.8))),
    Line(4000, 6000, "three four", (Word("three", 4000, 5000), Word("four", 5000, 6000))),
    Line(7000, 9000, "five"),
]


@PATIENT
@given(st.integers(-900, 900))
def test_a_shift_there_and_back_changes_nothing(by_ms: int) -> None:
    assert shift(shift(LINES, by_ms), -by_ms) == LINES


def test_a_shift_takes_the_words_along_and_stops_at_the_songs_beginning() -> None:
    moved = shift(LINES, -2500)
    assert [(line.start_ms, line.end_ms) for line in moved] == [(0, 500), (1500, 3500), (4500, 6500)]
    assert [word.start_ms for line in moved for word in line.words] == [0, 0, 1500, 2500]


def test_a_text_with_as_many_words_keeps_their_times_and_any_other_does_not() -> None:
    same, other = fix(LINES, [Fix(0, text=" one   too "), Fix(1, text="three")])[:2]
    assert same.words == (Word("one", 1000, 2000, 0.9), Word("too", 2000, 3000, None))
    assert (same.text, other.text, other.words) == ("one too", "three", ())


def test_a_line_can_be_moved_ended_and_removed() -> None:
    fixed = fix(LINES, [Fix(2, start_ms=0), Fix(0, end_ms=2500), Fix(1, remove=True)])
    assert [(line.start_ms, line.end_ms, line.text) for line in fixed] == [
        (0, 2000, "five"), (1000, 2500, "one two"),
    ]  # fmt: skip
    assert fixed[1].words[-1] == Word("two", 2000, 2500, 0.8)


@pytest.mark.parametrize(
    ("fixes", "field"),
    [
        ([Fix(3, text="x")], "lines.0.index"),
        ([Fix(0, text="a"), Fix(-1, text="x")], "lines.1.index"),
        ([Fix(0, text=" \u2028 ")], "lines.0.text"),
        ([Fix(0, text="x" * 501)], "lines.0.text"),
        ([Fix(0, end_ms=999)], "lines.0.end_ms"),
        ([Fix(0, remove=True), Fix(0, text="x")], "lines.1.index"),
        ([Fix(at, remove=True) for at in range(3)], "lines"),
    ],
)
def test_a_fix_that_makes_no_sense_names_its_field(fixes: list[Fix], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        fix(LINES, fixes)
    assert refused.value.field == field


def test_lines_that_replace_all_are_cleaned_and_put_in_order() -> None:
    lines = replaced([Line(5000, 6000, "b\n[00:12.00]c"), Line(1000, 2000, " a ")])
    assert [line.text for line in lines] == ["a", "b (00:12.00]c"]
