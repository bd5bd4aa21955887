"""How many signed 2 KB webhooks a second one process stores durably, beside a no-op route of the same server.

Every webhook is verified, deduplicated by the database and answered after its own commit, which is synced
to the disk. The server runs in a child pinned to one core, the load (`wrk`, 64 connections) on the other;
the two routes take turns. Needs `wrk` on the PATH. Usage: scripts/bench/ingress.py [--url DATABASE_URL]
[--seconds N] [--rounds N] [--connections N]
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SECRET = "whsec_" + base64.b64encode(b"bench-secret-bench-secret-bench!").decode()
BODY = json.dumps(
    {"id": "p" * 26, "status": "processing", "logs": "x" * 1900, "output": None, "metrics": {}}
).encode()
LUA = """
local lines, at = {}, 0
for line in io.lines(os.getenv("BENCH_LINES")) do lines[#lines + 1] = line end
local body = io.open(os.getenv("BENCH_BODY")):read("*a")
request = function()
  at = at % #lines + 1
  local id, stamp, signature = lines[at]:match("(%S+) (%S+) (%S+)")
  return wrk.format("POST", os.getenv("BENCH_PATH"), {["content-type"]="application/json", ["webhook-id"]=id,
    ["webhook-timestamp"]=stamp, ["webhook-signature"]=signature}, body)
end
"""


def serve(folder: str, url: str) -> None:
    """The child: the real app with a no-op route beside it, no stations."""
    import asyncio

    import uvloop
    from starlette.responses import Response
    from starlette.routing import Route

    from app.logs import configure_logs
    from app.serve import running_service
    from app.settings import load_settings

    async def noop(request: object) -> Response:
        await request.body()  # type: ignore[attr-defined]
        return Response(status_code=200)

    async def main() -> None:
        configure_logs("json", "error")
        settings = load_settings(
            _env_file=None,
            database_url=url,
            storage_url=f"file://{folder}/assets",
            var_dir=folder,
            public_url="https://bench.test",
            replicate_api_token="r8_bench",
            replicate_base_url="http://127.0.0.1:9",
            replicate_webhook_secret=SECRET,
        )
        async with running_service(settings, worker=False) as service:
            app = service.app
            app.api.router.routes.insert(0, Route("/noop", noop, methods=["POST"]))
            path = service.runtime.callbacks.url("replicate", "att_bench").removeprefix("https://bench.test")
            Path(folder, "ready").write_text(json.dumps({"url": service.url, "path": path}))
            await asyncio.Event().wait()

    uvloop.run(main())


def sign(folder: str, count: int) -> None:
    """Pre-signed ids, so that the load costs no hashing."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    stamp = str(int(time.time()))
    run = os.urandom(4).hex()
    with Path(folder, "lines").open("w") as lines:
        for number in range(count):
            name = f"msg_{run}_{number}"
            signed = hmac.new(key, f"{name}.{stamp}.".encode() + BODY, hashlib.sha256).digest()
            lines.write(f"{name} {stamp} v1,{base64.b64encode(signed).decode()}\n")


def load(folder: str, url: str, path: str, seconds: int, connections: int) -> tuple[float, float, float, int]:
    """One wrk run: requests/s, p50 and p99 in ms, answers that were not 2xx."""
    environment = {
        **os.environ,
        "BENCH_LINES": f"{folder}/lines",
        "BENCH_BODY": f"{folder}/body",
        "BENCH_PATH": path,
    }
    printed = subprocess.run(
        ["taskset", "-c", "0", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency",
         "-s", f"{folder}/load.lua", url],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    return rate, _ms(printed, "50%"), _ms(printed, "99%"), int(bad[1]) if bad else 0


def _ms(printed: str, name: str) -> float:
    value, unit = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", printed).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


@contextmanager
def child(folder: str, url: str):  # type: ignore[no-untyped-def]
    argv = ["taskset", "-c", "1", sys.executable, __file__, "--serve", folder, "--url", url]
    process = subprocess.Popen(argv)
    try:
        ready = Path(folder, "ready")
        until = time.monotonic() + 30
        while not ready.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        yield json.loads(ready.read_text())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def main(options: argparse.Namespace) -> None:
    if shutil.which("wrk") is None:
        sys.exit("needs wrk")
    with tempfile.TemporaryDirectory() as folder:
        url = options.url or f"sqlite+aiosqlite:///{folder}/bench.db"
        Path(folder, "load.lua").write_text(LUA)
        Path(folder, "body").write_bytes(BODY)
        rows: dict[str, list[tuple[float, float, float, int]]] = {"noop": [], "webhook": []}
        with child(folder, url) as ready:
            for _ in range(options.rounds):
                sign(folder, 40_000 * options.seconds)
                for name, path in (("noop", "/noop"), ("webhook", ready["path"])):
                    rows[name].append(load(folder, ready["url"], path, options.seconds, options.connections))
    print(f"{'route':10s} {'req/s':>9s} {'p50 ms':>8s} {'p99 ms':>8s} {'not 2xx':>8s}")
    for name, runs in rows.items():
        rate, p50, p99 = (statistics.median(run[at] for run in runs) for at in range(3))
        print(f"{name:10s} {rate:9.0f} {p50:8.2f} {p99:8.2f} {sum(run[3] for run in runs):8d}")
    ratio = statistics.median(run[0] for run in rows["webhook"]) / statistics.median(
        run[0] for run in rows["noop"]
    )
    print(f"ratio {ratio:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", metavar="FOLDER")
    parser.add_argument("--url")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    serve(given.serve, given.url) if given.serve else main(given)
