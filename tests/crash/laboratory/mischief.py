"""What callers, networks and servers do to a service besides killing it: each thing now and then.

Slow callers, requests that are nonsense, cancels, one key sent twice at once, one key for two requests,
forged callbacks, connections to PostgreSQL that are cut, and a PostgreSQL that crashes and recovers.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.crash.laboratory.load import Load
from tests.crash.laboratory.world import World
from tests.fakes.provider import FakeReplicate

STRANGER = FakeReplicate(forge=True)
SLOW_S = 4.0
NONSENSE: tuple[bytes, ...] = (
    b"{",
    b"[]",
    b'{"kind": "symphony", "input": {}}',
    b'{"kind": "sound_effect", "input": {"prompt": ""}}',
    b'{"kind": "sound_effect", "input": {"prompt": "\\u0000"}}',
    b"\xff\xfe",
)


@dataclass
class Mischief:
    """Does one thing after the other until it is cancelled."""

    world: World
    load: Load
    dice: random.Random
    per_s: float
    done: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        deeds = [self._slow_caller, self._nonsense, self._cancel, self._same_key, self._forgery]
        if not self.world.database_url.startswith("sqlite"):
            deeds.append(self._cut_connection)
        while True:
            await asyncio.sleep(self.dice.expovariate(self.per_s))
            deed = asyncio.create_task(self._try(self.dice.choice(deeds)))
            self._open.add(deed)
            deed.add_done_callback(self._open.discard)

    async def rest(self) -> None:
        """Every deed that was begun comes to its end."""
        await asyncio.gather(*self._open)

    async def crash_postgres(self) -> None:
        """SIGKILL of one backend: the server ends all the others, recovers from its log and goes on."""
        with suppress(DBAPIError, OSError):
            async with self.world.engine.connect() as connection:
                pid = (await connection.execute(text(_SOMEBODY))).scalar()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                self.done["PostgreSQL crashed"] += 1

    async def _try(self, deed: Any) -> None:
        # A service that is being killed breaks connections; what is judged are answers.
        with suppress(httpx.TransportError, OSError, DBAPIError):
            await deed()

    async def _slow_caller(self) -> None:
        place = urlsplit(self.world.url)
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        await asyncio.sleep(self.dice.uniform(0, SLOW_S))
        writer.close()
        self.done["slow caller"] += 1

    async def _nonsense(self) -> None:
        headers = {"content-type": "application/json"}
        body = self.dice.choice(NONSENSE)
        reply = await self.world.client.post("/v1/jobs", content=body, headers=headers)
        self._expect("nonsense", reply, refused=True)

    async def _cancel(self) -> None:
        if self.load.accepted:
            job_id = self.dice.choice(list(self.load.accepted.values())[-20:])
            reply = await self.world.client.post(f"/v1/jobs/{job_id}/cancel")
            if reply.status_code not in (200, 409, 503):
                self.broken.append(f"a cancel was answered {reply.status_code}: {reply.text[:200]}")
            self.done["cancel"] += 1

    async def _same_key(self) -> None:
        """Twice at once, then with another body."""
        key = f"twice-{self.dice.randrange(2**40)}"
        headers = {"Idempotency-Key": key}
        wish = self.load.wish()
        both = [self.world.client.post("/v1/jobs", json=wish, headers=headers) for _ in range(2)]
        replies = await asyncio.gather(*both, return_exceptions=True)
        answers = [each for each in replies if isinstance(each, httpx.Response)]
        made = {each.json()["id"] for each in answers if each.status_code in (200, 202)}
        if len(made) > 1:
            self.broken.append(f"one key made {len(made)} jobs")
        # Whatever became of those two: under this key there is one job, and it is accepted now.
        await self.load.ask(key, wish)
        job_id = self.load.accepted.get(key)
        if made and job_id is not None and made != {job_id}:
            self.broken.append(f"one key made {made} and {job_id}")
        if job_id is not None:
            reply = await self.world.client.post("/v1/jobs", json=self.load.wish(), headers=headers)
            self._expect("one key twice", reply, refused=True)

    async def _forgery(self) -> None:
        body = b'{"id": "forged", "status": "succeeded", "output": "https://example.test/x.wav"}'
        headers = STRANGER.signed(f"forged-{self.dice.randrange(2**40)}", body)
        reply = await self.world.client.post(
            "/v1/webhooks/replicate/att_forged", content=body, headers=headers
        )
        self._expect("forged callback", reply, refused=True)

    async def _cut_connection(self) -> None:
        async with self.world.engine.connect() as connection:
            await connection.execute(text(_CUT))
        self.done["connection to PostgreSQL cut"] += 1

    def _expect(self, what: str, reply: httpx.Response, *, refused: bool) -> None:
        """I4: bad input is the caller's fault (4xx), or nobody has time for it (503)."""
        self.done[what] += 1
        if refused and not 400 <= reply.status_code < 500 and reply.status_code != 503:
            self.broken.append(f"{what} was answered {reply.status_code}: {reply.text[:200]}")


_OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
_SOMEBODY = f"SELECT pid {_OTHERS} ORDER BY random() LIMIT 1"
_CUT = f"SELECT pg_terminate_backend(pid) FROM (SELECT pid {_OTHERS} ORDER BY random() LIMIT 1) AS one"
