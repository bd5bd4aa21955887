"""Keys: how one looks, how it is read from a header, and what is taken for one in an address."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access.keys import (
    KeyInAddress,
    digest_of,
    looks_like_key,
    make_key,
    read_bearer,
    refuse_in_address,
)
from app.logs import REDACTED, redact


def test_a_key_is_one_that_was_made_here_and_is_unlike_every_other() -> None:
    made = [make_key() for _ in range(200)]
    assert len({each.text for each in made}) == len({each.prefix for each in made}) == 200
    for each in made:
        assert looks_like_key(each.text)
        assert each.text.startswith(f"{each.prefix}_")
        assert each.digest == digest_of(each.text)
        assert each.text not in repr(each)
        assert read_bearer(f"Bearer {each.text}") == each.text


@given(st.text())
def test_no_text_breaks_the_reading_of_a_key(text: str) -> None:
    assert len(digest_of(text)) == 64
    assert read_bearer(text) is None or " " not in str(read_bearer(text))
    assert not looks_like_key(text) or len(text) == 57


@given(st.text(alphabet="bBeEaArR _rpx0\t\n\r\0é", max_size=250))
def test_a_header_is_a_bearer_with_one_word_or_none(header: str) -> None:
    word = read_bearer(header)
    if word is not None:
        assert word
        assert " " not in word
        assert header.lower().startswith("bearer ")
        assert len(header) <= 200


@given(st.integers(0, 56), st.characters())
def test_a_key_with_one_character_changed_has_another_digest(at: int, other: str) -> None:
    text = make_key().text
    changed = text[:at] + other + text[at + 1 :]
    assert changed == text or digest_of(changed) != digest_of(text)


@pytest.mark.parametrize("extra", ["", "a=1&", "q=words&limit=5&"])
def test_a_key_in_an_address_is_refused_however_it_is_written(extra: str) -> None:
    """Fault 17."""
    text = make_key().text
    hidden = "".join(f"%{ord(char):02x}" for char in text)
    for query in (f"x={text}", text, f"api_key={text}", f"x={hidden}", f"x={quote(text, safe='')}"):
        with pytest.raises(KeyInAddress):
            refuse_in_address(extra + query)
    for name in ("api_key", "API_KEY", "access_token", "key", "%6bey", "Authorization"):
        with pytest.raises(KeyInAddress):
            refuse_in_address(f"{extra}{name}=x")
    refuse_in_address(extra.rstrip("&"))


@given(st.text())
def test_an_address_is_refused_or_not_and_never_an_error_of_ours(query: str) -> None:
    with suppress(KeyInAddress):
        refuse_in_address(query)


def test_a_key_in_a_log_line_is_replaced() -> None:
    text = make_key().text
    line = redact(None, "info", {"event": f"asked with {text} twice", "more": [text]})
    assert text not in str(line)
    assert REDACTED in str(line)
