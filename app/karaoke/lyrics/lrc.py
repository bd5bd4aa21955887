"""LRC, the file format of synced lyrics, read and written. Pure.

A file is `[mm:ss.xx]text` lines, with `[ti:…]` tags before them; the enhanced form has `<mm:ss.xx>` before
each word and the line's end after the last. A time tag with no text ends the line before it. What is written
here is read back as it was, to the hundredth of a second (`parse(format(sheet)) == sheet`, by test).

Foreign files are read as players read them: a line with several time tags stands at each of them,
`[offset:+ms]` makes all lines earlier, times may have one to three digits of fraction. What cannot be read
is refused with the number of the line: half of somebody's lyrics would be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.errors import InvalidInput
from app.karaoke.lyrics.lines import LAST_LINE_MS, LATEST_MS, MOST_LINE_CHARS, MOST_LINES, Line, Word, clean

MOST_BYTES = 512 * 1024
MOST_TAG_CHARS = 200
MOST_REPEATS = 100
"""Time tags before one text."""

_TIME = r"(\d{1,3}):(\d{1,2})(?:[.:](\d{1,3}))?"
_LINE_TAG = re.compile(rf"\s*\[{_TIME}\]")
_WORD_TAG = re.compile(rf"<{_TIME}>")
_ID_TAG = re.compile(r"\[([A-Za-z#][A-Za-z_#]{0,31}):(.*)\]", re.DOTALL)
_LIKE_A_TAG = re.compile(r"\[\s*\d+\s*[:.]\s*\d")
_OFFSET = re.compile(r"[+-]?\d{1,7}")


class InvalidLyrics(InvalidInput):
    """The LRC text cannot be read; the message names the line."""

    code = "invalid_lyrics"

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(f"line {line}: {message}" if line else message, field="lrc")
        self.line = line


@dataclass(frozen=True, slots=True)
class SheetLine:
    """A line as a file has it. `end_ms` is None where the file does not say: until the next one."""

    start_ms: int
    text: str
    words: tuple[tuple[int, str], ...] = ()
    """Each word with its start; empty where the file has none."""
    end_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file: its lines by time, and the tags before them by their names in lower case."""

    lines: tuple[SheetLine, ...]
    tags: tuple[tuple[str, str], ...] = ()


def sheet_of(lines: Sequence[Line], *, tags: Sequence[tuple[str, str]] = ()) -> Sheet:
    """What a file can say of these lines: hundredths of a second, ends where the next line does not tell."""
    made = []
    for at, line in enumerate(lines):
        start, end = _hundredths(line.start_ms), _hundredths(line.end_ms)
        following = _hundredths(lines[at + 1].start_ms) if at + 1 < len(lines) else None
        says_end = end > start and (following is None or end < following)
        words = tuple((_hundredths(word.start_ms), word.text) for word in line.words)
        made.append(SheetLine(start, line.text, words, end if says_end else None))
    return Sheet(tuple(made), tuple(tags))


def lines_of(sheet: Sheet, *, duration_ms: int | None = None) -> list[Line]:
    """Lines of a file: each ends where it says, else where the next begins, else after LAST_LINE_MS."""
    made = []
    for at, each in enumerate(sheet.lines):
        following = sheet.lines[at + 1].start_ms if at + 1 < len(sheet.lines) else None
        end = each.end_ms
        if end is None:
            end = following if following is not None else each.start_ms + LAST_LINE_MS
            if following is None and duration_ms is not None:
                end = max(each.start_ms, min(end, duration_ms))
        starts = [start for start, _ in each.words] + [end]
        words = tuple(
            Word(text, start, max(start, until))
            for (start, text), until in zip(each.words, starts[1:], strict=True)
        )
        made.append(Line(each.start_ms, max(each.start_ms, end), each.text, words))
    return made


def format_lrc(sheet: Sheet, *, words: bool = False) -> str:
    """The file; with `words` in the enhanced form where the words of a line are timed."""
    rows = [f"[{name}:{value}]" for name, value in sheet.tags]
    for line in sheet.lines:
        is_enhanced = words and line.words
        text = " ".join(f"<{_tag(start)}>{word}" for start, word in line.words) if is_enhanced else line.text
        if is_enhanced and line.end_ms is not None:
            text += f" <{_tag(line.end_ms)}>"
        rows.append(f"[{_tag(line.start_ms)}]{text}")
        if line.end_ms is not None and not is_enhanced:
            rows.append(f"[{_tag(line.end_ms)}]")
    return "".join(f"{row}\n" for row in rows)


def parse_lrc(text: str) -> Sheet:
    """The file's lines by time. Raises InvalidLyrics."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise InvalidLyrics(f"lyrics may have at most {MOST_BYTES // 1024} kB")
    reading = _Reading([], {}, 0)
    for number, row in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), 1):
        _read_row(row.strip(), number, reading)
    # Stable: of two lines at one time the file's order counts; an end stands before what begins then.
    found = sorted(reading.lines, key=lambda line: (line.start_ms, bool(line.text)))
    lines = _with_ends(found)
    if not lines:
        raise InvalidLyrics("there is no line with a time tag such as [00:12.34] and a text")
    if reading.offset_ms:
        lines = [_earlier(line, reading.offset_ms) for line in lines]
    return Sheet(tuple(lines), tuple(reading.tags.items()))


@dataclass(slots=True)
class _Reading:
    lines: list[SheetLine]
    """Those without a text are ends."""
    tags: dict[str, str]
    offset_ms: int


def _read_row(row: str, number: int, reading: _Reading) -> None:
    if not row:
        return
    starts, rest = _leading_times(row, number)
    if not starts:
        _read_tag(row, number, reading)
        return
    line = _read_text(rest, number)
    for start in starts:
        by = start - starts[0]
        words = tuple((at + by, word) for at, word in line.words)
        end = None if line.end_ms is None else line.end_ms + by
        reading.lines.append(SheetLine(start, line.text, words, end))
    if len(reading.lines) > 2 * MOST_LINES:
        raise InvalidLyrics(f"more than {MOST_LINES} lines", line=number)


def _leading_times(row: str, number: int) -> tuple[list[int], str]:
    starts, at = [], 0
    while tag := _LINE_TAG.match(row, at):
        starts.append(_ms(tag, number))
        at = tag.end()
    if len(starts) > MOST_REPEATS:
        raise InvalidLyrics(f"more than {MOST_REPEATS} time tags before one text", line=number)
    rest = row[at:].strip()
    if starts and _LIKE_A_TAG.match(rest):
        raise InvalidLyrics(f"{rest[:20]!r} is no time tag such as [00:12.34]", line=number)
    return starts, rest


def _read_tag(row: str, number: int, reading: _Reading) -> None:
    tag = _ID_TAG.fullmatch(row)
    if tag is None:
        if row.startswith("["):
            raise InvalidLyrics(f"{row[:20]!r} is no time tag such as [00:12.34]", line=number)
        raise InvalidLyrics("there is no time tag such as [00:12.34] before the text", line=number)
    name, value = tag[1].lower(), clean(tag[2])[:MOST_TAG_CHARS].rstrip()
    if name != "offset":
        if len(reading.tags) < 50:
            reading.tags[name] = value
        return
    if not _OFFSET.fullmatch(value):
        raise InvalidLyrics("offset is a number of milliseconds such as [offset:+500]", line=number)
    reading.offset_ms = int(value)


def _read_text(rest: str, number: int) -> SheetLine:
    """A line's text with its words, all as from the time tag that it was written for."""
    tags = list(_WORD_TAG.finditer(rest))
    text = clean(_WORD_TAG.sub(" ", rest))
    if len(text) > MOST_LINE_CHARS:
        raise InvalidLyrics(f"a line may have at most {MOST_LINE_CHARS} characters", line=number)
    words: list[tuple[int, str]] = []
    end = None
    for at, tag in enumerate(tags):
        until = tags[at + 1].start() if at + 1 < len(tags) else len(rest)
        word, start = clean(rest[tag.end() : until]), _ms(tag, number)
        if words and start < words[-1][0]:
            raise InvalidLyrics("the times of its words go backwards", line=number)
        if word:
            words.append((start, word))
        elif at + 1 == len(tags) and words:
            end = start
    if tags and clean(rest[: tags[0].start()]):
        # Words before the first tag have no time: then the line alone is timed.
        words = []
    return SheetLine(0, text, tuple(words), end)


def _with_ends(found: Sequence[SheetLine]) -> list[SheetLine]:
    """A time tag without a text ends the line before it, where that has no end of its own."""
    lines: list[SheetLine] = []
    for each in found:
        if each.text:
            lines.append(each)
        elif lines and lines[-1].end_ms is None and each.start_ms > lines[-1].start_ms:
            lines[-1] = replace(lines[-1], end_ms=each.start_ms)
    if len(lines) > MOST_LINES:
        raise InvalidLyrics(f"more than {MOST_LINES} lines")
    return lines


def _earlier(line: SheetLine, by_ms: int) -> SheetLine:
    def moved(ms: int) -> int:
        return min(max(ms - by_ms, 0), LATEST_MS)

    words = tuple((moved(start), word) for start, word in line.words)
    end = None if line.end_ms is None else moved(line.end_ms)
    return SheetLine(moved(line.start_ms), line.text, words, end)


def _ms(tag: re.Match[str], number: int) -> int:
    minutes, seconds, fraction = int(tag[1]), int(tag[2]), tag[3] or ""
    if seconds >= 60:
        raise InvalidLyrics(f"{tag[0].strip()!r} has {seconds} seconds in a minute", line=number)
    return (minutes * 60 + seconds) * 1000 + int(fraction.ljust(3, "0"))


def _tag(ms: int) -> str:
    hundredths = ms // 10
    return f"{hundredths // 6000:02d}:{hundredths // 100 % 60:02d}.{hundredths % 100:02d}"


def _hundredths(ms: int) -> int:
    return (ms + 5) // 10 * 10
