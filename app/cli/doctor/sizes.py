"""Whether news of real sizes comes in: outputs may be in the callback itself, as base64."""

from __future__ import annotations

import secrets

import httpx

from app.cli.doctor.finding import Check, Finding
from app.outbound.addresses import is_loopback
from app.settings import Settings
from app.tokens import Callbacks
from app.wiring.openers import open_database
from db import schema
from db.keys import claim_secret
from db.session import DatabaseUnavailable

CALLBACK_BYTES = 8_000_000
"""Half a minute of stereo WAV, as base64: proxies often stop at 1 MB."""
_BESIDE_BYTES = 1_000_000
"""Room for what a callback has besides its output: input, logs."""


async def _check_limits(settings: Settings) -> list[Finding]:
    """The largest output that is accepted must fit into a callback that is."""
    needed = settings.replicate_max_file_size * 4 // 3 + _BESIDE_BYTES
    detail = (
        f"callbacks of {settings.max_content_length / 1e6:.0f} MB are taken; the largest output is "
        f"{settings.replicate_max_file_size / 1e6:.0f} MB, {needed / 1e6:.0f} MB in a callback"
    )
    if settings.max_content_length < needed:
        return [
            Finding.warn("body limit", detail, "Raise MAX_CONTENT_LENGTH: larger news is refused with 413.")
        ]
    return [Finding.ok("body limit", detail)]


async def _check_callback(settings: Settings) -> list[Finding]:
    """A callback of a real size, by the address that the provider uses, up to the check of its signature."""
    if settings.public_url is None or settings.replicate_api_token is None:
        return [Finding.ok("callback size", "not tried: no hosted provider calls back")]
    attempt_id, size = "doctor", min(CALLBACK_BYTES, settings.max_content_length)
    try:
        token = await _token(settings, attempt_id)
    except DatabaseUnavailable as exc:
        return [Finding.fail("callback size", f"the database does not say: {exc}", "Check DATABASE_URL.")]
    if token is None:
        return [Finding.ok("callback size", "not tried: the schema is not there yet")]
    url = f"{settings.public_url}/v1/webhooks/replicate/{attempt_id}"
    trust_env = not is_loopback(httpx.URL(url).host)
    async with httpx.AsyncClient(timeout=60, follow_redirects=False, trust_env=trust_env) as client:
        try:
            answer = await client.post(url, params={"token": token}, content=b" " * size)
        except httpx.TransportError as exc:
            reason = str(exc) or type(exc).__name__
            return [
                Finding.fail("callback size", f"cut off within {size / 1e6:.0f} MB: {reason}", _PROXY_HINT)
            ]
    return [_judge(settings, answer, size)]


async def _token(settings: Settings, attempt_id: str) -> str | None:
    """As for an attempt of ours: from strangers the service reads no more than 1 MB."""
    database = open_database(settings)
    try:
        if await schema.current_revision(database) is None:
            return None
        async with database.transaction() as tx:
            secret = await claim_secret(tx, "callbacks", secrets.token_hex(32), now=await tx.now())
    finally:
        await database.aclose()
    return Callbacks(secret=secret, public_url=None).token(attempt_id)


def _judge(settings: Settings, answer: httpx.Response, size: int) -> Finding:
    where = f"{settings.public_url} answers {answer.status_code} to a callback of {size / 1e6:.0f} MB"
    is_ours = '"request_id":"req_' in answer.text.replace(": ", ":")
    if is_ours and answer.status_code == 401:
        return Finding.ok("callback size", f"{where} that nobody signed: it was read to its end, and refused")
    if is_ours and answer.status_code == 413:
        hint = "Raise MAX_CONTENT_LENGTH of that service; or it has another DATABASE_URL than this command."
        return Finding.warn("callback size", where, hint)
    if answer.status_code == 413:
        return Finding.fail("callback size", f"{where}, and not by this service", _PROXY_HINT)
    return Finding.fail("callback size", f"{where}; expected 401 from this service", "Check PUBLIC_URL.")


_PROXY_HINT = "Raise the body limit of the proxy or tunnel before the service: outputs come inline."

SIZE_CHECKS = (
    Check("body limit", _check_limits, 5, "Check MAX_CONTENT_LENGTH."),
    Check("callback size", _check_callback, 75, _PROXY_HINT),
)
