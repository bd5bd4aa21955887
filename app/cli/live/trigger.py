"""`reprise trigger`: news as a provider would send it, made here, posted to the service's own door.

It is signed with this installation's webhook secret and carries the token of the attempt that it is about, so
it takes the very way that real news takes, and moves a job if it is about one. For a look at what a receiver
does with old, doubled, reordered and forged news.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import secrets
import struct
import time
import wave
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer

from app.cli.request import AsJson
from app.cli.tools import show
from app.cli.tools.calls import CommandError, Exit, Json, call, run
from app.cli.tools.connection import Origin, ServiceClient, read_settings, service_client
from app.outbound.addresses import is_loopback
from app.provider.signature import WebhookSecrets
from app.settings import Settings
from app.tokens import Callbacks
from app.wiring.openers import open_database
from db.attempts import find_attempt, list_attempts
from db.keys import claim_secret
from db.tables import Attempt

Event = Literal["prediction.succeeded", "prediction.failed", "prediction.canceled", "prediction.processing"]
SIGNING = "replicate"
"""The provider whose callbacks are signed; of the others the token is proof enough."""
SETTLED_S = 5.0
"""How long to wait until the service has settled the delivery."""
LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Misdeeds:
    """What is to be wrong with the news."""

    bad_signature: bool
    old: bool
    twice: bool
    reordered: bool

    @property
    def is_forged(self) -> bool:
        """Whether the door must refuse it."""
        return self.bad_signature or self.old


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom the news is about: an attempt of ours with its token, or one that never was."""

    provider: str
    attempt_id: str
    token: str
    prediction_id: str
    model: str


@dataclass(frozen=True, slots=True)
class Letter:
    """One post to the door."""

    event: str
    headers: dict[str, str]
    body: bytes


def trigger(
    event: Annotated[Event, typer.Argument(help="What has happened to the prediction.")],
    attempt_id: Annotated[str | None, typer.Option("--attempt", help="The attempt that it is about.")] = None,
    job_id: Annotated[
        str | None, typer.Option("--job", help="The job whose newest attempt it is about.")
    ] = None,
    bad_signature: Annotated[bool, typer.Option("--bad-signature", help="Signed by a stranger.")] = False,
    old: Annotated[bool, typer.Option("--old", help="Signed longer ago than is tolerated.")] = False,
    twice: Annotated[bool, typer.Option("--twice", help="The same message two times.")] = False,
    reordered: Annotated[
        bool, typer.Option("--reordered", help="Then `processing`, which was said before it.")
    ] = False,
    body: Annotated[Path | None, typer.Option("--body", help="Send this file's bytes instead.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Also where PUBLIC_URL is not this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send the service a signed event as its provider would; without an attempt, about nothing of ours."""
    settings = read_settings()
    if attempt_id and job_id:
        raise CommandError("--job: the attempt says it already", Exit.USAGE)
    if not yes and settings.public_url and not is_loopback(httpx.URL(settings.public_url).host):
        raise CommandError(
            f"PUBLIC_URL is {settings.public_url}: what is sent there changes real jobs; say --yes",
            Exit.USAGE,
        )
    wrong = Misdeeds(bad_signature=bad_signature, old=old, twice=twice, reordered=reordered)
    given = body.read_bytes() if body else None
    said = run(_trigger(settings, event.removeprefix("prediction."), attempt_id, job_id, given, wrong))
    if as_json:
        show.print_json({"posts": said})
    else:
        _tell(said)
    if any((each["status"] < 300) == wrong.is_forged for each in said):
        raise SystemExit(Exit.FAILED)


async def _trigger(
    settings: Settings,
    status: str,
    attempt_id: str | None,
    job_id: str | None,
    body: bytes | None,
    wrong: Misdeeds,
) -> list[Json]:
    async with service_client(settings, stations=False) as client:
        to = await _addressee(settings, attempt_id, job_id)
        letters = _letters(settings, to, status, body, wrong)
        return _marked([await _deliver(client, to, letter) for letter in letters])


async def _addressee(settings: Settings, attempt_id: str | None, job_id: str | None) -> Addressee:
    """Looked up in the database itself: the token must not leave the installation by any route."""
    database = open_database(settings)
    try:
        attempt: Attempt | None = None
        async with database.reading() as tx:
            if attempt_id is not None:
                attempt = await find_attempt(tx, attempt_id)
            elif job_id is not None:
                attempt = next(reversed(await list_attempts(tx, job_id)), None)
        if attempt is None and (attempt_id or job_id):
            what = f"attempt {attempt_id}" if attempt_id else f"attempt at job {job_id}"
            raise CommandError(f"there is no {what}", Exit.NOT_FOUND)
        async with database.transaction() as tx:
            secret = await claim_secret(tx, "callbacks", secrets.token_hex(32), now=await tx.now())
    finally:
        await database.aclose()
    callbacks = Callbacks(secret=secret, public_url=None)
    if attempt is None:
        made_up = f"att_{secrets.token_hex(16)}"
        return Addressee("replicate", made_up, callbacks.token(made_up), secrets.token_hex(13), "made/up")
    prediction_id = attempt.prediction_id or secrets.token_hex(13)
    return Addressee(attempt.provider, attempt.id, callbacks.token(attempt.id), prediction_id, attempt.model)


def _letters(
    settings: Settings, to: Addressee, status: str, body: bytes | None, wrong: Misdeeds
) -> list[Letter]:
    if wrong.is_forged and to.provider != SIGNING:
        raise CommandError(
            f"{to.provider} signs nothing: nothing can be wrong with its signature", Exit.USAGE
        )
    signers = _signers(settings, to, forged=wrong.bad_signature)
    age_s = 2 * settings.webhook_tolerance_s if wrong.old else 0
    first = _signed(signers, status, body or _body(to, status), age_s=age_s)
    letters = [first, first] if wrong.twice else [first]
    if wrong.reordered:
        letters.append(_signed(signers, "processing", _body(to, "processing"), age_s=age_s + 1))
    return letters


def _signed(signers: WebhookSecrets, status: str, body: bytes, *, age_s: int) -> Letter:
    message_id, timestamp_s = f"msg_{secrets.token_hex(12)}", int(time.time()) - age_s
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signers.sign(message_id, timestamp_s, body),
    }
    return Letter(f"prediction.{status}", headers, body)


def _signers(settings: Settings, to: Addressee, *, forged: bool) -> WebhookSecrets:
    if forged or to.provider != SIGNING:
        return WebhookSecrets([f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}"])
    if settings.replicate_webhook_secret is None:
        raise CommandError("REPLICATE_WEBHOOK_SECRET: needed, so that the news can be signed as a provider's")
    return WebhookSecrets(settings.replicate_webhook_secret.get_secret_value().split())


async def _deliver(client: ServiceClient, to: Addressee, letter: Letter) -> Json:
    path = f"/v1/webhooks/{to.provider}/{to.attempt_id}"
    try:
        answer = await client.post(
            path, params={"token": to.token}, content=letter.body, headers=letter.headers
        )
    except httpx.TransportError as exc:
        raise CommandError(f"the service at {client.base_url} does not answer: {exc}") from exc
    said: dict[str, Any] = {"event": letter.event, "status": answer.status_code, "delivery": None}
    if answer.is_success:
        said["delivery"] = await _settled(client, answer.json()["delivery_id"])
    else:
        said["problem"] = answer.json()
    return said


def _marked(posts: list[Json]) -> list[Json]:
    """Each post with whether its news was known: the answer to a doubled one names the first's delivery."""
    stored: set[str] = set()
    for post in posts:
        delivery = post["delivery"]
        post["known_already"] = delivery is not None and delivery["id"] in stored
        if delivery is not None:
            stored.add(delivery["id"])
    return posts


async def _settled(client: ServiceClient, delivery_id: str) -> Json:
    """The delivery, settled if a service works on it; None where another service stored it."""
    until = time.monotonic() + SETTLED_S
    while True:
        try:
            delivery = await call(client, "GET", f"/v1/deliveries/{delivery_id}")
        except CommandError as exc:
            if exc.code is Exit.NOT_FOUND:
                return None
            raise
        if delivery["settled_at"] or client.origin is Origin.IN_PROCESS or time.monotonic() > until:
            return {name: delivery[name] for name in ("id", "job_id", "attempt_id", "outcome", "detail")}
        await asyncio.sleep(LOOK_S)


def _body(to: Addressee, status: str) -> bytes:
    """A prediction as Replicate tells it; one that succeeded has a second of tone as its output."""
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    is_over = status != "processing"
    return json.dumps(
        {
            "id": to.prediction_id,
            "model": to.model,
            "version": "",
            "status": status,
            "input": {},
            "output": _tone() if status == "succeeded" else None,
            "error": "made to fail by reprise trigger" if status == "failed" else None,
            "logs": "",
            "metrics": {"predict_time": 1.0} if is_over else {},
            "created_at": now,
            "started_at": now,
            "completed_at": now if is_over else None,
        }
    ).encode()


def _tone() -> str:
    rate = 22_050
    samples = [round(9000 * math.sin(2 * math.pi * 440 * at / rate)) for at in range(rate)]
    target = io.BytesIO()
    with wave.open(target, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return f"data:audio/wav;base64,{base64.b64encode(target.getvalue()).decode()}"


def _tell(said: list[Json]) -> None:
    for each in said:
        delivery = each["delivery"]
        if each["status"] >= 300:
            became = f"refused: {each['problem'].get('detail', '')}"
        elif each["known_already"]:
            became = "known already: nothing was stored"
        elif delivery is None:
            became = "stored, and not to be seen here"
        else:
            became = f"{delivery['id']} {delivery['outcome'] or 'unsettled'}: {delivery['detail'] or ''}"
        show.print_line(f"{each['event']} → {each['status']}  {became}".rstrip(": "))
