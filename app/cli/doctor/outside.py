"""What lies outside: our public address, the provider's clock, the address guard, the providers."""

from __future__ import annotations

import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import structlog

from app.cli.doctor.finding import Check, Finding, Level
from app.cli.tools.calls import call
from app.cli.tools.connection import Origin, ServiceClient, running_url
from app.engines.supervisor import CogSupervisor
from app.outbound import Outbound
from app.outbound.addresses import is_loopback
from app.outbound.selftest import ADDRESSES, SPELLINGS, find_gaps
from app.provider.base import Provider
from app.settings import Settings
from app.wiring.openers import make_routes

_BODY_BYTES = 1_000_000
_SKEW_WARN_S = 10.0
_MOST_NAMED = 5
_OK_STATES = {"ready": Level.OK, "busy": Level.OK, "starting": Level.WARN}


async def _check_public_url(settings: Settings) -> list[Finding]:
    """A callback of 1 MB with a wrong token must be refused by us, and by nobody before us."""
    if settings.public_url is None:
        return [Finding.ok("public address", "PUBLIC_URL is not set: only local providers can call back")]
    trust_env = not is_loopback(httpx.URL(settings.public_url).host)
    async with httpx.AsyncClient(timeout=15, follow_redirects=False, trust_env=trust_env) as client:
        try:
            answer = await _post_callback(client, f"{settings.public_url}/v1/webhooks/replicate/doctor")
            if answer.status_code == 404:
                # So is a provider that is not configured, and a path that leads nowhere: ask at the other.
                answer = await _post_callback(client, f"{settings.public_url}/v1/webhooks/cog/doctor")
        except httpx.TransportError as exc:
            reason = str(exc) or type(exc).__name__
            hint = "Start `reprise serve` and the tunnel or proxy that PUBLIC_URL names, then ask again."
            return [Finding.fail("public address", f"{settings.public_url}: {reason}", hint)]
    return [_judge(settings, answer)]


async def _check_clock(settings: Settings) -> list[Finding]:
    if settings.replicate_api_token is None:
        return [Finding.ok("clock", "not compared: no hosted provider is configured")]
    trust_env = not is_loopback(httpx.URL(settings.replicate_base_url).host)
    async with httpx.AsyncClient(timeout=10, trust_env=trust_env) as client:
        began = datetime.now(UTC)
        answer = await client.head(settings.replicate_base_url)
    middle = began + (datetime.now(UTC) - began) / 2
    # The header has whole seconds, cut: on average it is half a second behind its clock.
    there = parsedate_to_datetime(answer.headers["date"]) + timedelta(seconds=0.5)
    skew_s = abs((there - middle).total_seconds())
    detail = f"{skew_s:.0f} s from the provider's; WEBHOOK_TOLERANCE_S is {settings.webhook_tolerance_s}"
    hint = "Set this machine's clock (NTP): webhooks signed outside the tolerance are refused."
    if skew_s >= settings.webhook_tolerance_s:
        return [Finding.fail("clock", detail, hint)]
    return [Finding.warn("clock", detail, hint) if skew_s > _SKEW_WARN_S else Finding.ok("clock", detail)]


async def _check_guard(settings: Settings) -> list[Finding]:
    outbound = Outbound(allow=settings.outbound_allow)
    """The whole table of addresses and spellings, and a listener on loopback that must stay alone."""
    try:
        passed = await find_gaps(outbound)
    finally:
        await outbound.aclose()
    named = ", ".join(passed[:_MOST_NAMED]) + (" …" if len(passed) > _MOST_NAMED else "")
    if passed and settings.outbound_allow:
        detail = f"OUTBOUND_ALLOW lets {named} pass"
        return [Finding.warn("address guard", detail, "Narrow OUTBOUND_ALLOW unless that is meant.")]
    if passed:
        detail = f"{named} would be connected to"
        return [Finding.fail("address guard", detail, "This is a fault of ours: do not serve.")]
    detail = f"refuses {len(ADDRESSES)} special addresses and {len(SPELLINGS)} spellings; no byte left"
    return [Finding.ok("address guard", detail)]


async def _check_providers(settings: Settings) -> list[Finding]:
    """The running service's own word where there is one; else each provider asked from here."""
    url = running_url(settings)
    if url is not None:
        return await _ask_service(url)
    findings = []
    async with AsyncExitStack() as stack:
        routes = await make_routes(settings)
        for route in routes.values():
            stack.push_async_callback(route.provider.aclose)
        for name, route in routes.items():
            findings.append(await _health_of(name, route.provider))
    if not settings.cog_urls:
        findings.append(await _try_worker(settings))
    return findings


async def _ask_service(url: str) -> list[Finding]:
    async with ServiceClient(Origin.RUNNING, url) as client:
        answer = await client.get("/readyz")
        await call(client, "GET", "/healthz")
    providers = answer.json()["checks"]["providers"]
    return [
        _state_line(f"provider {name}", found["state"], f"{found['state']}, says {url}", found["detail"])
        for name, found in providers.items()
    ] or [Finding.fail("providers", f"{url} has none", "Set COG_URLS or REPLICATE_API_TOKEN.")]


async def _health_of(name: str, provider: Provider) -> Finding:
    health = await provider.health()
    return _state_line(f"provider {name}", health.state, health.state, health.detail)


async def _try_worker(settings: Settings) -> Finding:
    """Nothing runs: start our own engines once and stop them."""
    settings.var_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        supervisor = CogSupervisor(
            tmp=Path(folder), setup_timeout_s=30, on_restart=_told_by_none, log=structlog.get_logger()
        )
        began = time.monotonic()
        try:
            await supervisor.start()
            took_s = time.monotonic() - began
        finally:
            await supervisor.stop()
    return Finding.ok("embedded worker", f"starts, and is ready after {took_s:.1f} s")


async def _post_callback(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.post(url, content=b" " * _BODY_BYTES)


def _judge(settings: Settings, answer: httpx.Response) -> Finding:
    # Our refusals are problem details with the request's id; a stranger's 404 is a page.
    status, is_ours = answer.status_code, '"request_id":"req_' in answer.text.replace(": ", ":")
    where = f"{settings.public_url} answers {status} to a callback of 1 MB"
    if is_ours and status == 401:
        return Finding.ok("public address", f"{where} with a wrong token: it is this service, and it refuses")
    if 300 <= status < 400:
        target = answer.headers.get("location", "nowhere")
        return Finding.fail("public address", f"{where}: a redirect to {target}", "Providers follow none.")
    if status == 413:
        return Finding.fail(
            "public address", where, "Raise the body limit of the proxy: outputs come inline."
        )
    hint = "PUBLIC_URL must lead to this service's /v1/webhooks without a login page or another path."
    return Finding.fail("public address", f"{where}; expected 401 from this service", hint)


def _state_line(name: str, state: str, detail: str, more: str) -> Finding:
    level = _OK_STATES.get(state, Level.FAIL)
    text = f"{detail}: {more}" if more else detail
    hint = "" if level is Level.OK else "Check its address and credentials (COG_URLS, REPLICATE_API_TOKEN)."
    return Finding(name, level, text, hint)


async def _told_by_none(_gone_at: datetime) -> None:
    """Nobody has predictions there."""


OUTSIDE_CHECKS = (
    Check("public address", _check_public_url, 20, "Check PUBLIC_URL."),
    Check("clock", _check_clock, 15, "Check REPLICATE_BASE_URL and the network."),
    Check("address guard", _check_guard, 15, "This is a fault of ours."),
    Check("providers", _check_providers, 60, "Check COG_URLS and REPLICATE_API_TOKEN, or the engines here."),
)
