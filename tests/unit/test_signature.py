"""Promises of `app.provider.signature`: two known vectors, and a table of everything a stranger may send."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import StartupError, Unauthenticated
from app.provider.signature import BadSignature, WebhookSecrets

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW_S = 1_614_265_330
NOW = datetime.fromtimestamp(NOW_S, UTC)
BODY = b'{"test": 2432232314}'
GOOD = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
VECTORS = [
    (SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", NOW_S, BODY, GOOD),
    (
        OTHER,
        "msg_2b6f",
        1_700_000_000,
        b'{"id":"ufawqhfynnddngldkgtslldrkq","status":"succeeded",'
        b'"output":"https://replicate.delivery/pbxt/abc/out.wav"}',
        "v1,Pt1hSHblIpejA1Jz7mKuBZKGS18wkcL0eL4LPMLsnt8=",
    ),
]


def headers(**changed: str) -> dict[str, str]:
    base = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": GOOD,
    }
    return base | {f"webhook-{name}": value for name, value in changed.items()}


def verify(sent: dict[str, str], body: bytes = BODY, *secrets: str, now: datetime = NOW) -> str:
    return WebhookSecrets(secrets or (SECRET,)).verify(sent, body, now=now, tolerance_s=300)


def reason(sent: dict[str, str], body: bytes = BODY, *secrets: str, now: datetime = NOW) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verify(sent, body, *secrets, now=now)
    assert str(caught.value) == "the webhook could not be verified"
    assert isinstance(caught.value, BadSignature)
    assert caught.value.reason
    return caught.value.reason


def raw_signature(message_id: str, timestamp: str, body: bytes, secret: str = SECRET) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


@pytest.mark.parametrize(("secret", "message_id", "timestamp_s", "body", "signature"), VECTORS)
def test_known_vectors_are_signed_and_verified(
    secret: str, message_id: str, timestamp_s: int, body: bytes, signature: str
) -> None:
    secrets = WebhookSecrets([secret])
    sent = {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signature,
    }
    now = datetime.fromtimestamp(timestamp_s, UTC)
    assert secrets.sign(message_id, timestamp_s, body) == signature
    assert secrets.verify(sent, body, now=now, tolerance_s=300) == message_id


@pytest.mark.parametrize("name", ["id", "timestamp", "signature"])
def test_a_missing_empty_or_doubled_header_is_refused(name: str) -> None:
    absent = headers()
    value = absent.pop(f"webhook-{name}")
    reason(absent)
    reason(headers(**{name: ""}))
    reason(headers(**{name: f"{value}, {value}"}))
    reason(headers(**{name: f"{value},{value}"}))
    reason(headers(**{name: value + "x" * 65_536}))


@pytest.mark.parametrize(
    "signature",
    [
        "v1",
        "v1,",
        ",",
        "v1,a,b",
        GOOD + "," + GOOD,
        "v1,AAAA  " + GOOD,
        " " + GOOD,
        GOOD + " ",
        "v1,!!!not-base64",
        "v1,é",
        "v1\t" + GOOD,
        "v1a,AAAA",
        GOOD.replace("v1,", "v1a,"),
        GOOD.replace("v1,", "v2,"),
        GOOD.replace("v1,", "V1,"),
        GOOD.rstrip("="),
        GOOD.replace("g0h", "g0i"),
        "v1,\ud800",
        " ".join(["v1,AAAA"] * 8 + [GOOD]),
    ],
)
def test_a_malformed_or_wrong_signature_list_is_refused(signature: str) -> None:
    reason(headers(signature=signature))


@pytest.mark.parametrize(
    "signature",
    ["v1a,AAAA " + GOOD, "v2,AAAA v1,AAAA " + GOOD, GOOD + " v1,", " ".join(["v1,AAAA"] * 7 + [GOOD])],
)
def test_a_good_entry_counts_wherever_it_stands_among_eight(signature: str) -> None:
    assert verify(headers(signature=signature))


@pytest.mark.parametrize(
    "text",
    [
        "nan", "inf", "-inf", "1e9", "1_614_265_330", f" {NOW_S} ", f"{NOW_S}.0", f"-{NOW_S}", f"+{NOW_S}",
        f"0{NOW_S}", str(2**70), "9" * 12, "٣", "²", "0x60", "", f"{NOW_S}\n",
    ],
)  # fmt: skip
def test_a_timestamp_is_plain_digits(text: str) -> None:
    signed = raw_signature("msg_p5jXN8AQM9LWM0D4loKWxJek", text, BODY)
    reason(headers(timestamp=text, signature=signed))


@pytest.mark.parametrize("off_s", [-300, -299, 0, 299, 300])
def test_the_tolerance_is_inclusive_both_ways(off_s: int) -> None:
    assert verify(headers(), now=datetime.fromtimestamp(NOW_S + off_s, UTC))


@pytest.mark.parametrize(("off_s", "word"), [(-301, "301 s too new"), (301, "301 s too old")])
def test_past_the_tolerance_is_refused_with_the_skew_for_the_operator(off_s: int, word: str) -> None:
    assert word in reason(headers(), now=datetime.fromtimestamp(NOW_S + off_s, UTC))


def test_a_wide_tolerance_does_not_let_foreign_errors_out() -> None:
    signed = raw_signature("m", "9" * 12, BODY)
    sent = {"webhook-id": "m", "webhook-timestamp": "9" * 12, "webhook-signature": signed}
    with pytest.raises(BadSignature):
        WebhookSecrets([SECRET]).verify(sent, BODY, now=NOW, tolerance_s=1e15)


def test_any_of_several_secrets_verifies_and_a_retired_or_unknown_one_does_not() -> None:
    assert verify(headers(), BODY, OTHER, SECRET)
    reason(headers(), BODY, OTHER)


def test_each_signed_part_is_bound() -> None:
    reason(headers(id="msg_other"))
    reason(headers(timestamp=str(NOW_S + 1)))
    reason(headers(), BODY + b" ")


@pytest.mark.parametrize("message_id", ["a b", "a,b", "é", "a\x00", "x" * 256])
def test_a_message_id_is_short_printable_ascii(message_id: str) -> None:
    reason(headers(id=message_id, signature=raw_signature(message_id, str(NOW_S), BODY)))


@pytest.mark.parametrize("body", [b"\xff\xfe", b"\x80", b"\xed\xa0\x80"])
def test_a_body_that_is_not_utf8_is_refused_even_when_signed(body: bytes) -> None:
    signed = raw_signature("msg_p5jXN8AQM9LWM0D4loKWxJek", str(NOW_S), body)
    assert "UTF-8" in reason(headers(signature=signed), body)


def test_the_body_is_not_parsed_here() -> None:
    body = b'{"a": NaN, "a": 1'
    signed = raw_signature("msg_p5jXN8AQM9LWM0D4loKWxJek", str(NOW_S), body)
    assert verify(headers(signature=signed), body)


@pytest.mark.parametrize(
    "bad",
    ["", "whsec_", "whsec_!!!", "whsec_whsec_AAAA", "whsec_A", "whsec_AA$AA", SECRET[6:], "whsec_é", "v1,x"],
)
def test_a_bad_secret_stops_the_start_and_is_named_by_position_only(bad: str) -> None:
    with pytest.raises(StartupError) as caught:
        WebhookSecrets([SECRET, bad])
    assert "number 2" in caught.value.message
    assert len(bad) < 7 or bad[6:] not in caught.value.message


def test_no_secret_and_too_many_secrets_stop_the_start() -> None:
    with pytest.raises(StartupError):
        WebhookSecrets([])
    with pytest.raises(StartupError):
        WebhookSecrets([SECRET] * 9)


def test_an_unpadded_secret_is_taken() -> None:
    assert WebhookSecrets(["whsec_AAECAw"]).sign("m", 1, b"{}") == WebhookSecrets(["whsec_AAECAw=="]).sign(
        "m", 1, b"{}"
    )


def test_a_rotation_signs_with_both_secrets() -> None:
    signed = WebhookSecrets([OTHER, SECRET]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", NOW_S, BODY)
    assert signed.split(" ")[1] == GOOD
    assert verify(headers(signature=signed))


@settings(max_examples=150, deadline=None)
@given(
    message_id=st.text(max_size=20) | st.just("m"),
    timestamp=st.text(max_size=14) | st.just(str(NOW_S)),
    signature=st.text(max_size=80)
    | st.lists(st.sampled_from(["v1", ",", " ", "AAAA", "v2,", "="])).map("".join),
    body=st.binary(max_size=40),
)
def test_whatever_is_sent_unsigned_ends_in_one_refusal(
    message_id: str, timestamp: str, signature: str, body: bytes
) -> None:
    reason(headers(id=message_id, timestamp=timestamp, signature=signature), body)
