"""Replicate: hosted models, asked through the official client and our own HTTP transport.

Owns what may be sent there and how long that may take. Promises that a POST is never sent twice, that every
exchange has a limit and that the token goes to one origin only. The client (replicate 1.0.7) builds the
requests; its reading of the answers is ignored, because it chokes on the status `aborted`, on a missing
version and on HTML, and loses `Retry-After` and `invalid_fields`: `app.provider.reading` reads the raw body.
Leaves the meaning of a status to `app.lifecycle`, a lost create to `app.recovery` (see `find`).
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import httpx
from replicate.client import Client
from replicate.exceptions import ReplicateException
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
)

from app.errors import (
    AppError,
    PredictionUnknown,
    ProviderRejected,
    ProviderThrottled,
    ProviderUnavailable,
    StartupError,
)
from app.outbound.addresses import is_loopback
from app.provider import reading
from app.provider.base import DownloadRules, Health, Json, Order, Prediction, Proof
from app.provider.reading import Answer, bad_response
from app.provider.signature import WebhookSecrets
from app.provider.wire import EXCHANGE, NEVER_SENT, Exchange, Wire, origin_of

CREATE_TOTAL_S = 30.0
READ_TOTAL_S = 10.0
"""For one GET with its repetitions (at most three tries)."""
FIND_TOTAL_S = 60.0
HEALTH_TOTAL_S = 5.0
MAX_PAGES = 60
"""Of 100 predictions each, walked by `find`: what 20 a second make of the clock skew."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far their clock may be behind ours before `find` would stop too early."""

_EVENTS = ["start", "logs", "completed"]  # logs carry the progress; output would repeat what completed brings
_OUTPUT_HOSTS = ("replicate.delivery", "*.replicate.delivery", "api.replicate.com")
_Call = Callable[[], Awaitable[object]]
_LONGEST_PAUSE_S = 2.0
_REPEATED = frozenset({429, 500, 502, 503, 504})
_ENDED_ALREADY = frozenset({404, 409, 410, 422})
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_VERSION = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]{0,99}/[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


class Replicate:
    """The `Provider` for api.replicate.com, or for a server that speaks its protocol at `base_url`."""

    name = "replicate"
    can_poll = True
    signs_callbacks = True

    def __init__(
        self,
        *,
        token: str,
        base_url: str = "https://api.replicate.com",
        secrets: Sequence[str] = (),
        tolerance_s: float = 300.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`secrets` are `whsec_…` values; with none, `prepare` must run before `verify`.

        Raises StartupError for an empty token, a base URL without scheme or host, an undecodable secret.
        """
        if not token.strip():
            # The client would silently take REPLICATE_API_TOKEN instead, or send no credentials at all.
            raise StartupError("the Replicate token is empty")
        self._token = token.strip()
        self._base = _base(base_url)
        self._secrets = WebhookSecrets(secrets) if secrets else None
        self._tolerance_s = tolerance_s
        self._wire = Wire(transport or httpx.AsyncHTTPTransport(), self._base)
        self._client = Client(
            api_token=self._token,
            base_url=str(self._base),
            transport=self._wire,
            headers={"Authorization": f"Bearer {self._token}"},
            trust_env=False,
        )

    async def prepare(self) -> None:
        """Fetch the account's signing secret unless one was given or fetched; call it before `verify`.

        Raises ProviderUnavailable (also for a refused token), ProviderBadResponse.
        """
        if self._secrets is not None:
            return
        answer = self._accepted(await self._read(self._client.webhooks.default.async_secret))
        try:
            # The body is a secret: neither it nor an error that holds it may leave here.
            self._secrets = WebhookSecrets([str(reading.read_object(answer.body).get("key", ""))])
        except AppError:
            raise bad_response("no usable webhook secret", b"") from None

    async def create(self, order: Order) -> Prediction:
        """Ask once. A failure after the request may have left is `ProviderUnavailable(ambiguous=True)`."""
        answer = await self._exchange(
            self._creation(order), limit_s=CREATE_TOTAL_S, headers=_cancel_after(order.deadline_s)
        )
        if not answer.ok:
            raise self._refusal(answer)
        prediction = answer.prediction()
        if prediction.id is None:
            raise bad_response("a prediction without an id", answer.body)
        return prediction

    async def get(self, prediction_id: str) -> Prediction:
        """Read one. 401 and 403 are ProviderUnavailable: a rotated token must not end running jobs."""
        if _ID.fullmatch(prediction_id) is None:
            raise PredictionUnknown("not a Replicate prediction id")
        answer = await self._read(partial(self._client.predictions.async_get, prediction_id))
        if answer.status in (404, 410):
            raise PredictionUnknown("Replicate has no such prediction")
        return self._accepted(answer).prediction()

    async def find(self, attempt_id: str, *, since: datetime) -> Prediction | None:
        """Walk the list, newest first, until `since` less the clock skew. None is said only after all of it.

        Raises ProviderUnavailable when `MAX_PAGES` do not reach that far: absence was not proven then.
        """
        try:
            async with asyncio.timeout(FIND_TOTAL_S):
                return await self._walk(attempt_id, since - CLOCK_SKEW)
        except TimeoutError as exc:
            raise ProviderUnavailable("Replicate's list took too long") from exc

    async def cancel(self, prediction_id: str) -> None:
        if _ID.fullmatch(prediction_id) is None:
            return
        call = partial(self._client.predictions.async_cancel, prediction_id)
        answer = await self._exchange(call, limit_s=READ_TOTAL_S)
        if not answer.ok and answer.status not in _ENDED_ALREADY:
            raise self._unavailable(answer)

    async def health(self) -> Health:
        try:
            answer = await self._exchange(self._client.accounts.async_current, limit_s=HEALTH_TOTAL_S)
        except AppError as exc:
            return Health("down", exc.message)
        if answer.ok:
            return Health("ready")
        return Health("busy" if answer.status == 429 else "down", self._said(answer))

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: datetime) -> Proof:
        """Raises BadSignature (an Unauthenticated); ProviderUnavailable while no secret is known yet."""
        if self._secrets is None:
            raise ProviderUnavailable("Replicate's webhook secret is not known yet")
        return Proof(self._secrets.verify(headers, body, now=now, tolerance_s=self._tolerance_s))

    def parse(self, body: bytes) -> Prediction:
        return reading.read_reply(body)

    def download_rules(self) -> DownloadRules:
        """Outputs live on the delivery hosts. The documents contradict each other on whether the token is
        needed there, so it goes along, to these hosts only."""
        # A loopback base is a fake in a test: it serves its outputs itself, without TLS.
        place = self._base.netloc.decode("ascii") + ("" if self._base.port else ":80")
        fake = (place,) if is_loopback(self._base.host) else ()
        return DownloadRules((*_OUTPUT_HOSTS, *fake), {"Authorization": f"Bearer {self._token}"}, fake)

    async def aclose(self) -> None:
        await self._wire.aclose()

    def _creation(self, order: Order) -> _Call:
        """The client's call for a model (`owner/name`) or a version (`owner/name:version`, or its 64 hex)."""
        model, _, version = order.model.partition(":")
        asked: dict[str, Any] = {
            "input": dict(order.input),
            "webhook": order.callback_url,
            "webhook_events_filter": _EVENTS,
        }
        if _VERSION.fullmatch(order.model):
            return partial(self._client.predictions.async_create, version=order.model, **asked)
        if _MODEL.fullmatch(model) is None or (version and not _ID.fullmatch(version)):
            raise ProviderRejected(f"not a Replicate model: {order.model[:100]!r}", status=404)
        if version:
            return partial(self._client.predictions.async_create, version=version, **asked)
        return partial(self._client.models.predictions.async_create, model=model, **asked)

    async def _walk(self, attempt_id: str, oldest: datetime) -> Prediction | None:
        cursor: Any = ...  # the client's word for the first page
        for _ in range(MAX_PAGES):
            answer = await self._read(partial(self._client.predictions.async_list, cursor))
            page = reading.read_object(self._accepted(answer).body)
            rows = page.get("results")
            if not isinstance(rows, list):
                raise bad_response("a list without results", answer.body)
            for row in (row for row in rows if isinstance(row, dict)):
                if reading.names_attempt(row.get("webhook"), attempt_id):
                    # Stored as if it had been read alone: the inbox reads it once more.
                    return reading.read_prediction(row, raw=json.dumps(row).encode())
                if (reading.read_time(row.get("created_at")) or oldest) < oldest:
                    return None
            if not page.get("next"):
                return None
            cursor = self._own_url(page["next"], answer)
        raise ProviderUnavailable(f"Replicate's list does not reach back far enough in {MAX_PAGES} pages")

    def _own_url(self, next_url: Json, answer: Answer) -> str:
        """The next page's address. The wire would refuse another host too, but as an outage, not as a lie."""
        try:
            url = self._base.join(str(next_url))
        except httpx.InvalidURL as exc:
            raise bad_response("a broken next page address", answer.body) from exc
        if origin_of(url) != origin_of(self._base):
            raise bad_response("a next page on another host", answer.body)
        return str(url)

    async def _read(self, call: _Call) -> Answer:
        """A GET with the in-call retry; the last answer, whatever its status."""
        repeat = AsyncRetrying(
            retry=retry_if_result(_worth_repeating) | retry_if_exception_type(ProviderUnavailable),
            stop=stop_after_attempt(3),
            wait=_pause_s,
            retry_error_callback=_last_outcome,
        )
        try:
            async with asyncio.timeout(READ_TOTAL_S):
                answer: Answer = await repeat(self._exchange, call, limit_s=READ_TOTAL_S)
                return answer
        except TimeoutError as exc:
            raise ProviderUnavailable("Replicate did not answer in time") from exc

    async def _exchange(
        self, call: _Call, *, limit_s: float, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request through the client, and its raw answer."""
        exchange = Exchange(headers or {})
        token = EXCHANGE.set(exchange)
        try:
            async with asyncio.timeout(limit_s):
                await call()
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, *_CLIENT_STUMBLES) as exc:
            # With an answer in hand it does not matter what the client made of it.
            if exchange.answer is None:
                raise _no_answer(exc, begun=exchange.begun) from exc
        finally:
            EXCHANGE.reset(token)
        if exchange.answer is None:
            raise ProviderUnavailable("the client asked nothing")
        return exchange.answer

    def _accepted(self, answer: Answer) -> Answer:
        if not answer.ok:
            raise self._unavailable(answer)
        return answer

    def _refusal(self, answer: Answer) -> AppError:
        """Why a create failed. 5xx and 408 leave open whether a prediction was made."""
        if answer.status == 429:
            return self._unavailable(answer)
        if answer.status >= 500 or answer.status == 408:
            return self._unavailable(answer, ambiguous=True)
        fields = reading.read_problem(answer.body)[1]
        return ProviderRejected(self._said(answer), status=answer.status, invalid_fields=fields)

    def _unavailable(self, answer: Answer, *, ambiguous: bool = False) -> ProviderUnavailable:
        if answer.status == 429:
            return ProviderThrottled(self._said(answer), retry_after_s=answer.retry_after_s())
        return ProviderUnavailable(
            self._said(answer), retry_after_s=answer.retry_after_s(), ambiguous=ambiguous
        )

    def _said(self, answer: Answer) -> str:
        sentence = reading.read_problem(answer.body)[0].replace(self._token, "[token]")
        return f"Replicate answered {answer.status}" + (f": {sentence}" if sentence else "")


# pydantic v1's ValidationError and JSONDecodeError are ValueErrors; `Prediction(**list)` is a TypeError, an
# error body that is a list an AttributeError, a page without results a KeyError.
_CLIENT_STUMBLES = (ReplicateException, ValueError, TypeError, AttributeError, KeyError, RecursionError)


def _no_answer(exc: Exception, *, begun: bool) -> AppError:
    if not begun and isinstance(exc, _CLIENT_STUMBLES):
        return ProviderRejected("the request cannot be written as JSON")
    ambiguous = begun and not isinstance(exc, NEVER_SENT)
    return ProviderUnavailable(f"no answer from Replicate ({type(exc).__name__})", ambiguous=ambiguous)


def _worth_repeating(answer: Answer) -> bool:
    return answer.status in _REPEATED and (answer.retry_after_s() or 0.0) <= _LONGEST_PAUSE_S


def _pause_s(state: RetryCallState) -> float:
    """What the other side asked for, else 0.2 s, 0.4 s."""
    outcome = state.outcome
    hint_s = None if outcome is None or outcome.failed else outcome.result().retry_after_s()
    return hint_s if hint_s is not None else 0.1 * 2.0**state.attempt_number


def _last_outcome(state: RetryCallState) -> Answer:
    if state.outcome is None:
        raise ProviderUnavailable("no answer from Replicate")
    answer: Answer = state.outcome.result()  # raises what the last try raised
    return answer


def _cancel_after(deadline_s: float | None) -> dict[str, str]:
    """Replicate takes 5 s to 24 h, counted from creation, waiting in its queue included."""
    if deadline_s is None:
        return {}
    return {"Cancel-After": f"{math.ceil(min(max(deadline_s, 5.0), 86_400.0))}s"}


def _base(base_url: str) -> httpx.URL:
    """The API's root without `/v1`, which the client adds."""
    try:
        url = httpx.URL(base_url.strip().rstrip("/").removesuffix("/v1"))
    except httpx.InvalidURL as exc:
        raise StartupError("the Replicate base URL cannot be read") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise StartupError("the Replicate base URL needs a scheme and a host")
    return url
