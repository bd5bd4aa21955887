"""Logs: secrets never reach a line, whether they come by key, by shape or inside a longer text."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from app.logs import REDACTED, configure_logs, redact


@pytest.mark.parametrize(
    "key", ["token", "api_token", "webhook_secret", "Authorization", "signature", "db_password", "cookie"]
)
def test_a_value_with_a_secret_key_is_replaced(key: str) -> None:
    assert redact(None, "info", {key: "canary"})[key] == REDACTED


@pytest.mark.parametrize(
    "text",
    [
        "key whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD in use",
        "r8_abcdefgh12345678",
        "GET /v1/webhooks/cog/att_1?token=0123456789abcdef HTTP/1.1",
        "/v1/assets/x/content?expires=1&signature=deadbeef",
        "Bearer abc.def.ghi",
        "https://bucket.test/a.wav?X-Amz-Expires=1&X-Amz-Signature=deadbeef",
        "https://store.test/a.wav?se=1&sig=deadbeef",
        "postgresql+asyncpg://user:hunter2@db/x",
        "data:audio/wav;base64," + "A" * 100,
    ],
)
def test_a_secret_inside_a_text_is_replaced(text: str) -> None:
    cleaned = redact(None, "info", {"event": text})["event"]
    assert REDACTED in cleaned
    for secret in ("whsec_C2", "r8_abc", "0123456789abcdef", "deadbeef", "abc.def", "hunter2", "AAAA"):
        assert secret not in cleaned


def test_a_secret_inside_a_list_or_a_table_is_replaced() -> None:
    cleaned = redact(None, "info", {"seen": ["Bearer canary.x", {"token": "canary", "n": 1}]})["seen"]
    assert cleaned == [f"Bearer {REDACTED}", {"token": REDACTED, "n": 1}]


def test_a_library_that_logs_passes_the_same_redaction(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("json", "info")
    try:
        logging.getLogger("somebody").warning("calling with Bearer canary.token")
        structlog.get_logger().info("mine", token="canary")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    assert [line["event"] for line in lines] == [f"calling with Bearer {REDACTED}", "mine"]
    assert "canary" not in json.dumps(lines)
