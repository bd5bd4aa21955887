"""Cog: prediction servers that we or our users run, one prediction at a time, spoken to over plain HTTP.

Owns which server takes which kind, and what Cog's replies mean: 409 is "busy" or "dead", only the health page
tells. Promises that a create is a PUT under our own attempt id, so that repeating it while the first is in
flight returns that one. The risk that remains: Cog forgets a prediction when it ends, and a PUT repeated
after that runs it again, which costs time, never a second result (the first terminal news wins).
Cog signs nothing and cannot be polled: the token in the callback URL is checked at the edge, and recovery
works by deadline. `output` is kept as given; the same file may come as a one-element list in an `output` hook
and as a string in the last one, so act on terminal hooks only. Old servers (<= 0.16) are understood too.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import httpx

from app.errors import (
    AppError,
    PredictionUnknown,
    ProviderBusy,
    ProviderRejected,
    ProviderThrottled,
    ProviderUnavailable,
    StartupError,
    Unauthenticated,
)
from app.provider.base import DownloadRules, Health, Json, Order, Prediction, Proof
from app.provider.reading import Answer, bad_response, read_capped, read_object, read_problem, read_reply

CREATE_TOTAL_S = 60.0
"""Inputs travel inline, up to Cog's 100 MiB."""
CANCEL_TOTAL_S = 10.0
HEALTH_TOTAL_S = 3.0
MAX_REPLY_BYTES = 150 * 1024 * 1024
"""A server that ignores `Prefer` answers with the finished output inline: 4/3 of 100 MiB, and logs."""
SETUP_RETRY_S = 1.0

_EVENTS = ["start", "logs", "completed"]  # output would send each file twice, inline
_TIMEOUT = httpx.Timeout(connect=3.0, read=30.0, write=30.0, pool=5.0)
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_ANY_KIND = "*"
_REPEATED = re.compile(r"^(Prediction failed: )+", re.ASCII)  # Cog says it once a layer
_BEST_FIRST = ("ready", "busy", "starting", "down")
_HEALTH_STATES = {"READY": "ready", "BUSY": "busy", "STARTING": "starting", "UNKNOWN": "starting"}


class Cog:
    """The `Provider` for Cog servers, one URL a kind; `*` is for the kinds without their own."""

    name = "cog"
    can_poll = False
    signs_callbacks = False

    def __init__(
        self,
        *,
        urls: Mapping[str, str],
        webhook_auth_token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`webhook_auth_token` is the servers' `WEBHOOK_AUTH_TOKEN`. Raises StartupError for a bad URL."""
        self._servers = {kind: _Server(_base(url)) for kind, url in urls.items()}
        self._bearer = f"Bearer {webhook_auth_token}".encode() if webhook_auth_token else None
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(), timeout=_TIMEOUT, trust_env=False
        )

    def point(self, kind: str, url: str, *, takes_kind: bool = False) -> None:
        """Send `kind` (or `*`) to `url` from now on. Our own worker `takes_kind`: it serves them all.

        A prediction in flight keeps its server, but a cancel no longer finds it there.
        """
        self._servers[kind] = _Server(_base(url), takes_kind)

    async def prepare(self) -> None:
        """Nothing to learn: the token in the callback's URL is all the proof there is."""

    async def create(self, order: Order) -> Prediction:
        """PUT under our own id. ProviderBusy, ProviderUnavailable (never ambiguous), ProviderRejected."""
        if _ID.fullmatch(order.attempt_id) is None:
            raise ProviderRejected("the attempt id cannot stand in a URL")
        server = self._server_for(order.kind)
        content: dict[str, Json] = {
            "input": {"kind": order.kind, **order.input} if server.takes_kind else dict(order.input),
            "webhook": order.callback_url,
            "webhook_events_filter": _EVENTS,
        }
        # Exactly this word: with anything beside it Cog answers only when the work is done.
        headers = {"Prefer": "respond-async"}
        url = f"{server.url}/predictions/{order.attempt_id}"
        answer = await self._ask("PUT", url, limit_s=CREATE_TOTAL_S, headers=headers, content=content)
        if not answer.ok:
            raise await self._refusal(server, answer)
        prediction = answer.prediction()
        return prediction if prediction.id else replace(prediction, id=order.attempt_id)

    async def get(self, prediction_id: str) -> Prediction:
        raise PredictionUnknown("a Cog server cannot be asked about a prediction")

    async def find(self, attempt_id: str, *, since: datetime) -> Prediction | None:
        raise PredictionUnknown("a Cog server cannot be asked about a prediction")

    async def cancel(self, prediction_id: str) -> None:
        """Ask every server: which one has it is not kept. One "yes" is enough, 404 is no error."""
        if _ID.fullmatch(prediction_id) is None:
            return
        urls = [f"{url}/predictions/{prediction_id}/cancel" for url in self._urls()]
        calls = (self._ask("POST", url, limit_s=CANCEL_TOTAL_S) for url in urls)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        if any(isinstance(answer, Answer) and answer.ok for answer in answers):
            return
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            if answer.status >= 500 or answer.status == 429:
                raise ProviderUnavailable(_said(answer), retry_after_s=answer.retry_after_s())

    async def health(self) -> Health:
        """The best of the servers: one that is ready can take work."""
        found = await asyncio.gather(*(self._health_of(url) for url in self._urls()))
        if not found:
            return Health("starting", "no Cog server is known yet")
        return min(found, key=lambda health: _BEST_FIRST.index(health.state))

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Proof:
        """Cog signs nothing; where a bearer token is configured it must be there. Raises Unauthenticated."""
        if self._bearer is not None:
            given = headers.get("authorization", "").encode("utf-8", "backslashreplace")
            if not hmac.compare_digest(given, self._bearer):
                raise Unauthenticated("the webhook could not be verified")
        return Proof(message_id=None)

    def parse(self, body: bytes) -> Prediction:
        prediction = read_reply(body)
        if prediction.error is None:
            return prediction
        return replace(prediction, error=_REPEATED.sub("", prediction.error))

    def download_rules(self) -> DownloadRules:
        """Outputs are data URIs, or files on the servers we were pointed to."""
        urls = [httpx.URL(url) for url in self._urls()]
        places = tuple(_authority(url) for url in urls if url.scheme == "http")
        secure = tuple(url.host for url in urls if url.scheme == "https")
        return DownloadRules(hosts=(*places, *secure), plain_http=places)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _server_for(self, kind: str) -> _Server:
        server = self._servers.get(kind) or self._servers.get(_ANY_KIND)
        if server is None:
            # Transient: the embedded worker's port is known only once it has started.
            raise ProviderUnavailable(f"no Cog server takes {kind} yet", retry_after_s=SETUP_RETRY_S)
        return server

    def _urls(self) -> list[str]:
        return list(dict.fromkeys(server.url for server in self._servers.values()))

    async def _refusal(self, server: _Server, answer: Answer) -> AppError:
        """Why a PUT failed. Never ambiguous: our own id makes the repetition harmless."""
        if answer.status in (409, 503):
            return await self._not_now(server, answer)
        if answer.status == 429:
            return ProviderThrottled(_said(answer), retry_after_s=answer.retry_after_s())
        if answer.status >= 500 or answer.status == 408:
            return ProviderUnavailable(_said(answer), retry_after_s=answer.retry_after_s())
        fields = read_problem(answer.body)[1]
        return ProviderRejected(_said(answer), status=answer.status, invalid_fields=fields)

    async def _not_now(self, server: _Server, answer: Answer) -> AppError:
        """409 is given by a busy server and, for ever, by one whose worker crashed; 503 while it is set up
        and, for ever, after its setup failed. Only the health page tells them apart."""
        status = await self._health_word(server.url)
        if status == "SETUP_FAILED":
            # Rejected, not EngineUnavailable: callers of the port know three refusals and fall back on this.
            return ProviderRejected("the Cog server's setup failed; see its log", status=answer.status)
        if status in ("UNHEALTHY", "DEFUNCT"):
            return ProviderUnavailable(f"the Cog server is {status} and must be restarted")
        if answer.status == 409:
            return ProviderBusy("the Cog server's slots are taken")
        return ProviderUnavailable("the Cog server is being set up", retry_after_s=SETUP_RETRY_S)

    async def _health_word(self, url: str) -> str:
        """Cog's own word. Raises ProviderUnavailable, ProviderBadResponse."""
        answer = await self._ask("GET", f"{url}/health-check", limit_s=HEALTH_TOTAL_S)
        if not answer.ok:
            raise ProviderUnavailable(_said(answer))
        status = read_object(answer.body).get("status")
        if not isinstance(status, str):
            raise bad_response("a health page without a status", answer.body)
        return status

    async def _health_of(self, url: str) -> Health:
        place = httpx.URL(url).netloc.decode("ascii")  # without a password that the URL may carry
        try:
            word = await self._health_word(url)
        except AppError as exc:
            return Health("down", f"{place}: {exc.message}")
        return Health(_HEALTH_STATES.get(word, "down"), f"{place}: {word}")

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        limit_s: float,
        headers: Mapping[str, str] | None = None,
        content: Mapping[str, Json] | None = None,
    ) -> Answer:
        """One request, never repeated here. Raises ProviderUnavailable, ProviderRejected (not JSON)."""
        try:
            request = self._client.build_request(method, url, headers=headers, json=content)
        except (ValueError, TypeError, RecursionError) as exc:  # NaN, a lone surrogate, a cycle
            raise ProviderRejected("the input cannot be written as JSON") from exc
        try:
            async with asyncio.timeout(limit_s):
                response = await self._client.send(request, stream=True)
                return await read_capped(response, max_bytes=MAX_REPLY_BYTES)
        except (TimeoutError, httpx.HTTPError) as exc:
            raise ProviderUnavailable(f"no answer from the Cog server ({type(exc).__name__})") from exc


@dataclass(frozen=True, slots=True)
class _Server:
    """Where a kind is sent; `takes_kind` when the server is ours and needs the kind in its input."""

    url: str
    takes_kind: bool = False


def _base(text: str) -> str:
    try:
        url = httpx.URL(text.strip().rstrip("/"))
    except httpx.InvalidURL as exc:
        raise StartupError("a Cog URL cannot be read") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise StartupError("a Cog URL needs a scheme and a host")
    return str(url).rstrip("/")


def _authority(url: httpx.URL) -> str:
    """`host:port`, an IPv6 host in brackets; httpx leaves a default port out."""
    netloc = url.netloc.decode("ascii")
    return netloc if url.port else f"{netloc}:80"


def _said(answer: Answer) -> str:
    sentence = read_problem(answer.body)[0]
    return f"the Cog server answered {answer.status}" + (f": {sentence}" if sentence else "")
