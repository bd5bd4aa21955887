"""The GPU worker as a whole, for as long as a block lives.

Owns the order of the start and of the stop. A stop takes nothing new, fails what has not begun, lets what
runs end within its limit, says the last word for the rest, and waits until the last words have been heard
or their time is over; only then do the Cog servers and the listener go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from app.gpu.couriers import Couriers
from app.gpu.front import Front
from app.gpu.garage import FreeBytes, Garage
from app.gpu.groups import Group
from app.gpu.lanes import Lane, Limits
from app.gpu.tickets import failed_word
from app.settings import Settings
from app.web.server import listening, reached_at, serving

LAST_WORDS_S = 15.0
"""How long a stop waits for callers to hear their last words."""
STOPPED = "WorkerStopped: "
"""How a failure begins that is the worker's own end, and no fault of the prediction's."""


@dataclass(frozen=True, slots=True)
class GpuWorker:
    """A running one."""

    url: str
    front: Front
    garage: Garage


@asynccontextmanager
async def running_gpu_worker(
    settings: Settings,
    *,
    groups: Sequence[Group],
    tmp: Path,
    free_bytes: FreeBytes,
    log: FilteringBoundLogger,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[GpuWorker]:
    """Serve until the block ends; port 0 takes a free one. Raises StartupError with one line."""
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(listening(host, port))
        url = f"http://{reached_at(listener)}"
        bearer = settings.webhook_auth_token
        couriers = Couriers(bearer=bearer.get_secret_value() if bearer else None, log=log)
        stack.push_async_callback(couriers.aclose)
        garage = Garage(
            groups=groups,
            tmp=tmp,
            free_bytes=free_bytes,
            setup_s=settings.gpu_worker_setup_s,
            idle_s=settings.gpu_worker_idle_s,
            log=log,
        )
        front, lanes = _join(settings, groups=groups, couriers=couriers, garage=garage, url=url, log=log)
        await stack.enter_async_context(serving(front.app, listener, ws="none", timeout_graceful_shutdown=5))
        tasks = [asyncio.create_task(work) for work in (*(lane.run() for lane in lanes), garage.tidy())]
        log.info("gpu_worker.up", url=url, groups=[group.name for group in groups])
        try:
            yield GpuWorker(url, front, garage)
        finally:
            await _say_last_words(front, lanes, couriers, within_s=settings.shutdown_s, garage=garage)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    log.info("gpu_worker.down")


def _join(
    settings: Settings,
    *,
    groups: Sequence[Group],
    couriers: Couriers,
    garage: Garage,
    url: str,
    log: FilteringBoundLogger,
) -> tuple[Front, list[Lane]]:
    limits = Limits(
        run_s=settings.gpu_worker_run_s,
        quiet_s=settings.gpu_worker_quiet_s,
        return_s=2 * settings.gpu_worker_setup_s,
    )
    lanes: dict[str, Lane] = {}
    front = Front(groups=groups, couriers=couriers, queue=settings.gpu_worker_queue, lanes=lanes)
    for group in groups:
        lanes[group.name] = Lane(
            bay=garage.bays[group.name],
            garage=garage,
            limits=limits,
            hook_url=lambda prediction_id: f"{url}{front.hook_path}/{prediction_id}",
            tell=front.tell,
            log=log,
        )
    return front, list(lanes.values())


async def _say_last_words(
    front: Front, lanes: Sequence[Lane], couriers: Couriers, *, within_s: float, garage: Garage
) -> None:
    front.close_intake()
    for lane in lanes:
        lane.turn_away(f"{STOPPED}the worker is stopping")
    deadline = time.monotonic() + within_s
    running = [lane.current for lane in lanes if lane.current is not None]
    for ticket in running:
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await ticket.ended.wait()
        except TimeoutError:
            word = failed_word(ticket.id, f"{STOPPED}the worker was stopped before it ended")
            if ticket.end(word):
                front.tell(ticket, "completed", word)
    await asyncio.gather(garage.aclose(), couriers.settle(LAST_WORDS_S))
