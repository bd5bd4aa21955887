"""The hosted provider in a process of its own: the fake, with moods, and a book of what it did.

`python -m tests.crash.laboratory.hosted --port N --seed S [--trouble P] [--malice P]`. It signs and sends,
loses, doubles and reorders callbacks, refuses some requests and breaks some connections after the work was
done: that is trouble. Malice is predictions that fail, outputs that are no audio or lie where nobody may
fetch them, forged callbacks and answers that come very late. `/lab/book` answers with every callback that was
acknowledged and every prediction with the attempt that asked for it. `POST /lab/outage/NAME` begins one of
`tests.crash.laboratory.outages`, whole and until the next; the name `none` ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import re
import sys
import zlib
from typing import Any

import httpx
import numpy as np
import soundfile
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.fakes.provider import TERMINAL, Drop, FakeReplicate, bad_gateway, no_credit, problem, throttled

RATE = 24_000
CLIP_S = 0.6
LOOK_S = 0.02
LATEST_S = 3.0
"""The longest that a malicious answer is held back."""
HOSTILE: tuple[bytes, ...] = (
    b"",
    b"<html><body>Sign in</body></html>",
    b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile secret.wav\n",
    b"RIFF\xff\xff\xff\xffWAVEfmt ",
    bytes(4096),
)
FORBIDDEN = ("http://169.254.169.254/latest/meta-data", "http://10.0.0.1/clip.wav", "file:///etc/passwd")
ATTEMPT = re.compile(r"/v1/webhooks/replicate/([^?]+)")


class Moody:
    """The provider's will: when a prediction moves on, and what goes wrong with it."""

    def __init__(self, fake: FakeReplicate, dice: random.Random, trouble: float, malice: float) -> None:
        self._fake = fake
        self._dice = dice
        self._trouble = trouble
        self._malice = malice
        self._failed = 0
        self._outage = "none"
        self._unanswered: list[dict[str, Any]] = []
        """Predictions that were made while every answer to a create was lost."""
        self._begun: set[str] = set()
        self._lives: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/lab/book":
            await JSONResponse(self._book())(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"].startswith("/lab/outage/"):
            self._outage = scope["path"].rpartition("/")[2]
            await JSONResponse({"outage": self._outage})(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            if (refusal := self._refusal(Request(scope))) is not None:
                await refusal(scope, receive, send)
                return
            self._spoil(Request(scope))
            if self._dice.random() < self._malice:
                await asyncio.sleep(self._dice.uniform(0, LATEST_S))
        await self._fake(scope, receive, send)

    async def run(self) -> None:
        """Give every new prediction a life of its own."""
        while True:
            for key in self._fake.live():
                if key not in self._begun:
                    self._begun.add(key)
                    if self._outage == "unanswered":
                        self._unanswered.append(self._fake.predictions[key])
                    life = asyncio.create_task(self._live(key))
                    self._lives.add(life)
                    life.add_done_callback(self._lives.discard)
            await asyncio.sleep(LOOK_S)

    async def _live(self, key: str) -> None:
        await asyncio.sleep(self._dice.expovariate(1 / 0.1))
        while self._outage == "cold":
            await asyncio.sleep(LOOK_S)
        if self._has_ended(key):
            return
        if self._outage == "forgetful":
            del self._fake.predictions[key]
            return
        self._change_mood()
        await self._fake.begin(key)
        await asyncio.sleep(self._dice.expovariate(1 / 0.3))
        if self._has_ended(key):
            return
        self._change_mood()
        if self._outage in ("failing", "empty"):
            await self._fake.finish(key, error="CUDA error" if self._outage == "failing" else None)
            return
        if self._dice.random() < self._malice:
            await self._spite(key)
            return
        output = self._fake.keep_output(f"{key}.wav", make_sound(key))
        await self._fake.finish(key, output=output)

    async def _spite(self, key: str) -> None:
        """One of the ways in which a provider does harm."""
        how = self._dice.choice(["fail", "hostile", "forbidden", "odd"])
        if how == "fail":
            self._failed += 1
            await self._fake.finish(key, error="CUDA out of memory")
        elif how == "hostile":
            output = self._fake.keep_output(f"{key}.mp3", self._dice.choice(HOSTILE), "audio/mpeg")
            await self._fake.finish(key, output=output)
        elif how == "forbidden":
            await self._fake.finish(key, output=self._dice.choice(FORBIDDEN))
        else:
            self._failed += 1
            await self._fake.finish(key, output=None)

    def _has_ended(self, key: str) -> bool:
        return self._fake.predictions[key]["status"] in TERMINAL

    def _change_mood(self) -> None:
        """Read by the fake before it sends the next callback, and not after."""
        silent = self._outage == "silent"
        lost = {event for event in ("start", "completed") if silent or self._happens()}
        self._fake.lose_hooks = frozenset(lost)
        self._fake.double_hooks = self._happens()
        self._fake.reorder = self._happens()

    def _refusal(self, request: Request) -> Response | None:
        """What the outage answers instead of the provider; a create may still be done first."""
        creates = request.method == "POST" and request.url.path.endswith("/predictions")
        if self._outage == "broken":
            return bad_gateway()
        if self._outage == "hung_up":
            return Drop(after=False)
        if self._outage == "no_access":
            return problem(401, "Unauthenticated", "You did not pass a valid authentication token")
        if not creates:
            return None
        if self._outage == "unanswered":
            self._fake.script("create", Drop(after=True))
        if self._outage == "nonsense":
            return JSONResponse(["not", "a", "prediction"], 201)
        return {"no_credit": no_credit(), "throttled": throttled(2)}.get(self._outage)

    def _spoil(self, request: Request) -> None:
        """Now and then a call meets something else than an answer."""
        if not self._happens(0.5):
            return
        path = request.url.path
        if request.method == "POST" and path.endswith("/predictions"):
            reply = self._dice.choice([problem(503, "Unavailable", "flaky"), throttled(1), Drop(after=True)])
            self._fake.script("create", reply)
        elif path.rpartition("/")[0].endswith("/predictions"):
            self._fake.script("get", problem(502, "Bad gateway", "flaky"))

    def _happens(self, times: float = 1.0) -> bool:
        return self._dice.random() < self._trouble * times

    def _book(self) -> dict[str, object]:
        acknowledged = [hook.headers["webhook-id"] for hook in self._fake.sent if 200 <= hook.status < 300]
        predictions = {
            key: {
                "attempt_id": attempt_of(row.get("webhook", "")),
                "status": row["status"],
                "has_output": bool(row.get("output")),
            }
            for key, row in self._fake.predictions.items()
        }
        return {
            "acknowledged": acknowledged,
            "sent": len(self._fake.sent),
            "failed": self._failed,
            "unanswered": [attempt_of(row.get("webhook", "")) for row in self._unanswered],
            "predictions": predictions,
        }


def attempt_of(callback_url: str) -> str | None:
    found = ATTEMPT.search(callback_url)
    return found[1] if found else None


def make_sound(key: str) -> bytes:
    """A WAV of its own for each prediction, so that no two jobs share an object."""
    noise = np.random.default_rng(zlib.crc32(key.encode())).normal(0, 0.1, int(RATE * CLIP_S))
    into = io.BytesIO()
    soundfile.write(into, noise.astype(np.float32), RATE, format="WAV")
    return into.getvalue()


async def provide(port: int, seed: int, trouble: float, malice: float) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as hooks:
        fake = FakeReplicate(hooks=hooks, base_url=f"http://127.0.0.1:{port}")
        app = Moody(fake, random.Random(seed), trouble, malice)
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off"))
        living = asyncio.create_task(app.run())
        await server.serve()
        living.cancel()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--trouble", type=float, default=0.1)
    parser.add_argument("--malice", type=float, default=0.0)
    given = parser.parse_args()
    asyncio.run(provide(given.port, given.seed, given.trouble, given.malice))
    return 0


if __name__ == "__main__":
    sys.exit(main())
