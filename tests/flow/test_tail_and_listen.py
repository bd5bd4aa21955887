"""`tail`, `listen` and `trigger` as people run them: real processes beside a real service on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.feed import FeedLimits
from app.main import create_app
from app.outbound import Outbound
from app.provider.signature import WebhookSecrets
from db.tables import Announcement
from tests.fakes.provider import SECRET, served
from tests.flow.conftest import TONE, OpenStage, Stage

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90.0


@dataclass
class Receiver:
    """Somebody's webhook route on a port of this machine."""

    status: int = 200
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.got.append((dict(request.headers), await request.body()))
        await Response(status_code=self.status)(scope, receive, send)


class Command:
    """`reprise …` in a process of its own, read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            read = (await self.process.stdout.readline()).decode()
        assert read, await self.said()
        return read.rstrip("\n")

    async def json(self) -> Any:
        return json.loads(await self.line())

    async def said(self) -> str:
        """Everything on stderr, once the command has ended."""
        assert self.process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            return (await self.process.stderr.read()).decode()

    async def ended(self) -> int:
        async with asyncio.timeout(LIMIT_S):
            return await self.process.wait()


@asynccontextmanager
async def reprise(folder: Path, *words: str, **settings: str) -> AsyncIterator[Command]:
    """A command that runs until the block ends, at the latest."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", *words, cwd=folder,
        env={
            **kept, "PYTHONPATH": str(ROOT), "VAR_DIR": str(folder / "var"),
            "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/reprise.db", **settings,
        },
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ran(folder: Path, *words: str, **settings: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that ends by itself."""
    async with reprise(folder, *words, **settings) as command, asyncio.timeout(LIMIT_S):
        out, err = await command.process.communicate()
        return await command.ended(), out.decode(), err.decode()


async def becomes(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def looking_on(stage: Stage) -> None:
    """Until a stream is open, so that what follows is news to it."""
    await becomes(stage.runtime.line.notifier.count_subscriptions)


async def test_tail_tells_what_happens_from_now_on_a_line_an_event(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    async with stage_on_sqlite() as stage, served(create_app(stage.runtime)) as url:
        await stage.ask("before")
        async with reprise(tmp_path, "tail", "--limit", "2", REPRISE_URL=url) as command:
            await looking_on(stage)
            job_id = await stage.ask("after")
            await stage.client.post(f"/v1/jobs/{job_id}/cancel")
            lines = [await command.line(), await command.line()]
            assert await command.ended() == 0
    assert ["created" in lines[0], "canceled" in lines[1]] == [True, True]
    assert all(job_id in line and "sound_effect" in line for line in lines)
    assert "\x1b" not in "".join(lines), "no colours into a pipe"


async def test_tail_narrows_and_begins_in_the_past(stage_on_sqlite: OpenStage, tmp_path: Path) -> None:
    async with stage_on_sqlite() as stage, served(create_app(stage.runtime)) as url:
        other, job_id = await stage.ask(), await stage.ask()
        await stage.client.post(f"/v1/jobs/{job_id}/cancel")
        words = ("tail", "--since", "1h", "--ndjson", "--limit")
        code, out, err = await ran(tmp_path, *words, "2", "--state", "queued", REPRISE_URL=url)
        assert (code, [json.loads(line)["job_id"] for line in out.splitlines()]) == (0, [other, job_id]), err
        code, out, _ = await ran(tmp_path, *words, "2", "--job", job_id, REPRISE_URL=url)
        assert [json.loads(line)["type"] for line in out.splitlines()] == ["job.created", "job.canceled"]
        code, out, err = await ran(tmp_path, "tail", "--state", "odd", REPRISE_URL=url)
        assert (code, out, err.count("\n")) == (2, "", 1)


async def test_tail_goes_on_over_a_restart_without_gap_or_double(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    """Fault 63: the service ends, work goes on meanwhile, another one comes up in its place."""
    async with stage_on_sqlite() as stage:
        app = create_app(stage.runtime)
        gate = Gate(app)
        async with served(gate) as url, reprise(tmp_path, "tail", "--json", REPRISE_URL=url) as command:
            await looking_on(stage)
            told, made = [], []
            for cut in range(3):
                made.append(await stage.ask())
                told.append((await command.json())["job_id"])
                if cut < 2:
                    gate.is_shut = True
                    stage.runtime.feed.release()
                    await becomes(lambda: not stage.runtime.line.notifier.count_subscriptions())
                    made.append(await stage.ask("while nobody answers"))
                    await becomes(lambda: gate.refused > 1)
                    stage.runtime.feed._closing = False
                    gate.is_shut, gate.refused = False, 0
                    told.append((await command.json())["job_id"])
            command.process.send_signal(signal.SIGINT)
            assert await command.ended() == 128 + signal.SIGINT
            assert "Traceback" not in await command.said()
    assert told == made


class Gate:
    """A service that answers nobody while it is shut."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.is_shut = False
        self.refused = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.is_shut:
            self.refused += 1
            await Response(status_code=502)(scope, receive, send)
            return
        await self._app(scope, receive, send)


@pytest.mark.parametrize("words", [("tail",), ("listen", "--forward-to", "3000")], ids=lambda words: words[0])
async def test_without_a_service_it_is_said_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    code, out, err = await ran(tmp_path, *words)
    assert (code, out) == (1, "")
    assert "no service is running" in err


async def test_listen_forwards_each_webhook_as_it_came_and_in_order(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    receiver = Receiver()
    async with (
        stage_on_sqlite() as stage,
        served(create_app(stage.runtime)) as url,
        served(receiver) as target,
    ):
        words = ("listen", "--forward-to", f"{target}/hook", "--json", "--limit", "3")
        _, prediction_id = await stage.start()
        async with reprise(tmp_path, *words, REPRISE_URL=url) as command:
            await looking_on(stage)
            await stage.fake.begin(prediction_id)
            await stage.fake.log(prediction_id, "50%|")
            await stage.fake.finish(prediction_id, output=TONE)
            told = [await command.json() for _ in range(3)]
            assert await command.ended() == 0
    sent = [(hook.headers, hook.body) for hook in stage.fake.sent]
    assert [body for _, body in receiver.got] == [body for _, body in sent]
    secrets = WebhookSecrets([SECRET])
    for headers, body in receiver.got:
        now = stage.runtime.line.clock.wall()
        assert secrets.verify(headers, body, now=now, tolerance_s=3600) in {
            each["webhook-id"] for each, _ in sent
        }
    assert [each["event"] for each in told] == [
        "prediction.processing", "prediction.processing", "prediction.succeeded",
    ]  # fmt: skip
    assert [each["status"] for each in told] == [200] * 3
    assert all(each["latency_ms"] > 0 for each in told)


async def test_listen_forwards_what_callers_are_told_signed_by_the_services_secret(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    receiver = Receiver()
    ports = {"outbound": Outbound(allow=("127.0.0.1",))}
    async with (
        stage_on_sqlite(ports=ports) as stage,
        served(create_app(stage.runtime)) as url,
        served(receiver) as target,
    ):
        words = ("listen", "--announcements", "--forward-to", f"{target}/hook", "--json", "--limit", "1")
        async with reprise(tmp_path, *words, REPRISE_URL=url) as command:
            await looking_on(stage)
            await stage.client.post(f"/v1/jobs/{await stage.ask()}/cancel")
            job_id = await stage.ask(callback_url="http://127.0.0.1:9999/nobody?listens")
            await stage.client.post(f"/v1/jobs/{job_id}/cancel")
            told = await command.json()
            assert await command.ended() == 0
        assert (told["event"], told["job_id"], told["status"]) == ("job.canceled", job_id, 200)
        ((headers, body),) = receiver.got
        code, printed, err = await ran(
            tmp_path, "listen", "--announcements", "--print-secret", REPRISE_URL=url
        )
        assert code == 0, err
        said = Webhook(printed.strip()).verify(body, headers)
        assert (said["data"]["id"], said["data"]["state"]) == (job_id, "canceled")
        (row,) = await stage.rows(Announcement)
        assert (headers["webhook-id"], row.state, row.tries) == (row.id, "pending", 0)
        code, _, err = await ran(
            tmp_path, "listen", "--announcements", "--provider", "cog", "--forward-to", "3000"
        )
        assert (code, err.count("\n")) == (2, 1)


async def test_a_receiver_that_fails_is_told_of_and_costs_the_service_nothing(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    receiver = Receiver(status=500)
    async with stage_on_sqlite() as stage, served(create_app(stage.runtime)) as url:
        job_id, prediction_id = await stage.start()
        async with served(receiver) as target:
            words = ("listen", "--forward-to", target, "--events", "prediction.succeeded", "--json")
            async with reprise(tmp_path, *words, REPRISE_URL=url) as command:
                await looking_on(stage)
                await stage.fake.begin(prediction_id)
                await stage.fake.finish(prediction_id, output=TONE)
                assert (await command.json())["status"] == 500
                assert len(receiver.got) == 1, "the other event was not asked for"
        async with reprise(tmp_path, "listen", "--forward-to", "127.0.0.1:9", REPRISE_URL=url) as command:
            await looking_on(stage)
            await stage.fake.send_hook("completed", prediction_id)
            line = await command.line()
            assert "prediction.succeeded" in line
            assert "200" not in line
        await stage.drain()
        assert await stage.state(job_id) == "succeeded"


async def test_deliveries_are_streamed_once_each_with_what_was_received(
    stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    async with stage_on_sqlite() as stage:
        _, prediction_id = await stage.start()
        following = stage.runtime.arrivals.follow("default", after_id=None, body=True)
        first = await anext(following)
        await stage.fake.begin(prediction_id)
        await stage.fake.finish(prediction_id, output=TONE)
        arrived: list[Any] = []
        async with asyncio.timeout(LIMIT_S):
            while len(arrived) < 2:
                arrived.append(await anext(following))
        await following.aclose()
        assert [each.delivery.body for each in arrived] == [hook.body for hook in stage.fake.sent]
        again = stage.runtime.arrivals.follow("default", after_id=arrived[0].delivery.id, body=False)
        assert first.last_id < (await anext(again)).last_id
        resumed: Any = await anext(again)
        assert (resumed.delivery.id, resumed.delivery.body) == (arrived[1].delivery.id, b"")
        assert resumed.size_bytes == len(stage.fake.sent[1].body)
        await again.aclose()
        stranger = stage.runtime.arrivals.follow("other", after_id=first.last_id, body=True)
        await anext(stranger)
        looking = asyncio.ensure_future(anext(stranger))
        await stage.fake.send_hook("completed", prediction_id)
        stage.runtime.arrivals.release()
        async with asyncio.timeout(LIMIT_S):
            assert str(await looking) == "stopping", "what is another tenant's is not told"
        await stranger.aclose()
        assert FeedLimits().stall_s > 0


@pytest.fixture
def keys() -> dict[str, str]:
    return {"REPLICATE_WEBHOOK_SECRET": SECRET}


async def test_trigger_plays_the_provider_of_an_attempt_that_is_under_way(
    stage_on_sqlite: OpenStage, tmp_path: Path, keys: dict[str, str]
) -> None:
    async with stage_on_sqlite() as stage, served(create_app(stage.runtime)) as url:
        job_id, _ = await stage.start()
        working = asyncio.create_task(stage.runtime.worker.run())
        words = ("trigger", "prediction.succeeded", "--job", job_id, "--json")
        code, out, err = await ran(tmp_path, *words, REPRISE_URL=url, **keys)
        assert code == 0, err
        (post,) = json.loads(out)["posts"]
        assert (post["status"], post["delivery"]["outcome"], post["delivery"]["job_id"]) == (
            200,
            "applied",
            job_id,
        )
        view = await stage.runtime.jobs.wait(job_id, timeout_s=LIMIT_S)
        assert view.job.state == "succeeded"
        stage.runtime.worker.stop()
        await working


@pytest.mark.parametrize(
    ("flag", "statuses"),
    [("--bad-signature", [401]), ("--old", [401]), ("--twice", [200, 200]), ("--reordered", [200, 200])],
)
async def test_trigger_does_what_providers_and_forgers_do(
    flag: str, statuses: list[int], stage_on_sqlite: OpenStage, tmp_path: Path, keys: dict[str, str]
) -> None:
    async with stage_on_sqlite() as stage, served(create_app(stage.runtime)) as url:
        job_id, _ = await stage.start()
        attempt_id = (await stage.attempts())[0].id
        working = asyncio.create_task(stage.runtime.worker.run())
        words = ("trigger", "prediction.canceled", "--attempt", attempt_id, flag, "--json")
        code, out, err = await ran(tmp_path, *words, REPRISE_URL=url, **keys)
        assert code == 0, err
        posts = json.loads(out)["posts"]
        assert [post["status"] for post in posts] == statuses
        stored = [post["delivery"] for post in posts if post["delivery"] and not post["known_already"]]
        assert len(stored) == {"--bad-signature": 0, "--old": 0, "--twice": 1, "--reordered": 2}[flag]
        assert len(await stage.ledger(job_id=job_id)) == len(stored)
        stage.runtime.worker.stop()
        await working


async def test_trigger_without_an_attempt_is_kept_as_nobodys(
    stage_on_sqlite: OpenStage, tmp_path: Path, keys: dict[str, str]
) -> None:
    async with stage_on_sqlite() as stage, served(create_app(stage.runtime)) as url:
        body = tmp_path / "body.json"
        body.write_bytes(b'{"id": "mine", "status": "succeeded"}')
        words = ("trigger", "prediction.succeeded", "--body", str(body))
        working = asyncio.create_task(stage.runtime.worker.run())
        code, out, err = await ran(tmp_path, *words, REPRISE_URL=url, **keys)
        stage.runtime.worker.stop()
        await working
        assert (code, "orphaned" in out) == (0, True), err
        (delivery,) = await stage.ledger()
        shown = (await stage.client.get(f"/v1/deliveries/{delivery['id']}")).json()
        assert shown["size_bytes"] == len(body.read_bytes())


async def test_trigger_refuses_where_strangers_jobs_could_be_moved(
    sqlite_line: Stage, tmp_path: Path, keys: dict[str, str]
) -> None:
    words = ("trigger", "prediction.failed")
    public = {"PUBLIC_URL": "https://reprise.test", **keys}
    code, out, err = await ran(tmp_path, *words, **public)
    assert (code, out, "--yes" in err) == (2, "", True)
    code, _, err = await ran(tmp_path, *words, "--yes", "--job", "job_none", **public)
    assert (code, "there is no attempt" in err) == (3, True)
    code, _, err = await ran(tmp_path, *words)
    assert (code, "REPLICATE_WEBHOOK_SECRET" in err) == (1, True)


async def test_listen_prints_the_secrets_that_a_receiver_verifies_with(
    tmp_path: Path, keys: dict[str, str]
) -> None:
    code, out, _ = await ran(tmp_path, "listen", "--print-secret", **keys)
    assert (code, out) == (0, f"{SECRET}\n")
