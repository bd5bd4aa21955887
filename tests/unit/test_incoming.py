"""What makes two pieces of news the same."""

from __future__ import annotations

import pytest

from app.incoming import Incoming, dedupe_key
from db.states import DeliverySource

ATTEMPT = "att_019a9c1f2c5e7d1b8f3a0123456789ab"
LATER = "att_019a9c1f2c5f7d1b8f3a0123456789ab"


def news(attempt_id: str = ATTEMPT, **values: object) -> Incoming:
    given: dict[str, object] = {"body": b"{}", "message_id": "msg_1", **values}
    return Incoming(DeliverySource.WEBHOOK, "replicate", attempt_id, **given)  # type: ignore[arg-type]


def test_the_same_message_has_the_same_key_whatever_it_says() -> None:
    assert dedupe_key(news()) == dedupe_key(news(body=b"other"))


@pytest.mark.parametrize(
    "other",
    [news(message_id="msg_2"), news(LATER), news(""), news(message_id=None), news(copy_of="dlv_1")],
    ids=["message", "attempt", "nobody's", "by its body", "a person's wish"],
)
def test_other_news_has_another_key(other: Incoming) -> None:
    assert dedupe_key(other) != dedupe_key(news())


@pytest.mark.parametrize(
    "attempt_id", [ATTEMPT, "", "att_bench", "att_" + "x" * 32, f"{ATTEMPT}\n"], ids=repr
)
def test_a_key_has_sixteen_bytes_whoever_it_is_about(attempt_id: str) -> None:
    assert len(dedupe_key(news(attempt_id))) == 16


def test_keys_of_one_attempt_lie_together_and_in_the_order_of_attempts() -> None:
    first, second = (dedupe_key(news(message_id=name)) for name in ("msg_1", "msg_2"))
    assert first[:6] == second[:6] == bytes.fromhex(ATTEMPT[4:16])
    assert max(first, second) < dedupe_key(news(LATER))
