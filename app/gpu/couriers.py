"""Carries news to the callers' webhooks as Cog does: one POST each, in order, the last until it is heard.

Promises, for each prediction: news in the order in which it came, of which only the newest interim one is
kept while an earlier one is on its way; the last word sent again after network errors, timeouts, 429 and
5xx, with the same body and growing pauses, for about seven minutes. A result that is too large for the
caller is told as a failure; another 4xx ends it. Redirects are not followed: a POST that became a GET would
lose the result. What is still to be sent is counted, so that the front can stop taking work in vain.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from structlog.typing import FilteringBoundLogger

from app.gpu.tickets import failed_word

MOST_TRIES = 13
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 102.4
POST_LIMIT_S = 30.0
INTERIM_LIMIT_S = 5.0
REPEATED = frozenset({408, 425, 429})
TOO_LARGE = 413
SMALL_BYTES = 100_000


@dataclass(slots=True)
class _Errand:
    """What one prediction's caller is still to be told."""

    url: str
    interim: bytes | None = None
    last: bytes | None = None
    runner: asyncio.Task[None] | None = None


class Couriers:
    """One errand a prediction, each on a task of its own."""

    def __init__(
        self,
        *,
        bearer: str | None,
        log: FilteringBoundLogger,
        transport: httpx.AsyncBaseTransport | None = None,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        """`bearer` goes with every POST, as Cog's WEBHOOK_AUTH_TOKEN does."""
        headers = {"content-type": "application/json", "user-agent": "reprise-gpu-worker"}
        if bearer is not None:
            headers["authorization"] = f"Bearer {bearer}"
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(),
            headers=headers,
            timeout=httpx.Timeout(POST_LIMIT_S, connect=5.0),
            trust_env=False,
        )
        self._errands: dict[str, _Errand] = {}
        self._log = log
        self._first_pause_s = first_pause_s
        self.undelivered_bytes = 0
        """Of last words that nobody has heard yet."""

    def tell(self, prediction_id: str, url: str, word: bytes) -> None:
        """Interim news: sent once, if nothing newer has come by then."""
        errand = self._errand(prediction_id, url)
        if errand.last is None:
            errand.interim = word
            self._start(prediction_id, errand)

    def tell_last(self, prediction_id: str, url: str, word: bytes) -> None:
        """The last word: sent until it is heard."""
        errand = self._errand(prediction_id, url)
        if errand.last is not None:
            return
        errand.interim, errand.last = None, word
        self.undelivered_bytes += len(word)
        self._start(prediction_id, errand)

    async def settle(self, limit_s: float) -> int:
        """Wait until everything has been heard or given up, at most so long; how many were left."""
        if running := [errand.runner for errand in self._errands.values() if errand.runner is not None]:
            await asyncio.wait(running, timeout=limit_s)
        return len(self._errands)

    async def aclose(self) -> None:
        running = [errand.runner for errand in self._errands.values() if errand.runner is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._client.aclose()

    def _errand(self, prediction_id: str, url: str) -> _Errand:
        return self._errands.setdefault(prediction_id, _Errand(url))

    def _start(self, prediction_id: str, errand: _Errand) -> None:
        if errand.runner is None:
            errand.runner = asyncio.create_task(self._run(prediction_id, errand))

    async def _run(self, prediction_id: str, errand: _Errand) -> None:
        try:
            while errand.interim is not None:
                word, errand.interim = errand.interim, None
                await self._post(errand.url, word, INTERIM_LIMIT_S)
            if errand.last is not None:
                await self._insist(prediction_id, errand.url, errand.last)
        finally:
            # No await between the last look at `errand` and here: nothing can have been added unseen.
            self.undelivered_bytes -= len(errand.last or b"")
            del self._errands[prediction_id]

    async def _insist(self, prediction_id: str, url: str, word: bytes) -> None:
        pause_s = self._first_pause_s
        for _ in range(MOST_TRIES):
            status = await self._post(url, word, POST_LIMIT_S)
            if 200 <= status < 300:
                return
            if status == TOO_LARGE and len(word) > SMALL_BYTES:
                size = f"{len(word) / 1_000_000:.0f} MB"
                word = failed_word(prediction_id, f"the output of {size} is more than the caller takes")
                continue
            if status and status < 500 and status not in REPEATED:
                break
            await asyncio.sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        self._log.error("prediction.last_word_unheard", prediction_id=prediction_id)

    async def _post(self, url: str, word: bytes, limit_s: float) -> int:
        """The status of the answer; 0 when there was none."""
        try:
            async with asyncio.timeout(limit_s), self._client.stream("POST", url, content=word) as answer:
                return answer.status_code
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, ValueError):
            return 0
