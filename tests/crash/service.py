"""The service as a child of a crash test: a whole one, that can be told to die by SIGKILL at a named moment.

`python -m tests.crash.service --port N --armed FILE`: settings from the environment, the URL on stdout once
it is up, logs on stderr, the ordinary end on SIGTERM. FILE may come and go at any time; while it is there it
says `POINT PASSES SECONDS`, and at that passing of that point the process dies, or its event loop is blocked
for so many seconds where they are not 0. `Child` in `tests.crash.child`
starts it and watches what it leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import uvloop

from app.crash_points import CrashPoint, Reach
from app.errors import StartupError
from app.logs import configure_logs
from app.serve import running_service
from app.settings import load_settings


def killer(armed: Path) -> Reach:
    """Ends or blocks this process at the armed passing of the armed point, and disarms the next life."""
    seen: Counter[str] = Counter()

    def reach(point: CrashPoint) -> None:
        try:
            text = armed.read_text()
        except FileNotFoundError:
            return
        name, passes, seconds = text.split()
        seen[text] += name == point
        if name == point and seen[text] == int(passes):
            armed.unlink()
            if float(seconds):
                time.sleep(float(seconds))
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    return reach


async def serve(port: int, reach: Reach) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    settings = load_settings(_env_file=None)
    # The hosted provider, which is a fake of the test, takes the place of the embedded worker.
    worker = settings.replicate_api_token is None
    async with running_service(settings, port=port, gpu_worker=worker, reach=reach) as service:
        sys.stdout.write(f"{service.url}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--armed", type=Path, required=True)
    given = parser.parse_args()
    configure_logs("json", "info")
    try:
        uvloop.run(serve(given.port, killer(given.armed)))
    except StartupError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
