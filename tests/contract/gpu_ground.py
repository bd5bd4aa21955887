"""A GPU worker of small predictors, for tests: real Cog servers behind the real front."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import structlog

from app.gpu.groups import Group
from app.gpu.running import GpuWorker, running_gpu_worker
from app.settings import load_settings

PLENTY = 1 << 40
MOODY = """
import os, pathlib, time
from cog import BaseRunner, Input

class Runner(BaseRunner):
    def setup(self):
        if pathlib.Path(__file__ + ".broken").exists():
            raise RuntimeError("no such weights")
        while pathlib.Path(__file__ + ".slow").exists():
            time.sleep(0.01)

    def run(
        self, mode: str = Input(default="succeed"), text: str = Input(default="hi"), kind: str = ""
    ) -> str:
        mark = pathlib.Path(__file__ + "." + text)
        print("progress 0.50 " + mode, flush=True)
        if mode == "raise":
            raise ValueError("boom")
        if mode == "exit" or (mode == "exit-once" and not mark.exists()):
            mark.touch()
            os._exit(3)
        if mode == "hang-once" and not mark.exists():
            mark.touch()
            time.sleep(600)
        while mode == "sleep" or (mode == "gate" and not mark.exists()):
            time.sleep(0.05)
            print("progress 0.50 " + mode, flush=True)
        while mode == "deaf":
            try:
                time.sleep(0.05)
                print("progress 0.50 deaf", flush=True)
            except BaseException:  # a cancel
                pass
        return text
"""


def moody(folder: Path, name: str = "moody") -> str:
    """Write the predictor; its `path.py:Class`."""
    file = folder / f"{name}.py"
    file.write_text(MOODY)
    return f"{file}:Runner"


async def plenty() -> int:
    return PLENTY


@asynccontextmanager
async def gpu_worker(
    folder: Path,
    groups: Sequence[Group] | None = None,
    *,
    free_bytes: Callable[[], Awaitable[int]] = plenty,
    port: int = 0,
    **settings: Any,
) -> AsyncIterator[GpuWorker]:
    """One group of the moody predictor, unless groups are given."""
    limits = {"gpu_worker_setup_s": 60.0, "shutdown_s": 0.2} | settings
    async with running_gpu_worker(
        load_settings(_env_file=None, **limits),
        groups=groups or [Group("moody", (), moody(folder))],
        tmp=folder / "engines",
        free_bytes=free_bytes,
        log=structlog.get_logger(),
        port=port,
    ) as worker:
        yield worker


class Caller:
    """Asks the worker as any client of Cog would."""

    def __init__(self, worker: GpuWorker, webhook: str) -> None:
        self.client = httpx.AsyncClient(base_url=worker.url, timeout=60, trust_env=False)
        self.webhook = webhook

    async def put(self, prediction_id: str, path: str = "", **inputs: Any) -> httpx.Response:
        return await self.client.put(
            f"{path}/predictions/{prediction_id}",
            json={"input": inputs, "webhook": f"{self.webhook}/{prediction_id}"},
            headers={"prefer": "respond-async"},
        )

    async def cancel(self, prediction_id: str) -> int:
        return (await self.client.post(f"/predictions/{prediction_id}/cancel")).status_code

    async def health(self) -> dict[str, Any]:
        page: dict[str, Any] = (await self.client.get("/health-check")).json()
        return page


@contextlib.asynccontextmanager
async def calling(worker: GpuWorker, webhook: str) -> AsyncIterator[Caller]:
    caller = Caller(worker, webhook)
    try:
        yield caller
    finally:
        await caller.client.aclose()


def write_schema(folder: Path, schema: dict[str, Any]) -> None:
    """What `cog build` would have made: with it the server validates inputs."""
    (folder / ".cog").mkdir(parents=True)
    (folder / ".cog" / "openapi_schema.json").write_text(json.dumps(schema))
