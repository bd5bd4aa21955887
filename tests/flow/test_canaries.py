"""Fault 71: no secret of the service ever comes out of it, whatever goes wrong (I7).

A real `reprise serve` at LOG_LEVEL=debug on PostgreSQL and a bucket, with a word of its own in the place of
every secret. It is led through successes and every trouble that this side can make, and then everything that
it wrote, answered or stored is searched for those words.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from starlette.responses import JSONResponse

from tests.conftest import TEMPLATE, Bucket, PostgresServer
from tests.crash.child import free_port, until
from tests.fakes.provider import FakeReplicate, served
from tests.flow.conftest import TONE, tone
from tests.flow.test_cli import ROOT, environment

LIMIT_S = 60.0


def canary(name: str) -> str:
    return f"canary{name}{secrets.token_hex(8)}"


def webhook_secret(name: str) -> str:
    return "whsec_" + base64.b64encode(canary(name).encode().ljust(27, b"!")).decode()


@dataclass
class Aviary:
    """The words, by what they stand for."""

    provider_token: str = field(default_factory=lambda: f"r8_{canary('token')}")
    webhook_new: str = field(default_factory=lambda: webhook_secret("new"))
    webhook_old: str = field(default_factory=lambda: webhook_secret("old"))
    auth_token: str = field(default_factory=lambda: canary("auth"))
    hub_token: str = field(default_factory=lambda: f"hf_{canary('hub')}")
    database_password: str = field(default_factory=lambda: canary("dbpass"))
    bucket_key: str = field(default_factory=lambda: canary("bucketkey"))
    output_signature: str = field(default_factory=lambda: canary("outsig"))
    caller_key: str = field(default_factory=lambda: canary("bearer"))
    callback_token: str = field(default_factory=lambda: canary("callback"))
    callback_password: str = field(default_factory=lambda: canary("receiver"))
    access_key: str = field(default_factory=lambda: canary("accesskey"))
    """The text of a real key, once there is one."""

    def settings(self) -> dict[str, str]:
        return {
            "REPLICATE_API_TOKEN": self.provider_token,
            "REPLICATE_WEBHOOK_SECRET": f"{self.webhook_new} {self.webhook_old}",
            "WEBHOOK_AUTH_TOKEN": self.auth_token,
            "HF_TOKEN": self.hub_token,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": self.bucket_key,
        }

    def found_in(self, text: str) -> list[str]:
        """The names of those that are in the text, plain, quoted or in base64."""
        found = []
        for name, word in vars(self).items():
            inner = word.removeprefix("whsec_").removeprefix("r8_").removeprefix("hf_")
            if any(each in text for each in (inner, quote(inner, safe=""), inner[:-4])):
                found.append(name)
        return found


@dataclass
class Session:
    """A service that runs, everything that it has answered, and what it wrote."""

    url: str
    client: httpx.AsyncClient
    fake: FakeReplicate
    folder: Path
    settings: dict[str, str]
    answers: list[str] = field(default_factory=list)

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        reply = await self.client.request(method, path, **request)
        asked = f"{method} {path.partition('?')[0]}"
        self.answers.append(f"{asked} {reply.status_code} {dict(reply.headers)}\n{reply.text}")
        return reply

    async def job(self) -> str:
        body = {"kind": "sound_effect", "input": {"prompt": "rain", "duration_s": 1}}
        return str((await self.ask("POST", "/v1/jobs", json=body)).json()["id"])

    async def predicted(self, count: int) -> str:
        await until(lambda: len(self.fake.predictions) >= count, LIMIT_S)
        return list(self.fake.predictions)[-1]

    async def ended(self, job_id: str) -> str:
        async with asyncio.timeout(LIMIT_S):
            while True:
                job = (await self.ask("GET", f"/v1/jobs/{job_id}", params={"wait": 5})).json()
                if job["finished_at"]:
                    return str(job["state"])

    async def command(self, *words: str) -> None:
        """What a command of ours prints, with the same secrets in its environment."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", *words,
            cwd=self.folder, env=self.settings, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(LIMIT_S):
            said, _ = await process.communicate()
        self.answers.append(f"{words}\n{said.decode()}")


@asynccontextmanager
async def serving(folder: Path, database_url: str, words: Aviary) -> AsyncIterator[Session]:
    fake, port = FakeReplicate(token=words.provider_token, secret=words.webhook_old), free_port()
    url = f"http://127.0.0.1:{port}"
    async with (
        served(fake) as base_url,
        httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client,
    ):
        settings = environment(
            folder,
            **{**words.settings(), "DATABASE_URL": database_url, "STORAGE_URL": "s3://assets"},
            LOG_LEVEL="debug", LOG_FORMAT="json", OUTBOUND_ALLOW="127.0.0.1",
            PUBLIC_URL=url, REPLICATE_BASE_URL=base_url,
            AWS_ENDPOINT_URL=os.environ["AWS_ENDPOINT_URL"], AWS_REGION="eu-west-1",
            SILENCE_S="1", RECOVERY_INTERVAL_S="1", MAX_ATTEMPTS="2", STORAGE_RETRIES="0",
        )  # fmt: skip
        fake.hooks = client
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app", "serve", "--no-gpu-worker", "--port", str(port),
                cwd=folder, env=settings, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            await until(lambda: url in (folder / "log").read_text(), LIMIT_S)
            yield Session(url, client, fake, folder, settings)
        except BaseException:
            sys.stderr.write((folder / "log").read_text()[-6000:])
            raise
        finally:
            process.terminate()
            try:
                async with asyncio.timeout(LIMIT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


KEPT = [("jobs", "callback_url"), ("endpoints", "url"), ("announcements", "url")]
"""The columns that hold a receiver's whole address, password included: it is needed to send there."""


async def rows_as_text(dsn: str) -> dict[str, str]:
    """Every column of every table that holds text or JSON, but the installation's own secrets and `KEPT`."""
    connection = await asyncpg.connect(dsn)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND data_type IN ('text', 'character varying', 'json', 'jsonb', 'ARRAY') "
            "AND table_name <> 'secrets'"
        )
        return {
            f"{table}.{column}": "\n".join(
                str(row[0]) for row in await connection.fetch(f'SELECT "{column}"::text FROM "{table}"')
            )
            for table, column in columns
            if (table, column) not in KEPT
        }
    finally:
        await connection.close()


async def test_no_secret_comes_out_whatever_goes_wrong(
    tmp_path: Path, postgres: PostgresServer, bucket: Bucket
) -> None:
    """Fault 71."""
    assert ROOT.exists()
    words, name = Aviary(), f"test_{secrets.token_hex(6)}"
    await asyncio.to_thread(postgres.create, name, TEMPLATE)
    plain = f"postgres@127.0.0.1:{postgres.port}/{name}"
    database_url = f"postgresql+asyncpg://{plain.replace('@', f':{words.database_password}@', 1)}"
    dropped = False
    try:
        async with serving(tmp_path, database_url, words) as session:
            await succeed(session, words)
            await fail(session, words, bucket)
            await lock_the_door(session, words)
            await tell_a_receiver(session, words)
            await look_everywhere(session)
            rows = await rows_as_text(f"postgresql://{plain}")
            await break_the_schema(session, f"postgresql://{plain}")
            await asyncio.to_thread(postgres.drop, name)
            dropped = True
            await lose_the_database(session)
    finally:
        if not dropped:
            await asyncio.to_thread(postgres.drop, name)
    log = (tmp_path / "log").read_text()
    # Not `in` within an assert: its explanation of two megabytes takes minutes.
    has_trouble, has_debug = "Traceback" in log, bool(re.search('"level": ?"debug"', log))
    assert has_trouble, "nothing was provoked that has a traceback"
    assert has_debug
    assert len(rows) > 20
    leaks = {where: found for where, text in rows.items() if (found := words.found_in(text))}
    leaks |= {line[:300]: found for line in log.splitlines() if (found := words.found_in(line))}
    leaks |= {each[:300]: found for each in session.answers if (found := words.found_in(each))}
    if leaks:
        pytest.fail(json.dumps(leaks, indent=1)[:4000], pytrace=False)


async def succeed(session: Session, words: Aviary) -> None:
    job_id = await session.job()
    prediction_id = await session.predicted(1)
    place = session.fake.keep_output("a.wav", tone())
    await session.fake.finish(prediction_id, output=f"{place}?signature={words.output_signature}")
    assert await session.ended(job_id) == "succeeded"
    for accept in ("application/json", "text/event-stream"):
        await session.ask("GET", f"/v1/jobs/{job_id}/events", headers={"accept": accept})


async def fail(session: Session, words: Aviary, bucket: Bucket) -> None:
    """Every trouble that a provider, a store, a caller and a forger can make."""
    signed = f"signature={words.output_signature}&token={words.output_signature}"
    places = [
        f"http://10.0.0.1/x?{signed}",
        f"https://user:{words.output_signature}@example.com/x",
        f"{session.fake.base_url}/outputs/none.wav?{signed}",
        f"ftp://example.com/x?{signed}",
    ]
    for output in places:
        job_id = await session.job()
        await session.fake.finish(await session.predicted(len(session.fake.predictions) + 1), output=output)
        await session.ask("POST", f"/v1/jobs/{job_id}/cancel")
    bucket.refuse, bucket.code = lambda asked: asked.method == "PUT", "SignatureDoesNotMatch"
    job_id = await session.job()
    await session.fake.finish(await session.predicted(len(session.fake.predictions) + 1), output=TONE)
    await session.ask("GET", f"/v1/jobs/{job_id}", params={"wait": 2})
    await session.ask("GET", "/readyz")
    bucket.refuse = None
    session.fake.script("create", JSONResponse({"detail": "Unauthenticated"}, 401))
    job_id = await session.job()
    await session.ask("GET", f"/v1/jobs/{job_id}", params={"wait": 2})
    bearer = {"authorization": f"Bearer {words.caller_key}", "x-api-key": words.caller_key}
    await session.ask("POST", "/v1/jobs", headers=bearer, json={"kind": "none"})
    await session.ask("POST", "/v1/jobs", headers=bearer, content=b"{")
    await session.ask("GET", "/v1/jobs/none", headers=bearer)
    for path in ("replicate/att_1", "cog/att_1"):
        forged = {
            "webhook-id": "m",
            "webhook-timestamp": "1",
            "webhook-signature": f"v1,{words.callback_token}",
        }
        address = f"/v1/webhooks/{path}?token={words.callback_token}"
        await session.ask("POST", address, headers={**forged, **bearer}, content=b"{}")
    await session.ask("GET", f"/v1/assets/ast_1/content?expires=1&signature={words.callback_token}")


async def lock_the_door(session: Session, words: Aviary) -> None:
    """From here on every request needs the key, whose text is in this one answer only."""
    reply = await session.client.post("/v1/keys", json={"name": "ops", "scopes": ["admin"]})
    words.access_key = reply.raise_for_status().json()["key"]
    session.client.headers["authorization"] = f"Bearer {words.access_key}"
    session.settings["REPRISE_API_KEY"] = words.access_key
    await session.ask("GET", f"/v1/jobs?key={words.access_key}", headers={"authorization": ""})
    await session.ask("GET", "/v1/jobs", headers={"authorization": f"Basic {words.access_key}"})
    await session.ask(
        "POST", "/v1/jobs", json={"kind": "speech", "input": {"nonsense": words.access_key[:9]}}
    )


async def tell_a_receiver(session: Session, words: Aviary) -> None:
    """A receiver with a password in its address: one that is refused, and one that answers 404."""
    asked = {"kind": "sound_effect", "input": {"prompt": "rain"}}
    host = session.fake.base_url.removeprefix("http://")
    for url in (
        f"https://user:{words.callback_password}@example.com/hook",
        f"http://10.0.0.1/hook?password={words.callback_password}",
        f"ftp://{words.callback_password}.example.com/hook",
        f"http://{host}/hook?password={words.callback_password}",
    ):
        reply = await session.ask("POST", "/v1/jobs", json={**asked, "callback_url": url})
    job_id = reply.raise_for_status().json()["id"]
    await session.ask("POST", f"/v1/jobs/{job_id}/cancel")
    async with asyncio.timeout(LIMIT_S):
        while not (announced := (await session.ask("GET", "/v1/announcements")).json()["items"]):
            await session.ask("GET", f"/v1/jobs/{job_id}", params={"wait": 1})
        while not (await session.ask("GET", f"/v1/announcements/{announced[0]['id']}")).json()["tries"]:
            await session.ask("GET", "/readyz")


async def look_everywhere(session: Session) -> None:
    pages = ("/metrics", "/readyz", "/healthz", "/openapi.json", "/docs", "/docs/errors", "/")
    lists = ("jobs", "deliveries", "costs", "announcements", "endpoints", "keys", "audit", "predictions")
    for path in (*pages, *(f"/v1/{name}" for name in lists)):
        await session.ask("GET", path)
    for command in (
        ("doctor",),
        ("jobs", "list"),
        ("deliveries", "list"),
        ("announcements", "list"),
        ("keys", "list"),
    ):
        await session.command(*command)


async def break_the_schema(session: Session, dsn: str) -> None:
    """Errors that nobody has foreseen: bare 500s, and tracebacks with statements in the log."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("ALTER TABLE jobs RENAME TO jobs_of_before")
    await connection.close()
    for path in ("/v1/jobs", "/v1/jobs/job_1", "/metrics", "/readyz"):
        # After an error that nobody foresaw the server hangs up: the next request may meet that.
        with suppress(httpx.TransportError):
            await session.ask("GET", path)


async def lose_the_database(session: Session) -> None:
    """What is said of a database that has gone: its address has a password in it."""
    for path in ("/v1/jobs", "/readyz", "/v1/assets/ast_1", "/metrics"):
        with suppress(httpx.TransportError):
            await session.ask("GET", path)
    await session.command("migrate")
    await session.command("doctor")


@pytest.mark.parametrize("form", ["{}", "x?a={}&b", "'{}'"])
def test_the_search_does_find_a_word(form: str) -> None:
    words = Aviary()
    for name, word in vars(words).items():
        assert words.found_in(form.format(word)) == [name]
