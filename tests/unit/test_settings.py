"""Settings: every name of the contract is read, a wrong value stops the start with one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import StartupError
from app.settings import Settings, load_settings

CONTRACT = """
    DATABASE_URL STORAGE_URL PUBLIC_URL REPLICATE_API_TOKEN REPLICATE_BASE_URL REPLICATE_WEBHOOK_SECRET
    COG_URLS WEBHOOK_TOLERANCE_S REPLICATE_WEBHOOK_TIMEOUT REPLICATE_SOUND_EFFECTS_TIMEOUT
    REPLICATE_DOWNLOAD_TIMEOUT REPLICATE_FFMPEG_TIMEOUT REPLICATE_MAX_FILE_SIZE REPLICATE_SILENCE_THRESHOLD
    DB_POOL_SIZE DB_MAX_OVERFLOW DB_POOL_RECYCLE DB_STATEMENT_TIMEOUT CORS_ALLOWED_ORIGINS
    MAX_CONTENT_LENGTH RETENTION_S FFMPEG_BINARY OUTBOUND_ALLOW LOG_FORMAT LOG_LEVEL
"""


@pytest.mark.parametrize("name", CONTRACT.split())
def test_every_name_of_the_contract_is_a_setting_with_a_description(name: str) -> None:
    assert Settings.model_fields[name.lower()].description


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mongodb://x"),
        ("DATABASE_URL", "sqlite:///x"),
        ("DATABASE_URL", "mysql+pymysql://reprise@db/x"),
        ("STORAGE_URL", "ftp://x"),
        ("PUBLIC_URL", "reprise.example"),
        ("COG_URLS", "speech=gopher://x"),
        ("WEBHOOK_TOLERANCE_S", "soon"),
        ("WEBHOOK_TOLERANCE_S", "0"),
        ("REPLICATE_MAX_FILE_SIZE", "-1"),
        ("REPLICATE_SILENCE_THRESHOLD", "60dB; rm"),
        ("DB_POOL_SIZE", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("RETENTION_S", "0"),
        ("REPLICATE_MODELS", "not json"),
    ],
)
def test_a_wrong_value_stops_the_start_with_one_line_that_names_it(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as caught:
        load_settings(_env_file=None)
    assert caught.value.message.startswith(name)
    assert "\n" not in caught.value.message


def test_a_wrong_secret_is_not_repeated_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://reprise:canary-password@db/x")
    with pytest.raises(StartupError) as caught:
        load_settings(_env_file=None)
    assert "canary-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "is_shared"),
    [
        ("sqlite+aiosqlite:///x.db", False),
        ("mysql+asyncmy://reprise@db/x", False),
        ("mariadb+asyncmy://reprise@db/x", False),
        ("postgresql+asyncpg://reprise@db/x", True),
    ],
)
def test_only_postgresql_is_for_many_processes(url: str, is_shared: bool) -> None:
    assert load_settings(_env_file=None, database_url=url).is_shared is is_shared


def test_lists_are_split_at_commas_and_blanks(tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, outbound_allow="10.0.0.0/8, fake.test:8080")
    assert settings.outbound_allow == ("10.0.0.0/8", "fake.test:8080")


def test_cog_urls_are_one_for_all_or_one_a_kind() -> None:
    settings = load_settings(_env_file=None, cog_urls="speech=http://a:1/, http://b:2")
    assert settings.cog_urls_by_kind == {"speech": "http://a:1", "*": "http://b:2"}


def test_settings_cannot_be_changed_once_read() -> None:
    settings = load_settings(_env_file=None)
    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "debug"  # type: ignore[misc]


def test_a_secret_does_not_show_when_settings_are_printed() -> None:
    settings = load_settings(
        _env_file=None, replicate_api_token="r8_canary", replicate_webhook_secret="whsec_canary"
    )
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings.model_dump())
