"""The one guarded HTTP door out, for addresses that somebody else gave us.

Owns every request to a provider's output address or a caller's callback address. Promises: https on port
443 to public addresses only, judged by `app.outbound.addresses`; a name is resolved once and exactly the
addresses that were judged are connected to, so a second DNS answer changes nothing; redirects are walked by
hand and judged hop by hop; every transfer is bounded in decoded bytes and in time, ends complete or leaves
no file; tokens go only where the rules say. No proxy, netrc or cookie is ever taken from the environment.
Leaves the file to `app.outbound.landing`, what its bytes are to `app.audio`, durable retries to
`app.lifecycle`.

Error texts name the host, never the path or query: those may be signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType

import httpx

from app.errors import AppError, OutputExpired, OutputRejected, ProviderUnavailable
from app.outbound.addresses import Guard, Resolver, Rules, Target, resolve
from app.outbound.landing import Download, Landing, decode_data_uri, media_type

__all__ = ["Download", "Outbound", "Reply", "Rules", "decode_data_uri", "resolve"]

_MAX_REDIRECTS = 3
_MAX_TRIES = 3
_PAUSE_S = 0.2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({403, 404, 410})
_BUSY = frozenset({408, 425, 429})
_OUR_HEADERS = MappingProxyType(
    {"user-agent": "reprise-audio", "accept": "*/*", "accept-encoding": "identity", "connection": "close"}
)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer to `post`, whatever its status; `body` is cut at the limit that was given."""

    status: int
    body: bytes
    retry_after_s: float | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _NoRules:
    hosts: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    plain_http: tuple[str, ...] = ()


_ANYWHERE = _NoRules()


class Outbound:
    """`allow` exempts `host`, `host:port` or a network such as `10.1.0.0/16` from the guard: any port, plain
    http too. `idle_timeout_s` is the longest silence on a connection; `tls` replaces the public roots."""

    def __init__(
        self,
        *,
        allow: Sequence[str] = (),
        resolver: Resolver = resolve,
        connect_timeout_s: float = 10.0,
        idle_timeout_s: float = 20.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = Guard(allow=allow, resolver=resolver, timeout_s=connect_timeout_s)
        self._timeouts = httpx.Timeout(idle_timeout_s, connect=connect_timeout_s, pool=None).as_dict()
        # A transport, not a client: a client would keep cookies and follow the environment. Nothing is kept
        # alive, because connections are pooled by IP address and a TLS session belongs to one name.
        self._transport = httpx.AsyncHTTPTransport(
            verify=tls or True, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def check(self, url: str) -> None:
        """Whether `post` would be let out to `url` now. Raises OutputRejected, ProviderUnavailable."""
        await self._guard.judge(url, _ANYWHERE)

    async def download(
        self, url: str, into: Path, *, rules: Rules, max_bytes: int, timeout_s: float
    ) -> Download:
        """Fetch `url` into the file `into`, in at most three tries; the later ones resume where they can.

        Raises OutputRejected (a rule, the size, an empty or odd answer), OutputExpired (403, 404, 410),
        ProviderUnavailable (network, 429, 5xx, cut or late) and StorageUnavailable (our disk). Whatever is
        raised, cancellation included, `into` is gone afterwards.
        """
        landing = Landing(into, max_bytes=max_bytes)
        try:
            async with asyncio.timeout(timeout_s):
                download = await self._fetch(url, landing, rules)
        except TimeoutError as exc:
            landing.discard()
            raise ProviderUnavailable(f"the download took longer than {timeout_s:g} s") from exc
        except BaseException:
            landing.discard()
            raise
        return download

    async def post(
        self,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        timeout_s: float,
        max_response_bytes: int = 16 * 1024,
    ) -> Reply:
        """Send one announcement, once, and follow nothing: a redirect is a Reply like any other.

        Raises OutputRejected (the address breaks a rule) and ProviderUnavailable (no whole answer in time).
        """
        try:
            async with asyncio.timeout(timeout_s):
                target = await self._guard.judge(url, _ANYWHERE)
                async with self._request("POST", target, headers, content) as response:
                    body = await _read_head(response, max_response_bytes)
                    return Reply(response.status_code, body, _retry_after_s(response), dict(response.headers))
        except TimeoutError as exc:
            raise ProviderUnavailable(f"no answer within {timeout_s:g} s") from exc

    async def aclose(self) -> None:
        """Close what is open. Idempotent."""
        await self._transport.aclose()

    # ── one transfer ────────────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, url: str, landing: Landing, rules: Rules) -> Download:
        for tried in range(1, _MAX_TRIES):
            try:
                return await self._try(url, landing, rules)
            except ProviderUnavailable as exc:
                # Told when to come back: that wait is the durable retry's, not ours.
                if exc.retry_after_s is not None:
                    raise
            await asyncio.sleep(_PAUSE_S * tried)
        return await self._try(url, landing, rules)

    async def _try(self, url: str, landing: Landing, rules: Rules) -> Download:
        async with self._follow(url, rules, landing.resume_headers()) as (response, target):
            await _receive(response, landing)
            claimed = media_type(response.headers.get("content-type", ""))
            return Download(landing.size_bytes, claimed, str(target.url))

    @contextlib.asynccontextmanager
    async def _follow(
        self, url: str, rules: Rules, headers: Mapping[str, str]
    ) -> AsyncIterator[tuple[httpx.Response, Target]]:
        target = await self._guard.judge(url, rules)
        secret = rules.headers if target.trusted else {}
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._request("GET", target, {**secret, **headers}) as response:
                if response.status_code not in _REDIRECTS:
                    yield response, target
                    return
                location = response.headers.get("location", "")
            source, target = target, await self._guard.judge(_join(target.url, location), rules, after=target)
            if target.url.netloc != source.url.netloc:
                secret = {}  # and it stays dropped, even if a later hop comes back
        raise OutputRejected(f"the address redirects more than {_MAX_REDIRECTS} times")

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, target: Target, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Connect to the judged addresses in turn; the name goes into Host, SNI and the certificate check."""
        sent = httpx.Headers({**_OUR_HEADERS})
        sent.update({**headers, "host": target.url.netloc.decode("ascii")})
        for nth, address in enumerate(target.addresses, start=1):
            request = httpx.Request(
                method,
                target.url.copy_with(host=address),
                headers=sent,
                content=content,
                extensions={"timeout": self._timeouts, "sni_hostname": target.host},
            )
            try:
                response = await self._transport.handle_async_request(request)
                break
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                if nth == len(target.addresses):
                    raise ProviderUnavailable(f"{target.host} cannot be connected to: {exc}") from exc
            except httpx.TransportError as exc:
                raise _translate(exc, target.host) from exc
        else:
            raise ProviderUnavailable(f"{target.host} has no address")
        try:
            yield response
        except httpx.TransportError as exc:
            raise _translate(exc, target.host) from exc
        finally:
            await response.aclose()


async def _receive(response: httpx.Response, landing: Landing) -> None:
    """Judge the status, then fill the landing; a cut keeps what came, for the next try to resume."""
    status = response.status_code
    if status == 206 and not _continues(response, landing):
        landing.forget()
        raise ProviderUnavailable("the server resumed at another place than was asked")
    if status == 416:
        landing.forget()
        raise ProviderUnavailable("the server cannot resume the output")
    if status in _GONE:
        raise OutputExpired(f"the output is gone (HTTP {status})")
    if status in _BUSY or status >= 500:
        raise ProviderUnavailable(
            f"the output host answered {status}", retry_after_s=_retry_after_s(response)
        )
    if status not in (200, 206):
        raise OutputRejected(f"the output host answered {status}")
    await landing.begin(response.headers, resumed=status == 206)
    try:
        async for chunk in response.aiter_raw():
            await landing.add(chunk)
    except httpx.TransportError:
        await landing.flush()
        raise
    await landing.finish()


def _continues(response: httpx.Response, landing: Landing) -> bool:
    asked = landing.resume_headers()
    return bool(asked) and response.headers.get("content-range", "").startswith(
        f"bytes {landing.size_bytes}-"
    )


async def _read_head(response: httpx.Response, max_bytes: int) -> bytes:
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= max_bytes:
            break
    return body[:max_bytes]


def _join(url: httpx.URL, location: str) -> str:
    if not location:
        raise OutputRejected("a redirect leads nowhere")
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, ValueError) as exc:
        raise OutputRejected("a redirect leads to something that is not a URL") from exc


def _translate(exc: httpx.TransportError, host: str) -> AppError:
    if isinstance(exc, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        return OutputRejected(f"the request to {host} cannot be made: {exc}")
    return ProviderUnavailable(f"{host} broke off: {type(exc).__name__}")


def _retry_after_s(response: httpx.Response) -> float | None:
    """Retry-After in seconds from now, written as seconds or as a date (RFC 9110, 10.2.3)."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
