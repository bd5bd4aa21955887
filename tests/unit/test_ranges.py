"""The Range header and the conditions around it: any text at all has a valid answer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.web.content.conditions import Validators
from app.web.content.ranges import MOST_CHARS, MOST_PIECES, Piece, Unsatisfiable, read_range

CONTENT = bytes(range(256)) * 2
SPEC = st.tuples(st.integers(0, 600) | st.none(), st.integers(0, 600) | st.none()).map(
    lambda ends: "-".join("" if end is None else str(end) for end in ends)
)
NEARLY = st.lists(SPEC | st.text("0123456789-, \t=bytes", max_size=8), max_size=10).map(
    lambda specs: "bytes=" + ",".join(specs)
)


@example("bytes=0-0", 1)
@example("bytes=5-2", 10)
@example("bytes=-0", 10)
@example("bytes=" + "9" * 500, 10)
@example("bytes=0-0," * 1000, 10)
@given(
    value=NEARLY | st.text(max_size=40) | st.text(max_size=40).map("bytes={}".format),
    size=st.integers(1, 512),
)
def test_whatever_is_asked_for_is_a_slice_of_the_file_or_refused(value: str, size: int) -> None:
    """Fault 25: never an exception, nothing twice, nothing outside."""
    content = CONTENT[:size]
    try:
        pieces = read_range(value, size)
    except Unsatisfiable:
        return
    assert len(pieces) <= MOST_PIECES
    assert sum(piece.size_bytes for piece in pieces) <= size
    for piece in pieces:
        assert 0 <= piece.start < piece.end <= size
        assert len(content[piece.start : piece.end]) == piece.size_bytes
        assert piece.content_range(size) == f"bytes {piece.start}-{piece.end - 1}/{size}"


@given(first=st.integers(0, 600), last=st.integers(0, 600), size=st.integers(1, 512))
def test_one_range_is_what_the_rfc_says(first: int, last: int, size: int) -> None:
    """Fault 25."""
    if last < first:
        assert read_range(f"bytes={first}-{last}", size) == []
    elif first >= size:
        with pytest.raises(Unsatisfiable):
            read_range(f"bytes={first}-{last}", size)
    else:
        assert read_range(f"BYTES={first}-{last}", size) == [Piece(first, min(last + 1, size))]
    if last:
        assert read_range(f"bytes=-{last}", size) == [Piece(max(0, size - last), size)]


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("bytes=0-0,2-2,1-1", [(0, 1), (2, 3), (1, 2)]),
        ("bytes=0-0,1-1,1-2", []),  # overlapping
        ("bytes=0-0,50-60", [(0, 1)]),  # the rest is not there
        ("bytes=,,0-0, ,", [(0, 1)]),
        (
            "bytes=" + ",".join(f"{n}-{n}" for n in range(MOST_PIECES)),
            [(n, n + 1) for n in range(MOST_PIECES)],
        ),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(MOST_PIECES + 1)), []),
        ("bytes=0-" + "0" * MOST_CHARS, []),
        ("bytes=²-3", []),
        ("bytes=1-3;q=1", []),
        ("chunks=0-1", []),
        (None, []),
    ],
)
def test_a_few_ranges_in_their_order_and_never_too_many(
    value: str | None, pieces: list[tuple[int, int]]
) -> None:
    """Fault 25."""
    assert read_range(value, 20) == [Piece(*each) for each in pieces]


@given(
    name=st.sampled_from(["if-match", "if-none-match", "if-range", "if-modified-since"]),
    value=st.text(max_size=60),
)
def test_no_condition_is_an_error(name: str, value: str) -> None:
    """Fault 25."""
    validators = Validators('"abc"', datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    headers = {name: value}
    told = (validators.is_unwanted(headers), validators.is_known(headers), validators.allow_ranges(headers))
    assert all(isinstance(each, bool) for each in told)


def test_a_version_is_named_by_its_tag_or_its_second() -> None:
    """Fault 25."""
    validators = Validators('"abc"', datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC))
    assert validators.last_modified == "Fri, 02 Jan 2026 03:04:05 GMT"
    assert validators.allow_ranges({"if-range": "Fri, 02 Jan 2026 03:04:05 GMT"})
    assert not validators.allow_ranges({"if-range": "Fri, 02 Jan 2026 03:04:06 GMT"})
    assert not validators.is_known(
        {"if-none-match": '"xabc", "ab"', "if-modified-since": validators.last_modified}
    )
    assert validators.is_known({"if-none-match": '"x", W/"abc"'})
