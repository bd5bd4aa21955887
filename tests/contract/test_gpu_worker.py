"""The promises of the GPU worker, kept against real Cog servers: killed, hung, broken and out of room."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.gpu.groups import Group
from tests.conftest import becomes
from tests.contract.gpu_ground import Caller, calling, gpu_worker, moody
from tests.contract.test_provider_cog import Receiver
from tests.fakes.provider import TERMINAL, served

pytestmark = pytest.mark.real

Children = Callable[[], list[psutil.Process]]
Told = tuple[Receiver, str]


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    receiver = Receiver()
    async with served(receiver) as url:
        yield receiver, url


async def heard(told: Told) -> dict[str, Any]:
    """The next terminal word, with the path it came to."""
    async with asyncio.timeout(60):
        while True:
            path, _, body, _ = await told[0].hooks.get()
            word: dict[str, Any] = json.loads(body)
            if word["status"] in TERMINAL:
                assert path == f"/{word['id']}"
                return word


async def until_it_runs(told: Told, prediction_id: str) -> None:
    async with asyncio.timeout(60):
        while True:
            word = json.loads((await told[0].hooks.get())[2])
            assert word["status"] not in TERMINAL, word
            if word["id"] == prediction_id and "progress" in word["logs"]:
                return


async def test_an_engine_is_loaded_at_its_first_use_and_its_news_passed_on(
    tmp_path: Path, told: Told, children: Children
) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        assert children() == []
        assert (await caller.health())["groups"]["moody"]["state"] == "down"
        answer = await caller.put("first")
        assert (answer.status_code, answer.json()["status"]) == (202, "starting")
        word = await heard(told)
        assert (word["status"], word["output"]) == ("succeeded", "hi")
        assert word["metrics"]["predict_time"] > 0
        assert (await caller.health())["groups"]["moody"]["state"] == "up"


async def test_who_must_wait_is_told_the_place_and_moves_up(tmp_path: Path, told: Told) -> None:
    """Fault 69: two at once on one model would spoil each other, so they go one after the other."""
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("first", mode="gate", text="open")
        await until_it_runs(told, "first")
        answers = [await caller.put(f"next{number}") for number in (1, 2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        assert [answer.json()["metrics"]["queue_position"] for answer in answers] == [1, 2]
        (tmp_path / "moody.py.open").touch()
        words: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while sum(word["status"] in TERMINAL for word in words) < 3:
                words.append(json.loads((await told[0].hooks.get())[2]))
        moved = [word for word in words if "queue_position" in word["metrics"]]
        assert [(word["id"], word["metrics"]["queue_position"]) for word in moved][:1] == [("next2", 1)]
        ends = [word["id"] for word in words if word["status"] in TERMINAL]
        assert ends == ["first", "next1", "next2"]


async def test_a_full_queue_refuses_in_the_words_of_cog(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path, gpu_worker_queue=1) as worker, calling(worker, told[1]) as caller:
        await caller.put("first", mode="gate", text="open")
        await until_it_runs(told, "first")
        assert (await caller.put("second")).status_code == 202
        refused = await caller.put("third")
        assert (refused.status_code, refused.json()["status"]) == (409, "failed")
        assert (await caller.health())["status"] == "BUSY"
        assert (await caller.put("second")).status_code == 202  # one in flight is not refused
        (tmp_path / "moody.py.open").touch()
        assert {(await heard(told))["id"] for _ in range(2)} == {"first", "second"}


async def test_a_repeated_create_runs_once_and_hears_the_end_again(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("once", mode="gate", text="open")
        await until_it_runs(told, "once")
        again = await caller.put("once", mode="gate", text="open")
        assert (again.status_code, again.json()["status"]) == (202, "processing")
        (tmp_path / "moody.py.open").touch()
        first = await heard(told)
        assert (await caller.put("once", mode="raise")).status_code == 202
        assert await heard(told) == first


async def test_a_crash_sends_the_prediction_once_more(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("fragile", mode="exit-once", text="mark")
        word = await heard(told)
        assert (word["id"], word["status"], word["output"]) == ("fragile", "succeeded", "mark")


async def test_a_second_crash_fails_it_and_the_next_one_is_served(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("fatal", mode="exit")
        word = await heard(told)
        assert (word["status"], word["error"]) == ("failed", "the engine crashed twice on this prediction")
        await caller.put("after")
        assert (await heard(told))["status"] == "succeeded"


async def test_a_killed_server_costs_nothing_but_time(tmp_path: Path, told: Told, children: Children) -> None:
    """Fault 68: the process that computes is gone from one moment to the next."""
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("robbed", mode="gate", text="open")
        await until_it_runs(told, "robbed")
        (tmp_path / "moody.py.open").touch()
        supervisor = worker.garage.bays["moody"].supervisor
        assert supervisor is not None
        assert supervisor.pid is not None
        os.killpg(supervisor.pid, signal.SIGKILL)
        assert (await heard(told))["status"] == "succeeded"


async def test_a_silent_engine_is_killed_and_tried_once_more(tmp_path: Path, told: Told) -> None:
    """Fault 68: a kernel that hangs is noticed by another process than its own."""
    async with gpu_worker(tmp_path, gpu_worker_quiet_s=6) as worker, calling(worker, told[1]) as caller:
        await caller.put("stuck", mode="hang-once", text="mark")
        assert (await heard(told))["output"] == "mark"


async def test_one_that_takes_too_long_is_ended_for_good(
    tmp_path: Path, told: Told, children: Children
) -> None:
    async with gpu_worker(tmp_path, gpu_worker_run_s=2) as worker, calling(worker, told[1]) as caller:
        await caller.put("endless", mode="sleep")
        word = await heard(told)
        assert (word["status"], word["error"]) == ("failed", "it took longer than 2 s and was stopped")
    assert children() == []


async def test_the_one_after_a_hang_keeps_both_its_tries(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path, gpu_worker_run_s=8) as worker, calling(worker, told[1]) as caller:
        await caller.put("endless", mode="sleep")
        await caller.put("fragile", mode="exit-once", text="mark")
        assert [(await heard(told))["status"] for _ in range(2)] == ["failed", "succeeded"]


async def test_a_cancel_ends_the_waiting_at_once_and_the_running_too(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("running", mode="sleep")
        await until_it_runs(told, "running")
        await caller.put("waiting")
        assert await caller.cancel("waiting") == 200
        assert [(word["id"], word["status"]) for word in [await heard(told)]] == [("waiting", "canceled")]
        assert await caller.cancel("running") == 200
        word = await heard(told)
        assert (word["id"], word["status"]) == ("running", "canceled")
        assert await caller.cancel("running") == 404
        assert await caller.cancel("nobody") == 404


async def test_a_cancel_need_not_wait_for_the_engine_to_be_loaded(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        (tmp_path / "moody.py.slow").touch()
        await caller.put("early")
        await becomes(lambda: worker.garage.bays["moody"].state == "starting")
        assert await caller.cancel("early") == 200
        assert (await heard(told))["status"] == "canceled"
        (tmp_path / "moody.py.slow").unlink()
        await caller.put("next")
        assert (await heard(told))["status"] == "succeeded"


async def test_an_engine_that_is_deaf_to_a_cancel_is_killed(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("deaf", mode="deaf")
        await until_it_runs(told, "deaf")
        await caller.cancel("deaf")
        assert (await heard(told))["status"] == "canceled"
        await caller.put("after")
        assert (await heard(told))["status"] == "succeeded"


async def test_a_stop_says_the_last_word_for_all(tmp_path: Path, told: Told, children: Children) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("running", mode="sleep")
        await until_it_runs(told, "running")
        await caller.put("waiting")
        told[0].refusals.append(503)  # and insists
    words = {}
    while not told[0].hooks.empty():
        word = json.loads(told[0].hooks.get_nowait()[2])
        if word["status"] in TERMINAL:
            words[word["id"]] = (word["status"], word["error"])
    assert words == {
        "running": ("failed", "WorkerStopped: the worker was stopped before it ended"),
        "waiting": ("failed", "WorkerStopped: the worker is stopping"),
    }
    assert children() == []


async def test_what_runs_may_end_within_the_time_of_a_stop(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path, shutdown_s=60) as worker, calling(worker, told[1]) as caller:
        await caller.put("running", mode="gate", text="open")
        await until_it_runs(told, "running")
        (tmp_path / "moody.py.open").touch()
    assert (await heard(told))["status"] == "succeeded"


async def test_an_engine_that_cannot_be_loaded_fails_its_predictions_and_says_why(
    tmp_path: Path, told: Told
) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        (tmp_path / "moody.py.broken").touch()
        await caller.put("hopeless")
        word = await heard(told)
        assert word["status"] == "failed"
        assert word["error"].startswith("EngineUnavailable: the Cog server's setup failed")
        (tmp_path / "moody.py.broken").unlink()
        await caller.put("after")
        assert (await heard(told))["status"] == "succeeded"


def three_groups(folder: Path) -> list[Group]:
    return [Group(name, (name,), moody(folder, name), need_bytes=10) for name in ("music", "speech", "stems")]


async def test_the_least_recently_used_engine_makes_room(
    tmp_path: Path, told: Told, children: Children
) -> None:
    loaded: list[int] = []

    async def room_for_two() -> int:
        loaded.append(len(children()))
        states = [bay.state for bay in worker.garage.bays.values()]
        return 0 if states.count("up") >= 2 else 10

    groups = three_groups(tmp_path)
    async with (
        gpu_worker(tmp_path, groups, free_bytes=room_for_two) as worker,
        calling(worker, told[1]) as caller,
    ):
        for number, kind in enumerate(("music", "speech", "music", "stems")):
            await caller.put(f"p{number}", kind=kind)
            assert (await heard(told))["status"] == "succeeded"
            await becomes(lambda: not any(bay.users for bay in worker.garage.bays.values()))
        states = {name: bay.state for name, bay in worker.garage.bays.items()}
    assert states == {"music": "up", "speech": "down", "stems": "up"}
    assert len(loaded) == 4  # three loads, and once more after the unloading


async def test_an_engine_in_use_is_never_unloaded_for_another(tmp_path: Path, told: Told) -> None:
    async def none() -> int:
        return 0

    groups = three_groups(tmp_path)
    async with (
        gpu_worker(tmp_path, groups, free_bytes=none) as worker,
        calling(worker, told[1]) as caller,
    ):
        await caller.put("long", kind="music", mode="gate", text="open")
        await until_it_runs(told, "long")
        await caller.put("other", kind="speech")
        word = await heard(told)
        assert (word["id"], word["status"]) == ("other", "succeeded")
        (tmp_path / "music.py.open").touch()
        assert (await heard(told))["id"] == "long"


async def test_an_idle_engine_is_unloaded_and_comes_back(
    tmp_path: Path, told: Told, children: Children
) -> None:
    async with gpu_worker(tmp_path, gpu_worker_idle_s=0.2) as worker, calling(worker, told[1]) as caller:
        for _ in range(2):
            await caller.put(f"p{_}")
            assert (await heard(told))["status"] == "succeeded"
            await becomes(lambda: worker.garage.bays["moody"].state == "down")
            await becomes(lambda: not children())


async def test_a_kind_can_be_named_in_the_address(tmp_path: Path, told: Told) -> None:
    groups = three_groups(tmp_path)
    async with gpu_worker(tmp_path, groups) as worker, calling(worker, told[1]) as caller:
        assert (await caller.put("p1", "/kinds/stems", text="four")).status_code == 202
        assert (await heard(told))["output"] == "four"
        assert (await caller.health())["groups"]["stems"]["state"] == "up"
        unknown = await caller.put("p2", kind="opera")
        assert unknown.status_code == 422
        assert unknown.json()["detail"][0]["loc"] == ["body", "input", "kind"]


async def test_without_respond_async_the_answer_is_the_end(tmp_path: Path) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, "http://unused") as caller:
        answer = await caller.client.post("/predictions", json={"input": {"text": "now"}})
        assert (answer.status_code, answer.json()["output"]) == (200, "now")
        failed = await caller.client.post("/predictions", json={"input": {"mode": "raise"}})
        assert (failed.status_code, failed.json()["status"]) == (200, "failed")


async def test_a_caller_that_leaves_a_synchronous_call_cancels_it(tmp_path: Path) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, "http://unused") as caller:
        asking = asyncio.create_task(caller.client.post("/predictions", json={"input": {"mode": "sleep"}}))
        await becomes(lambda: any(ticket.phase == "running" for ticket in worker.front.live), within_s=60)
        asking.cancel()
        await becomes(lambda: not worker.front.live, within_s=60)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"[]", 422),
        (b'{"input": 5}', 422),
        (b'{"input": {}, "webhook_events_filter": ["opera"]}', 422),
        (b'{"input": {}, "id": "../shutdown"}', 422),
        (b'{"input": {}, "id": ".."}', 422),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused(tmp_path: Path, body: bytes, status: int) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, "http://unused") as caller:
        headers = {"content-type": "application/json"}
        answer = await caller.client.post("/predictions", content=body, headers=headers)
        assert answer.status_code == status
        assert (await caller.client.post("/predictions", content=b"x")).status_code == 415


async def test_news_is_taken_only_from_our_own_servers(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        await caller.put("mine", mode="gate", text="open")
        await until_it_runs(told, "mine")
        forged = {"id": "mine", "status": "succeeded", "output": "forged"}
        assert (await caller.client.post("/hooks/guess/mine", json=forged)).status_code == 404
        (tmp_path / "moody.py.open").touch()
        assert (await heard(told))["output"] == "open"


async def test_the_bearer_goes_with_every_callback(tmp_path: Path, told: Told) -> None:
    async with (
        gpu_worker(tmp_path, webhook_auth_token="s3cret") as worker,
        calling(worker, told[1]) as caller,
    ):
        await caller.put("signed")
        while True:
            _, headers, body, _ = await told[0].hooks.get()
            assert headers["authorization"] == "Bearer s3cret"
            if json.loads(body)["status"] in TERMINAL:
                break


async def test_a_caller_that_refuses_the_size_of_a_result_hears_why(tmp_path: Path, told: Told) -> None:
    async with gpu_worker(tmp_path) as worker, calling(worker, told[1]) as caller:
        told[0].refusals.append(413)
        await caller.put("large", mode="succeed", text="x" * 200_000)
        assert (await heard(told))["status"] == "succeeded"  # which it did not take
        word = await heard(told)
        assert (word["id"], word["status"]) == ("large", "failed")
        assert "more than the caller takes" in word["error"]


async def started(folder: Path, *arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    environment = os.environ | {"VAR_DIR": str(folder / "var"), "SHUTDOWN_S": "0.2"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "gpu-worker", "--port", "0", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while line := (await process.stdout.readline()).decode():
            if "COG_URLS=" in line:
                return process, line.split("COG_URLS=")[1].strip()
    raise AssertionError("it did not come up")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_no_cog_server_outlives_the_command(
    tmp_path: Path, told: Told, children: Children, number: signal.Signals
) -> None:
    """A SIGTERM gives the last word; a SIGKILL cannot, and still leaves nothing running."""
    process, url = await started(tmp_path)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        caller = Caller.__new__(Caller)
        caller.client, caller.webhook = client, told[1]
        await caller.put("long", kind="speech", text="9" * 4900)
        await until_it_runs(told, "long")
        engines = psutil.Process(process.pid).children(recursive=True)
        assert len(engines) >= 2
        process.send_signal(number)
        async with asyncio.timeout(60):
            await process.wait()
    if number == signal.SIGTERM:
        assert (await heard(told))["error"] == "WorkerStopped: the worker was stopped before it ended"
        assert process.returncode == 0
    _, left = await asyncio.to_thread(psutil.wait_procs, engines, timeout=10)
    assert [one for one in left if one.status() != psutil.STATUS_ZOMBIE] == []
