"""What the doctor says of a service that runs: how bad it is, and what to do about it."""

from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.cli.doctor.finding import Finding, Level
from app.cli.doctor.running import (
    _check_database_clock,
    _check_queues,
    _check_service,
    _judge_process,
    _judge_ready,
    _judge_skew,
)
from app.cli.doctor.sizes import CALLBACK_BYTES, _check_callback, _check_limits
from app.cli.doctor.sockets import _check_sockets
from app.main import create_app
from db.tables import Job
from tests.conftest import make_settings
from tests.fakes.provider import TOKEN, no_credit, served
from tests.flow.conftest import OpenStage, Stage


async def only(check: Any, line: Stage) -> Finding:
    (finding,) = await check(line.runtime.settings)
    assert isinstance(finding, Finding)
    assert bool(finding.hint) == (finding.level is not Level.OK)
    return finding


@pytest.mark.parametrize(
    ("late_s", "level"), [(-300, Level.OK), (30, Level.OK), (90, Level.WARN), (3000, Level.FAIL)]
)
async def test_a_queue_that_nobody_works_on_is_found_by_how_late_it_is(
    line: Stage, late_s: float, level: Level
) -> None:
    # The other one is due much later: however slow this machine is, it is not late.
    later = line.runtime.line.clock.now() + timedelta(seconds=300)
    await line.change(Job, await line.ask(), run_after=later)
    late = await line.ask()
    run_after = line.runtime.line.clock.now() - timedelta(seconds=late_s)
    await line.change(Job, late, run_after=run_after)
    finding = await only(_check_queues, line)
    assert finding.level is level
    assert "2 at dispatch, 0 at apply, 0 at finish" in finding.detail
    assert ("dispatch is" in finding.detail) == (late_s > 0)


async def test_a_long_queue_that_waits_its_turn_is_no_fault(line: Stage) -> None:
    later = line.runtime.line.clock.now() + timedelta(seconds=50)
    for _ in range(5):
        await line.change(Job, await line.ask(), run_after=later)
    finding = await only(_check_queues, line)
    assert (finding.level, "5 at dispatch" in finding.detail) == (Level.OK, True)


async def test_an_open_circuit_is_told_with_its_reason(line: Stage) -> None:
    line.fake.script("create", no_credit())
    await line.ask()
    await line.drain()
    queues, circuit = await _check_queues(line.runtime.settings)
    assert (queues.level, circuit.level) == (Level.OK, Level.WARN)
    assert circuit.detail.startswith("replicate open until")
    assert "402" in circuit.detail


async def test_this_machines_clock_is_held_against_the_databases(line: Stage) -> None:
    finding = await only(_check_database_clock, line)
    assert finding.level is Level.OK


@pytest.mark.parametrize(
    ("skew_s", "level", "words"),
    [
        (0.4, Level.OK, "0.4 s ahead of"),
        (-3.0, Level.WARN, "3.0 s behind"),
        (300.0, Level.FAIL, "300.0 s ahead of"),
        (-300.0, Level.FAIL, "300.0 s behind"),
    ],
)
def test_a_skewed_clock_is_found(skew_s: float, level: Level, words: str) -> None:
    """Fault 55: the skew shown in `doctor`."""
    finding = _judge_skew(skew_s)
    assert (finding.level, words in finding.detail) == (level, True)


async def test_what_the_service_says_of_itself_is_judged(stage_on_sqlite: OpenStage) -> None:
    async with stage_on_sqlite() as line:
        said = (await line.client.get("/readyz")).json()
    assert [finding.level for finding in _judge_ready("http://here", said)] == [Level.OK] * 3

    def judged(change: dict[str, Any]) -> dict[str, Level]:
        changed = copy.deepcopy(said) | change
        return {finding.name: finding.level for finding in _judge_ready("http://here", changed)}

    closed = {"open": False, "reasons": ["full"]}
    assert judged({"intake": closed})["service"] is Level.WARN
    assert judged({"intake": closed, "ready": False})["service"] is Level.FAIL
    assert judged({"event_loop": {"lag_worst_s": 1.5}})["event loop"] is Level.WARN
    assert judged({"event_loop": {"lag_worst_s": 6.0}})["event loop"] is Level.FAIL
    said["checks"]["database"]["pool"]["in_use"] = said["checks"]["database"]["pool"]["size"]
    assert judged({})["connections"] is Level.WARN


@pytest.mark.parametrize(("open_fds", "level"), [(50, Level.OK), (850, Level.WARN), (960, Level.FAIL)])
def test_a_process_that_is_running_out_of_files_is_found(open_fds: int, level: Level) -> None:
    metrics = {"process_open_fds": float(open_fds), "process_max_fds": 1000.0}
    assert [finding.level for finding in _judge_process(metrics)] == [level]


async def test_a_service_that_does_not_answer_is_a_failure_and_none_at_all_is_not(
    sqlite_line: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPRISE_URL", raising=False)
    assert (await only(_check_service, sqlite_line)).level is Level.OK
    monkeypatch.setenv("REPRISE_URL", "http://127.0.0.1:9")
    finding = await only(_check_service, sqlite_line)
    assert (finding.level, "does not answer" in finding.detail) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("proxy_bytes", "level", "words"),
    [
        (None, Level.OK, "read to its end"),
        (CALLBACK_BYTES - 1, Level.FAIL, "not by this service"),
    ],
)
async def test_a_proxy_that_lets_no_real_callback_through_is_found(
    proxy_bytes: int | None, level: Level, words: str, stage_on_sqlite: OpenStage, tmp_path: Path
) -> None:
    """A `succeeded` that never comes because a limit of 1 MB stands before the service."""
    async with stage_on_sqlite() as line:
        app = create_app(line.runtime)

        async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
            size = int(dict(scope["headers"]).get(b"content-length", b"0"))
            refused = proxy_bytes is not None and size > proxy_bytes
            await (Response("too large", 413) if refused else app)(scope, receive, send)

        async with served(proxied) as url:
            settings = make_settings(tmp_path, public_url=url, replicate_api_token=TOKEN)
            (finding,) = await _check_callback(settings)
        assert (finding.level, words in finding.detail) == (level, True), finding
        assert await line.ledger() == [], "nothing was stored for it"


@pytest.mark.parametrize(("most_bytes", "level"), [(100_000_000, Level.OK), (60_000_000, Level.WARN)])
async def test_a_body_limit_below_the_largest_output_is_found(
    most_bytes: int, level: Level, tmp_path: Path
) -> None:
    settings = make_settings(tmp_path, max_content_length=most_bytes, replicate_max_file_size=50_000_000)
    (finding,) = await _check_limits(settings)
    assert finding.level is level


@pytest.mark.parametrize(
    ("passed", "level", "words"),
    [
        ({"http", "websocket"}, Level.OK, "by WebSocket and by polling"),
        ({"http"}, Level.WARN, "only polling gets through"),
        (set(), Level.FAIL, "HTTP 502"),
    ],
)
async def test_what_a_proxy_does_to_live_clients_is_found(
    passed: set[str], level: Level, words: str, stage_on_sqlite: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage_on_sqlite() as line:
        app = create_app(line.runtime)

        async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket" and "websocket" not in passed:
                await receive()
                await send({"type": "websocket.close"})
            elif scope["type"] == "http" and "http" not in passed:
                await Response("bad gateway", 502)(scope, receive, send)
            else:
                await app(scope, receive, send)

        async with served(proxied) as url:
            monkeypatch.setenv("REPRISE_URL", url)
            finding = await only(_check_sockets, line)
            app.close_intake()
    assert (finding.level, words in finding.detail) == (level, True), finding


async def test_an_address_that_is_no_service_has_no_sockets(
    sqlite_line: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPRISE_URL", raising=False)
    assert (await only(_check_sockets, sqlite_line)).level is Level.OK
    monkeypatch.setenv("REPRISE_URL", "http://127.0.0.1:9")
    finding = await only(_check_sockets, sqlite_line)
    assert (finding.level, "ConnectError" in finding.detail) == (Level.FAIL, True)
    async with served(Response('0{"page": true}')) as url:
        monkeypatch.setenv("REPRISE_URL", url)
        finding = await only(_check_sockets, sqlite_line)
    assert (finding.level, "no Socket.IO" in finding.detail) == (Level.FAIL, True)
