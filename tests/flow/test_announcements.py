"""Telling the caller: a signed announcement of every end until it is taken; no byte to where none may go."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import update
from sqlmodel import col
from standardwebhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from app.announcing.schedule import WAITS_S
from app.outbound import Outbound
from app.work import Station
from db.ids import make_id
from db.tables import Announcement, AnnouncementAttempt, Endpoint, Job, WebhookSecret
from tests.conftest import becomes
from tests.flow.conftest import TONE, OpenStage, Stage
from tests.flow.receiver import (
    Answer,
    Receiver,
    hangs,
    hangs_up,
    listening,
    never_ends,
    never_ends_its_headers,
    says,
)
from tests.flow.test_watching import metric

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening(Receiver()) as it:
        yield it


@pytest.fixture
def telling(stage_on: OpenStage) -> Any:
    """Opens a stage whose callers may be on this machine."""

    def opened(**settings: Any) -> Any:
        door = Outbound(allow=("127.0.0.1",), idle_timeout_s=60, connect_timeout_s=30)
        return stage_on(ports={"outbound": door}, **settings)

    return opened


async def canceled(line: Stage, url: str, **body: Any) -> str:
    """A job that has ended, and was announced as far as that goes by itself; its id."""
    job_id = await line.ask(callback_url=url, **body)
    reply = await line.client.post(f"/v1/jobs/{job_id}/cancel")
    assert reply.status_code == 200, reply.text
    await line.drain()
    return job_id


async def told(line: Stage, **wanted: str) -> list[dict[str, Any]]:
    """Announcements, oldest first."""
    reply = await line.client.get("/v1/announcements", params={"limit": "200", **wanted})
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"][::-1])


async def detail(line: Stage, announcement_id: str) -> dict[str, Any]:
    return dict((await line.client.get(f"/v1/announcements/{announcement_id}")).json())


async def secrets(line: Stage) -> list[str]:
    items = (await line.client.get("/v1/webhook-secrets")).json()["items"]
    return [str(item["secret"]) for item in items]


# ── the main path ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_jobs_end_is_announced_signed(telling: Any, receiver: Receiver) -> None:
    async with telling() as line:
        job_id = await line.ask(callback_url=receiver.url("/hook?team=a"), metadata={"order": 7})
        await line.drain()
        await line.fake.finish(line.fake.live()[0], output=TONE)
        await line.drain()
        assert await line.state(job_id) == "succeeded"
        (post,) = receiver.posts
        (secret,) = await secrets(line)
        assert Webhook(secret).verify(post.body, post.headers) == post.said
        assert post.path == "/hook?team=a"
        assert post.said["type"] == "job.succeeded"
        job = await line.read(job_id)
        data = post.said["data"]
        assert (data["id"], data["kind"], data["state"], data["error"], data["metadata"]) == (
            job_id, "sound_effect", "succeeded", None, {"order": 7},
        )  # fmt: skip
        assert datetime.fromisoformat(data["finished_at"]) == datetime.fromisoformat(job["finished_at"])
        assert len(post.body) < 20_000
        (announcement,) = await told(line, job_id=job_id)
        assert announcement["id"] == post.headers["webhook-id"]
        assert (announcement["state"], announcement["attempts"], announcement["error"]) == (
            "delivered",
            1,
            None,
        )
        assert abs(int(post.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 600
        assert post.headers["content-type"] == "application/json"


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_every_end_is_announced_and_only_where_somebody_asked(
    telling: Any, receiver: Receiver, end: str
) -> None:
    async with telling(max_attempts=1) as line:
        silent = await line.ask()
        await line.client.post(f"/v1/jobs/{silent}/cancel")
        job_id = await line.ask(callback_url=receiver.url())
        if end == "canceled":
            await line.client.post(f"/v1/jobs/{job_id}/cancel")
        else:
            await line.drain()
            await line.fake.finish(line.fake.live()[0], error="CUDA error")
        await line.drain()
        await line.drain()
        (post,) = receiver.posts
        assert post.said["type"] == f"job.{end}"
        data = post.said["data"]
        assert (data["id"], data["state"]) == (job_id, end)
        assert data["error"] == (None if end == "canceled" else (await line.read(job_id))["error"])
        assert len(await told(line)) == 1


async def test_a_retried_job_is_announced_where_the_first_was(telling: Any, receiver: Receiver) -> None:
    async with telling() as line:
        first = await canceled(line, receiver.url())
        again = (await line.client.post(f"/v1/jobs/{first}/retry")).json()
        assert again["callback_url"] == receiver.url()
        await line.client.post(f"/v1/jobs/{again['id']}/cancel")
        await line.drain()
        assert [post.said["data"]["retry_of"] for post in receiver.posts] == [None, first]
        assert len({post.headers["webhook-id"] for post in receiver.posts}) == 2


async def test_the_receiver_of_the_guide_takes_an_announcement_and_nothing_forged(
    telling: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the how-to page tells people to run, run."""
    page = (ROOT / "docs" / "how-to" / "get-told-when-a-job-ends.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    async with telling() as line:
        job_id = await canceled(line, receiver.url())
        (secret,) = await secrets(line)
    monkeypatch.setenv("REPRISE_WEBHOOK_SECRET", secret)
    theirs: dict[str, Any] = {}
    exec(code, theirs)
    (post,) = receiver.posts
    transport = httpx.ASGITransport(app=theirs["app"])
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.test") as shop:
        for body, status in (
            (post.body, 204),
            (post.body, 204),
            (post.body.replace(b"rain", b"x") + b" ", 401),
        ):
            reply = await shop.post("/hooks/audio", content=body, headers=post.headers)
            assert reply.status_code == status
    assert capsys.readouterr().out.count(f"job.canceled {job_id}") == 1


# ── where announcements may go ──────────────────────────────────────────────────────────────────────────

INWARDS = [
    "https://127.0.0.1/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://0/",
    "https://localhost/",
    "https://10.0.0.1/",
    "https://192.168.0.1/",
    "https://172.16.0.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://168.63.129.16/",
    "https://100.100.100.200/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::a9fe:a9fe]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://127。0。0。1/",
    "https://①②⑦.0.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
]
NOT_ADDRESSES = [
    "http://user@example.org/",
    "https://user@example.org/",
    "https://user:secret@example.org/",
    "http://example.org/",
    "https://example.org:22/",
    "https://example.org:6379/",
    "https://example.org:8443/",
    "ftp://example.org/",
    "file:///etc/passwd",
    "gopher://example.org/",
    "//example.org/",
    "example.org",
    "",
    "https://",
    "https://exam ple.org/",
    "https://example.org\r\nHost: evil/",
    "https://example.org/\0",
    "https://\ud800.org/",
    "https://" + "a" * 64 + ".org/",
    "https://nowhere.invalid/",
]


@pytest.mark.parametrize("url", [*INWARDS, *NOT_ADDRESSES])
async def test_a_callback_that_points_inwards_is_refused_when_it_is_given(
    sqlite_line: Stage, url: str
) -> None:
    """Fault 21: by the system's own resolver, which knows all of these spellings; nothing is stored."""
    body = json.dumps({"kind": "sound_effect", "input": {"prompt": "x"}, "callback_url": url})
    for wanted in (body, body.replace("{", '{"dry_run": true, ', 1)):
        reply = await sqlite_line.client.post(
            "/v1/jobs", content=wanted, headers={"content-type": "application/json"}
        )
        assert reply.status_code == 422, reply.text
        assert reply.json()["field"] == "callback_url"
        assert "secret" not in reply.text
    assert await sqlite_line.count(Job) == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0"]
)
async def test_a_refused_callback_gets_no_byte(
    sqlite_line: Stage, receiver: Receiver, host: str, scheme: str
) -> None:
    """Fault 21: somebody listens there, and nobody comes."""
    wanted = {"kind": "sound_effect", "input": {"prompt": "x"}}
    for url in (f"{scheme}://{host}:{receiver.port}/hook", f"{scheme}://{host}/hook"):
        reply = await sqlite_line.client.post("/v1/jobs", json={**wanted, "callback_url": url})
        assert (reply.status_code, reply.json()["field"]) == (422, "callback_url")
    assert receiver.connections == 0


async def test_a_name_of_public_and_private_addresses_is_refused(stage_on_sqlite: OpenStage) -> None:
    """Fault 21."""

    async def mixed(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"] if host.startswith("mixed") else ["93.184.216.34"]

    door = Outbound(resolver=mixed)
    async with stage_on_sqlite(ports={"outbound": door}) as line:
        await line.ask(callback_url="https://public.example/hook")
        wanted = {"kind": "sound_effect", "input": {"prompt": "x"}, "callback_url": "https://mixed.example/"}
        reply = await line.client.post("/v1/jobs", json=wanted)
        assert (reply.status_code, reply.json()["field"]) == (422, "callback_url")
        assert await line.count(Job) == 1


async def test_a_name_that_has_moved_inwards_gets_no_byte(stage_on: OpenStage, receiver: Receiver) -> None:
    """Fault 21: let in when it was given, judged again at each send, on the address that is connected to."""
    answers = {"now": "127.0.0.2"}

    async def rebinds(host: str, port: int) -> list[str]:
        return [answers["now"]]

    door = Outbound(allow=("127.0.0.2",), resolver=rebinds, connect_timeout_s=30)
    async with stage_on(ports={"outbound": door}) as line:
        answers_at = f"http://rebinding.example:{receiver.port}/hook"
        job_id = await line.ask(callback_url=answers_at)
        answers["now"] = "127.0.0.1"
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        await line.drain()
        await line.hurry()
        await line.drain()
        (announcement,) = await told(line)
        found = await detail(line, announcement["id"])
        assert [each["outcome"] for each in found["tries"]] == ["blocked", "blocked"]
        assert found["tries"][0]["response"] is None
        assert found["state"] == "pending", "DNS may be mended: the schedule goes on"
        assert receiver.connections == 0


# ── what a receiver may answer ──────────────────────────────────────────────────────────────────────────


async def test_what_was_not_taken_is_sent_again_under_the_same_id(telling: Any, receiver: Receiver) -> None:
    receiver.answers = [says("500 Oops", b"try later", x_cause="db"), says("200 OK", b"thanks")]
    async with telling() as line:
        await canceled(line, receiver.url())
        (waiting,) = await told(line, state="pending")
        assert (waiting["attempts"], waiting["error"]) == (1, "the receiver answered 500")
        wait_s = seconds_between(waiting["next_at"], datetime.now(UTC).isoformat())
        assert wait_s < 7
        await line.drain()
        assert len(receiver.posts) <= 2, "not before its time"
        await line.hurry()
        await line.drain()
        first, second = receiver.posts
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == waiting["id"]
        assert first.body == second.body
        (secret,) = await secrets(line)
        for post in receiver.posts:
            Webhook(secret).verify(post.body, post.headers)
        found = await detail(line, waiting["id"])
        assert (found["state"], found["attempts"], found["error"], found["next_at"]) == (
            "delivered", 2, None, None,
        )  # fmt: skip
        assert found["payload"].encode() == first.body
        refused, delivered = found["tries"]
        assert (refused["number"], refused["outcome"], refused["error"]) == (
            1, "refused", "the receiver answered 500",
        )  # fmt: skip
        assert refused["response"] == {
            "status": 500, "headers": {"content-length": "9", "x-cause": "db"}, "body": "try later",
        }  # fmt: skip
        assert refused["next_at"] is not None
        assert (delivered["number"], delivered["outcome"], delivered["response"]["body"]) == (
            2, "delivered", "thanks",
        )  # fmt: skip
        sent = refused["request"]["headers"]
        assert sent == {
            name: first.headers[name] for name in ("webhook-id", "webhook-timestamp", "content-type")
        }


async def test_a_redirect_is_a_failure_and_is_not_followed(telling: Any, receiver: Receiver) -> None:
    """Fault 22."""
    async with listening(Receiver()) as elsewhere, telling() as line:
        receiver.answers = [says("301 Moved", location=elsewhere.url())]
        await canceled(line, receiver.url())
        (announcement,) = await told(line)
        assert announcement["error"] == "the receiver answered 301; redirects are not followed"
        assert (len(receiver.posts), elsewhere.connections) == (1, 0)


async def test_a_receiver_that_is_gone_gets_nothing_more(telling: Any, receiver: Receiver) -> None:
    """Fault 22: 410 disables the endpoint; what waits for it and what comes later is held, others go on."""
    receiver.answers = [says("500 Oops"), says("410 Gone"), says("204 No Content")]
    async with telling() as line:
        await canceled(line, receiver.url())
        await canceled(line, receiver.url("/other"))
        assert len(receiver.posts) == 2
        gone = [each for each in await told(line) if each["state"] == "held"]
        assert [each["url"] for each in gone] == [receiver.url("/other")]
        await canceled(line, receiver.url("/other"))
        await line.hurry()
        await line.drain()
        assert [post.path for post in receiver.posts] == ["/hook", "/other", "/hook"]
        assert [(each["state"], each["attempts"]) for each in await told(line)] == [
            ("delivered", 2), ("held", 1), ("held", 0),
        ]  # fmt: skip
        (endpoint,) = await endpoints(line, disabled="true")
        assert (endpoint["state"], endpoint["disabled_reason"], endpoint["url"]) == (
            "disabled", "gone", receiver.url("/other"),
        )  # fmt: skip
        assert await metric(line, "reprise_endpoints_disabled_total", reason="gone") == 1
        refused = await line.client.post(f"/v1/announcements/{gone[0]['id']}/resend")
        assert (refused.status_code, endpoint["id"] in refused.json()["detail"]) == (409, True)
        enabled = (await line.client.post(f"/v1/endpoints/{endpoint['id']}/enable")).json()
        assert (enabled["state"], enabled["held"]) == ("enabled", 2)
        await line.drain()
        assert len(receiver.posts) == 3, "enabling alone sends nothing"
        again = {"since": "2020-01-01T00:00:00Z", "endpoint": endpoint["id"], "state": "held"}
        resent = (await line.client.post("/v1/announcements/resend", json=again)).json()
        assert (resent["count"], resent["resent"], resent["has_more"]) == (2, 2, False)
        await line.drain()
        assert {each["state"] for each in await told(line)} == {"delivered"}


@pytest.mark.parametrize("status", ["429 Slow", "502 Bad", "503 Later", "504 Late"])
async def test_a_receiver_that_is_not_able_is_left_alone_as_long_as_it_says(
    telling: Any, receiver: Receiver, status: str
) -> None:
    """Fault 22: nothing else goes to that endpoint meanwhile, and no try is counted for what waits."""
    receiver.answers = [says(status, retry_after="3000"), says("204 No Content")]
    async with telling() as line:
        await canceled(line, receiver.url())
        await canceled(line, receiver.url())
        await canceled(line, receiver.url("/another"))
        assert [post.path for post in receiver.posts] == ["/hook", "/another"]
        first, second, _ = await told(line)
        assert (first["attempts"], second["attempts"]) == (1, 0)
        for each in (first, second):
            wait_s = seconds_between(each["next_at"], datetime.now(UTC).isoformat())
            assert 2000 < wait_s <= 3000
        states = {each["url"]: each["state"] for each in await endpoints(line)}
        assert states == {receiver.url(): "paused", receiver.url("/another"): "enabled"}
        await line.hurry()
        await line.drain()
        assert {each["state"] for each in await told(line)} == {"delivered"}
        assert {each["state"] for each in await endpoints(line)} == {"enabled"}


async def test_what_waited_when_a_pause_began_waits_too(telling: Any, receiver: Receiver) -> None:
    receiver.answers = [says("500 Oops"), says("429 Slow", retry_after="3000"), says("204 No Content")]
    async with telling() as line:
        await canceled(line, receiver.url())
        await canceled(line, receiver.url())
        first, second = await told(line)
        assert first["attempts"] == second["attempts"] == 1
        assert seconds_between(first["next_at"], datetime.now(UTC).isoformat()) > 2000


@pytest.mark.parametrize(
    ("answer", "words"),
    [(hangs, "no answer within"), (hangs_up, "broke off"), (never_ends_its_headers, "broke off")],
)
async def test_a_receiver_without_a_whole_answer_is_left_and_asked_again(
    telling: Any, receiver: Receiver, answer: Answer, words: str
) -> None:
    """Fault 22."""
    receiver.answers = [answer, says("204 No Content")]
    limit_s = 0.3 if answer is hangs else 60
    async with telling(announce_timeout_s=limit_s) as line:
        await canceled(line, receiver.url())
        (announcement,) = await told(line)
        (tried,) = (await detail(line, announcement["id"]))["tries"]
        assert (tried["outcome"], tried["response"]) == ("unreachable", None)
        assert words in tried["error"]
        (endpoint,) = await endpoints(line)
        assert (endpoint["state"], endpoint["failures"]) == ("paused", 1)


async def test_an_answer_without_end_is_cut_and_what_is_kept_of_it_is_small(
    telling: Any, receiver: Receiver
) -> None:
    """Fault 22: 1 GB is announced, 4 kB are kept; headers are kept few and short, cookies never."""
    many = {f"x_{number}": "v" * 5000 for number in range(15)}
    receiver.answers = [never_ends, says("200 OK", b"\xff\0" * 5000, set_cookie="canary", **many)]
    async with telling() as line:
        await canceled(line, receiver.url())
        await canceled(line, receiver.url())
        endless, large = [await detail(line, each["id"]) for each in await told(line)]
        assert (endless["state"], large["state"]) == ("delivered", "delivered")
        assert endless["tries"][0]["response"]["body"] == "x" * 4096
        kept = large["tries"][0]["response"]
        assert len(kept["body"]) == 4096
        assert "canary" not in str(large)
        assert len(kept["headers"]) <= 32
        assert max(map(len, kept["headers"].values())) == 256


def make_certificate(folder: Path, *, ends_at: datetime) -> Path:
    """A key and a certificate of 127.0.0.1 in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(ends_at - timedelta(days=9))
        .not_valid_after(ends_at)
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return path


@pytest.mark.parametrize(
    ("is_known", "ends_in", "error"),
    [
        (True, timedelta(days=1), None),
        (True, -timedelta(days=1), "expired"),
        (False, timedelta(days=1), "self-signed"),
    ],
    ids=["that_holds", "that_has_expired", "of_nobody_we_know"],
)
async def test_an_announcement_goes_only_to_a_certificate(
    stage_on_sqlite: OpenStage, tmp_path: Path, is_known: bool, ends_in: timedelta, error: str | None
) -> None:
    """Fault 22: past a certificate that does not hold nothing of the announcement is sent."""
    certificate = make_certificate(tmp_path, ends_at=datetime.now(UTC) + ends_in)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    roots = ssl.create_default_context(cafile=str(certificate) if is_known else None)
    door = Outbound(allow=("127.0.0.1",), connect_timeout_s=30, tls=roots)
    async with server, stage_on_sqlite(ports={"outbound": door}) as line:
        await canceled(line, f"https://127.0.0.1:{port}/hook")
        (announcement,) = await told(line)
        (tried,) = (await detail(line, announcement["id"]))["tries"]
        if error is None:
            assert tried["outcome"] == "delivered"
        else:
            assert tried["outcome"] == "unreachable"
            assert error in tried["error"]
        assert len(receiver.posts) == (error is None)
        await receiver.leave()


# ── schedules and endpoints ─────────────────────────────────────────────────────────────────────────────


async def test_a_spent_schedule_ends_in_failed_and_one_can_be_sent_again(
    telling: Any, receiver: Receiver
) -> None:
    receiver.answers = [says("404 Not Found")]
    async with telling() as line:
        await canceled(line, receiver.url())
        for _ in range(len(WAITS_S) + 3):
            await line.hurry()
            await line.drain()
        (failed,) = await told(line, state="failed")
        assert failed["attempts"] == len(receiver.posts) == len(WAITS_S) + 1
        assert (failed["next_at"], failed["error"]) == (None, "the receiver answered 404")
        assert await metric(line, "reprise_announcements_ended_total", state="failed") == 1
        receiver.answers = [says("204 No Content")]
        reply = await line.client.post(f"/v1/announcements/{failed['id']}/resend")
        assert (reply.status_code, reply.json()["state"]) == (202, "pending")
        await line.drain()
        found = await detail(line, failed["id"])
        assert (found["state"], found["attempts"]) == ("delivered", len(WAITS_S) + 2)
        assert {post.headers["webhook-id"] for post in receiver.posts} == {failed["id"]}


async def test_an_endpoint_is_given_up_after_steady_failure_and_noticed(
    telling: Any, receiver: Receiver
) -> None:
    """Five days and ten failures without a success between: one success and it is as new."""
    receiver.answers = [says("500 Oops")]
    async with telling() as line:
        await canceled(line, receiver.url())
        (row,) = await line.rows(Endpoint)
        long_ago = datetime.now(UTC) - timedelta(days=6)
        await line.change(Endpoint, row.id, failing_since=long_ago, failures=20)
        receiver.answers = [says("204 No Content"), says("500 Oops")]
        await canceled(line, receiver.url())
        await canceled(line, receiver.url())
        (endpoint,) = await endpoints(line)
        assert (endpoint["state"], endpoint["failures"]) == ("enabled", 1)
        await line.change(Endpoint, row.id, failing_since=long_ago, failures=8)
        await canceled(line, receiver.url())
        assert (await endpoints(line))[0]["state"] == "enabled", "nine failures are not ten"
        await canceled(line, receiver.url())
        (endpoint,) = await endpoints(line)
        assert (endpoint["state"], endpoint["disabled_reason"]) == ("disabled", "failing")
        assert await metric(line, "reprise_endpoints_disabled_total", reason="failing") == 1
        assert {each["state"] for each in await told(line)} == {"held", "delivered"}
        posts = len(receiver.posts)
        await line.hurry()
        await line.drain()
        assert len(receiver.posts) == posts


async def test_a_range_is_counted_first_and_sent_then(telling: Any, receiver: Receiver) -> None:
    receiver.answers = [says("204 No Content")]
    async with telling() as line:
        for _ in range(5):
            await canceled(line, receiver.url())
        rows = await told(line)
        old = datetime.now(UTC) - timedelta(days=2)
        for each in rows[:4]:
            await line.change(Announcement, each["id"], state="failed", settled_at=old, created_at=old)
        await line.change(Announcement, rows[3]["id"], created_at=old - timedelta(days=30))
        wanted = {
            "since": (old - timedelta(hours=1)).isoformat(),
            "until": (old + timedelta(hours=1)).isoformat(),
        }
        path = "/v1/announcements/resend"
        counted = (await line.client.post(path, json={**wanted, "dry_run": True})).json()
        assert counted == {"dry_run": True, "count": 3, "to_disabled": 0, "resent": 0, "has_more": False}
        await line.drain()
        assert len(receiver.posts) == 5
        assert (await line.client.post(path, json=wanted)).json()["resent"] == 3
        await line.drain()
        assert len(receiver.posts) == 8
        assert [each["state"] for each in await told(line)] == [
            "delivered", "delivered", "delivered", "failed", "delivered",
        ]  # fmt: skip
        nothing = (await line.client.post(path, json={**wanted, "endpoint": "ep_" + "0" * 32})).json()
        assert nothing["count"] == 0


async def test_pages_follow_each_other(telling: Any, receiver: Receiver) -> None:
    async with telling() as line:
        for number in range(5):
            await canceled(line, receiver.url(f"/{number}"))
        for path in ("/v1/announcements", "/v1/endpoints"):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                params = {"limit": "2", **({"cursor": cursor} if cursor else {})}
                page = (await line.client.get(path, params=params)).json()
                seen += [each["id"] for each in page["items"]]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
            assert len(seen) == len(set(seen)) == 5
            assert (await line.client.get(path, params={"cursor": "!"})).status_code == 400


# ── secrets ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rotation_overlaps_in_time(telling: Any, receiver: Receiver) -> None:
    """Both secrets sign until the old one's time is over; a third is not made meanwhile."""
    async with telling() as line:
        (old,) = await secrets(line)
        rotated = await line.client.post("/v1/webhook-secrets", json={"overlap_s": 3600})
        assert rotated.headers["cache-control"] == "no-store"
        new, also = await secrets(line)
        assert (also, rotated.json()["items"][0]["secret"]) == (old, new)
        refused = await line.client.post("/v1/webhook-secrets", json={"overlap_s": 3600})
        assert refused.status_code == 409
        assert not {old, new} & set(refused.text.split('"'))
        await canceled(line, receiver.url())
        (post,) = receiver.posts
        assert len(post.headers["webhook-signature"].split(" ")) == 2
        for secret in (old, new):
            assert Webhook(secret).verify(post.body, post.headers)["type"] == "job.canceled"
        past = datetime.now(UTC) - timedelta(seconds=1)
        async with line.runtime.line.database.transaction() as tx:
            expired = update(WebhookSecret).where(col(WebhookSecret.number) == 1)
            await tx.execute(expired.values(expires_at=past))
        await canceled(line, receiver.url())
        post = receiver.posts[-1]
        Webhook(new).verify(post.body, post.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(post.body, post.headers)
        assert await secrets(line) == [new]


async def test_a_secret_that_leaked_is_ended_at_once(telling: Any, receiver: Receiver) -> None:
    async with telling() as line:
        await line.client.post("/v1/webhook-secrets", json={"overlap_s": 3600})
        before = await secrets(line)
        await line.client.post("/v1/webhook-secrets", json={"overlap_s": 0})
        (new,) = await secrets(line)
        assert new not in before
        await canceled(line, receiver.url())
        assert len(receiver.posts[0].headers["webhook-signature"].split(" ")) == 1


async def test_two_that_need_the_first_secret_at_once_get_the_same(telling: Any) -> None:
    async with telling() as line:
        found = await asyncio.gather(*(secrets(line) for _ in range(8)))
        assert {tuple(each) for each in found} == {tuple(found[0])}
        assert len(found[0]) == 1


async def test_no_secret_signature_or_query_stands_in_a_log_or_in_what_is_shown(
    telling: Any, receiver: Receiver
) -> None:
    """Fault 71: the query of a callback is its owner's secret."""
    receiver.answers = [says("500 Oops"), says("410 Gone")]
    async with telling() as line:
        with capture_logs() as lines:
            job_id = await canceled(line, receiver.url("/hook?key=canary"))
            await line.hurry()
            await line.drain()
        (secret,) = await secrets(line)
        shown = (await line.client.get("/metrics")).text + str(lines) + str(await endpoints(line))
        shown += str(await told(line)) + (await line.client.get(f"/v1/jobs/{job_id}")).text
        assert receiver.url("/hook") in shown
        assert any(each["event"] == "endpoint.disabled" for each in lines)
        assert "canary" not in shown
        signatures = [post.headers["webhook-signature"] for post in receiver.posts]
        (announcement,) = await told(line)
        shown += str(await detail(line, announcement["id"]))
        assert len(signatures) == 2
        for hidden in (secret.removeprefix("whsec_"), *signatures):
            assert hidden not in shown


# ── tenants, turns, leases ──────────────────────────────────────────────────────────────────────────────


async def test_another_tenants_are_not_there(telling: Any, receiver: Receiver) -> None:
    """Fault 18."""
    receiver.answers = [says("500 Oops")]
    async with telling() as line:
        await canceled(line, receiver.url())
        (announcement,) = await told(line)
        (endpoint,) = await endpoints(line)
        await line.change(Announcement, announcement["id"], tenant="other", state="failed")
        await line.change(Endpoint, endpoint["id"], tenant="other")
        assert (await told(line), await endpoints(line)) == ([], [])
        for method, path in [
            ("GET", f"/v1/announcements/{announcement['id']}"),
            ("POST", f"/v1/announcements/{announcement['id']}/resend"),
            ("POST", f"/v1/endpoints/{endpoint['id']}/enable"),
        ]:
            assert (await line.client.request(method, path)).status_code == 404
        everything = {"since": "2020-01-01T00:00:00Z"}
        resent = (await line.client.post("/v1/announcements/resend", json=everything)).json()
        assert resent["count"] == 0


async def test_a_receiver_that_hangs_holds_up_nobody_else(telling: Any, receiver: Receiver) -> None:
    """Fault 22: with many waiting for it before, it has its own turns and no more."""
    receiver.answers = [hangs]
    async with (
        listening(Receiver()) as other,
        telling(announce_concurrency=4, announce_per_receiver=2, announce_timeout_s=60) as line,
    ):
        slow = [await line.ask(callback_url=receiver.url(f"/{number}")) for number in range(12)]
        quick = await line.ask(callback_url=other.url())
        for job_id in [*slow, quick]:
            await line.client.post(f"/v1/jobs/{job_id}/cancel")
        line.runtime.worker.keep_to([Station.ANNOUNCE])
        working = asyncio.create_task(line.runtime.worker.run())
        await becomes(lambda: other.posts and len(receiver.posts) == 2, within_s=60)
        assert receiver.connections == 2
        receiver.answers = [says("204 No Content")]
        line.runtime.worker.stop()
        await line.runtime.worker.hand_back()
        await asyncio.wait_for(working, 60)
        await line.drain()
        assert len({post.headers["webhook-id"] for post in receiver.posts}) == 12
        assert {each["state"] for each in await told(line)} == {"delivered"}


async def test_what_waits_for_one_receiver_follows_on_without_another_look(
    telling: Any, receiver: Receiver
) -> None:
    """Whoever has had a turn finds the next: the sweep is for what was lost, not for what is behind."""
    async with telling(announce_per_receiver=1, sweep_interval_s=3600) as line:
        for job_id in [await line.ask(callback_url=receiver.url()) for _ in range(6)]:
            await line.client.post(f"/v1/jobs/{job_id}/cancel")
        line.runtime.worker.keep_to([Station.ANNOUNCE])
        working = asyncio.create_task(line.runtime.worker.run())
        await becomes(lambda: len(receiver.posts) == 6, within_s=60)
        line.runtime.worker.stop()
        await asyncio.wait_for(working, 60)
        assert len({post.headers["webhook-id"] for post in receiver.posts}) == 6


async def test_every_receiver_has_its_share_of_a_look(telling: Any, receiver: Receiver) -> None:
    receiver.answers = [hangs]
    async with listening(Receiver()) as other, telling(announce_per_receiver=2) as line:
        jobs = [await line.ask(callback_url=receiver.url()) for _ in range(6)]
        jobs.append(await line.ask(callback_url=other.url()))
        for job_id in jobs:
            await line.client.post(f"/v1/jobs/{job_id}/cancel")
        rows = await line.rows(Announcement)
        async with line.runtime.line.database.reading() as tx:
            due = await line.runtime.announcer.due(tx, datetime.now(UTC), 100)
            first_two = await line.runtime.announcer.due(tx, datetime.now(UTC), 2)
        assert set(due) == {rows[0].id, rows[1].id, rows[6].id}
        assert set(first_two) == {rows[0].id, rows[6].id}


async def test_of_two_that_send_the_one_that_was_frozen_notes_nothing(
    telling: Any, receiver: Receiver
) -> None:
    """Its lease had run out, and another has sent it since."""
    async with telling() as line:
        job_id = await line.ask(callback_url=receiver.url())
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        (row,) = await line.rows(Announcement)
        announcer = line.runtime.announcer
        frozen = await announcer._claim(row, make_id("lease"))
        assert frozen is not None
        assert await announcer._claim(row, make_id("lease")) is None, "it is held"
        past = datetime.now(UTC) - timedelta(days=1)
        await line.change(Announcement, row.id, lease_until=past)
        await line.drain()
        late = await announcer._send(frozen)
        await announcer._note(frozen, late)
        found = await detail(line, row.id)
        assert (found["state"], found["attempts"], len(found["tries"])) == ("delivered", 1, 1)
        assert {post.headers["webhook-id"] for post in receiver.posts} == {row.id}


async def test_what_is_being_sent_at_a_stop_is_the_next_workers_at_once(
    telling: Any, receiver: Receiver
) -> None:
    """Fault 53."""
    receiver.answers = [hangs, says("204 No Content")]
    async with telling(announce_timeout_s=60) as line:
        job_id = await line.ask(callback_url=receiver.url())
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        (row,) = await line.rows(Announcement)
        timed = line.runtime.worker._timed(Station.ANNOUNCE, line.runtime.announcer.step)
        step = asyncio.create_task(timed(row.id))
        await becomes(lambda: receiver.posts, within_s=60)
        line.runtime.worker.stop()
        await line.runtime.worker.hand_back()
        await step
        (row,) = await line.rows(Announcement)
        assert (row.state, row.lease, row.crashes, row.tries) == ("pending", None, 0, 0)
        await line.drain()
        assert [post.headers["webhook-id"] for post in receiver.posts] == [row.id, row.id]


async def test_a_clock_that_was_set_back_lets_nothing_wait_for_ever(telling: Any, receiver: Receiver) -> None:
    """Fault 55: no wait of the schedule is longer than two days."""
    receiver.answers = [says("500 Oops")]
    async with telling() as line:
        await canceled(line, receiver.url())
        (row,) = await line.rows(Announcement)
        await line.change(Announcement, row.id, run_after=datetime.now(UTC) + timedelta(days=400))
        await line.runtime.worker.adopt()
        (row,) = await line.rows(Announcement)
        assert row.run_after < datetime.now(UTC) + timedelta(days=3)


async def test_what_ends_the_process_again_and_again_is_given_up(telling: Any, receiver: Receiver) -> None:
    """Fault 54: counted on the row before each try."""
    async with telling(max_crashes=3) as line:
        job_id = await line.ask(callback_url=receiver.url())
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        (row,) = await line.rows(Announcement)
        past = datetime.now(UTC) - timedelta(days=1)
        for _ in range(3):
            assert await line.runtime.announcer._claim(row, make_id("lease")) is not None
            await line.change(Announcement, row.id, lease_until=past)
        await line.drain()
        found = await detail(line, row.id)
        assert (found["state"], found["tries"][0]["outcome"]) == ("failed", "abandoned")
        assert found["error"] == "sending it ended the process 3 times"
        assert (receiver.connections, await endpoints(line)) == (0, await endpoints(line))
        await line.client.post(f"/v1/announcements/{row.id}/resend")
        await line.drain()
        assert (await detail(line, row.id))["state"] == "delivered"


async def test_the_queue_of_announcements_is_seen(telling: Any, receiver: Receiver) -> None:
    async with telling() as line:
        job_id = await line.ask(callback_url=receiver.url())
        await line.client.post(f"/v1/jobs/{job_id}/cancel")
        assert await metric(line, "reprise_queue_due", station="announce", kind="") == 1
        assert await metric(line, "reprise_queue_depth", station="announce", kind="") == 1
        stations = (await line.client.get("/readyz")).json()["queues"]["stations"]
        assert (stations["announce"]["depth"], stations["announce"]["due"]) == (1, 1)
        await line.drain()
        assert await metric(line, "reprise_announcements_tried_total", outcome="delivered") == 1


@pytest.mark.breaks("I1")
async def test_announcements_go_with_their_job_and_endpoints_with_the_last_of_them(
    telling: Any, receiver: Receiver
) -> None:
    async with telling(retention_s=3600) as line:
        first = await canceled(line, receiver.url("/one"))
        second = await canceled(line, receiver.url("/two"))
        past = datetime.now(UTC) - timedelta(days=1)
        await line.change(Job, first, expires_at=past)
        assert await line.runtime.housekeeper.expire() == 1
        assert [each["job_id"] for each in await told(line)] == [second]
        assert await line.count(AnnouncementAttempt) == 1
        assert [each["url"] for each in await endpoints(line)] == [receiver.url("/two")]


async def endpoints(line: Stage, **wanted: str) -> list[dict[str, Any]]:
    reply = await line.client.get("/v1/endpoints", params={"limit": "200", **wanted})
    assert reply.status_code == 200, reply.text
    return list(reply.json()["items"])


def seconds_between(later: str, earlier: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
