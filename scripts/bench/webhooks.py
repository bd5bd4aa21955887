"""The load and the server of the webhook benches: signed 2 KB webhooks by `wrk`, a process that stores
them.

The server is the real app without stations, with a no-op route beside it, in a child pinned to one core;
`wrk` with 64 connections, and PostgreSQL where there is one, have the other.
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
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ground import Skipped, await_file, end, two_cores

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

SECRET = "whsec_" + base64.b64encode(b"bench-secret-bench-secret-bench!").decode()
BODY = json.dumps(
    {"id": "p" * 26, "status": "processing", "logs": "x" * 1900, "output": None, "metrics": {}}
).encode()
CONNECTIONS = 64
LINES_A_SECOND = 25_000
NOOP = "/v1/webhooks/noop"
"""What answers and does nothing, behind the same front."""
ATTEMPTS = 40_000
"""Whose webhooks they are. Each has three at a time, as Replicate sends them."""
LUA = """
local function read(name)
  local lines = {}
  for line in io.lines(os.getenv(name)) do lines[#lines + 1] = line end
  return lines
end
local lines, paths, at = read("BENCH_LINES"), read("BENCH_PATHS"), 0
local body = io.open(os.getenv("BENCH_BODY")):read("*a")
request = function()
  at = at % #lines + 1
  local id, stamp, signature = lines[at]:match("(%S+) (%S+) (%S+)")
  local path = paths[math.floor(at / 3) % #paths + 1]
  return wrk.format("POST", path, {["content-type"]="application/json", ["webhook-id"]=id,
    ["webhook-timestamp"]=stamp, ["webhook-signature"]=signature}, body)
end
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the load."""

    rate: float
    p50_ms: float
    p99_ms: float
    not_2xx: int


def sign(name: str, body: bytes, *, stamp: int | None = None) -> dict[str, str]:
    """The three headers of a webhook with this id."""
    stamp = stamp or int(time.time())
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(stamp),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def service_settings(folder: str, url: str, **more: object) -> Any:
    """Settings of a service that takes these webhooks and reaches nobody."""
    from app.settings import load_settings

    values: dict[str, object] = {
        "database_url": url,
        "storage_url": f"file://{folder}/assets",
        "var_dir": folder,
        "public_url": "https://bench.test",
        "replicate_api_token": "r8_bench",
        "replicate_base_url": "http://127.0.0.1:9",
        "replicate_webhook_secret": SECRET,
        **more,
    }
    return load_settings(_env_file=None, **values)


def serve(folder: str, url: str, *, grouped: bool) -> None:
    """The child."""
    import asyncio

    import uvloop
    from starlette.requests import Request
    from starlette.responses import Response

    from app.logs import configure_logs
    from app.serve import running_service
    from db.group_commit import GroupCommit
    from db.ids import make_id

    async def noop(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await Response(status_code=200)(scope, receive, send)

    async def main() -> None:
        configure_logs("json", "error")
        async with running_service(service_settings(folder, url), worker=False) as service:
            inbox = service.runtime.inbox
            if not grouped:
                # The same ingress with groups of one: a commit and a sync for each webhook.
                inbox._group = GroupCommit(inbox._ingress.write, most_together=1)
            # Beside the webhooks' door, and like it before the gates of the API, which would be measured too.
            door = service.app._door

            async def beside(scope: Scope, receive: Receive, send: Send) -> None:
                await (noop if scope["path"] == NOOP else door)(scope, receive, send)

            service.app._door = beside
            urls = (service.runtime.callbacks.url("replicate", make_id("att")) for _ in range(ATTEMPTS))
            paths = [url.removeprefix("https://bench.test") for url in urls]
            whole = Path(folder, "ready.part")
            whole.write_text(json.dumps({"url": service.url, "paths": paths}))
            whole.rename(Path(folder, "ready"))
            await asyncio.Event().wait()

    uvloop.run(main())


@contextmanager
def server(
    folder: Path, url: str, *, grouped: bool = True, preload: Path | None = None
) -> Iterator[dict[str, Any]]:
    """The child, pinned to the second core; yields its `url` and the `paths` of the webhooks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "load.lua").write_text(LUA)
    (folder / "body").write_bytes(BODY)
    argv = [sys.executable, __file__, "--serve", str(folder), "--url", url]
    argv += [] if grouped else ["--ungrouped"]
    environment = {**os.environ, **({"LD_PRELOAD": str(preload)} if preload else {})}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(two_cores()[1]), *argv],
            stdout=log, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        yield await_file(folder / "ready", process, folder / "log")
    finally:
        end(process, kill=True)


def prepare(folder: Path, seconds: int) -> None:
    """Pre-signed ids, so that the load costs no hashing; enough that none is sent twice."""
    stamp = int(time.time())
    run = os.urandom(4).hex()
    with (folder / "lines").open("w") as lines:
        for number in range(LINES_A_SECOND * seconds):
            headers = sign(f"msg_{run}_{number}", BODY, stamp=stamp)
            lines.write(" ".join(headers.values()) + "\n")


def load(folder: Path, url: str, paths: Sequence[str], seconds: int) -> Trial:
    """One run of `wrk` on the first core."""
    (folder / "paths").write_text("\n".join(paths))
    environment = {
        **os.environ,
        "BENCH_LINES": f"{folder}/lines",
        "BENCH_BODY": f"{folder}/body",
        "BENCH_PATHS": f"{folder}/paths",
    }
    printed = subprocess.run(
        ["taskset", "-c", str(two_cores()[0]), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s",
         "--timeout", "10s", "--latency", "-s", f"{folder}/load.lua", url],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1])  # type: ignore[index]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    return Trial(rate, _ms(printed, "50%"), _ms(printed, "99%"), int(bad[1]) if bad else 0)


def need_wrk() -> None:
    if shutil.which("wrk") is None:
        raise Skipped("needs `wrk` on the PATH")


def _ms(printed: str, name: str) -> float:
    value, unit = re.search(rf"{name}\s+([\d.]+)(us|ms|s)", printed).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", metavar="FOLDER", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ungrouped", action="store_true")
    given = parser.parse_args()
    serve(given.serve, given.url, grouped=not given.ungrouped)
