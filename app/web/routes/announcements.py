"""`/v1/announcements`, `/v1/endpoints`, `/v1/webhook-secrets`: what callers were told, where, signed how."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field

from app.announcing.endpoints import without_query
from app.web.paging import Paged
from app.web.parts import (
    Administrator,
    Moment,
    Part,
    Reader,
    Replayer,
    Responses,
)
from app.web.schemas import Asked, Problem, Text
from db.announcements.ledger import AnnouncementFilter
from db.states import AnnouncementState
from db.tables import Announcement, AnnouncementAttempt, Endpoint, WebhookSecret

AnnouncementId = Annotated[str, Path(max_length=64)]
EndpointId = Annotated[str, Path(max_length=64)]
StateWord = Literal["pending", "delivered", "failed", "held"]
A_DAY_S = 86_400.0
UNDELIVERED = (AnnouncementState.FAILED, AnnouncementState.HELD)

router = APIRouter(prefix="/v1", tags=["announcements"])
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is none, or none that you may see"}}
CONFLICT: Responses = {409: {"model": Problem, "description": "Its state does not allow it"}}


class AnnouncementOut(BaseModel):
    """A job's end, and how far telling its caller has come."""

    id: str = Field(description="The `webhook-id` of every try")
    job_id: str
    endpoint_id: str
    url: Annotated[str, AfterValidator(without_query)] = Field(description="Without its query")
    type: str
    state: StateWord
    attempts: int
    created_at: datetime
    next_at: datetime | None = Field(description="When it is tried next; null when it has come to an end")
    settled_at: datetime | None
    error: str | None = Field(description="What the last try came to; null once it was delivered")

    @classmethod
    def of(cls, row: Announcement) -> AnnouncementOut:
        next_at = row.run_after if row.state == AnnouncementState.PENDING else None
        return cls(**row.model_dump(include=set(cls.model_fields)), next_at=next_at)


class RequestOut(BaseModel):
    """What was sent besides the body. The signature is not kept."""

    headers: dict[str, str]


class ResponseOut(BaseModel):
    """What came back, cut; it is a stranger's text."""

    status: int
    headers: dict[str, str]
    body: str = Field(description="The first 4 kB, as far as it is UTF-8")


class AnnouncementAttemptOut(BaseModel):
    """One try."""

    number: int
    at: datetime
    outcome: str
    latency_ms: int
    error: str | None
    request: RequestOut
    response: ResponseOut | None = Field(description="Null when there was no whole answer")
    next_at: datetime | None

    @classmethod
    def of(cls, row: AnnouncementAttempt) -> AnnouncementAttemptOut:
        response = None
        if row.status is not None:
            body = row.response_body.decode("utf-8", "replace")
            response = ResponseOut(status=row.status, headers=row.response_headers, body=body)
        return cls(
            **row.model_dump(include=set(cls.model_fields)),
            request=RequestOut(headers=row.request_headers),
            response=response,
        )


class AnnouncementDetail(AnnouncementOut):
    """The same with its body and the tries at it, the first one first."""

    payload: str
    tries: list[AnnouncementAttemptOut]


class AnnouncementPage(BaseModel):
    """Announcements, newest first."""

    items: list[AnnouncementOut]
    next_cursor: str | None


class NewResend(Asked):
    """Which announcements to send again."""

    since: Moment = Field(description="Made from then on")
    until: Moment | None = Field(None, description="Made before then; null: now")
    endpoint: Text | None = Field(None, max_length=64, description="Only to this endpoint")
    state: StateWord | None = Field(None, description="Only in this state; null: `failed` and `held`")
    dry_run: bool = Field(False, description="Count, and send nothing")


class ResentOut(BaseModel):
    """What was, or would be, sent again."""

    dry_run: bool
    count: int = Field(description="Announcements in the range")
    to_disabled: int = Field(description="Of these, to endpoints that are disabled: they stay")
    resent: int
    has_more: bool = Field(description="Whether there are more than one call takes; call again")


class EndpointOut(BaseModel):
    """An address of yours, and how it does."""

    id: str
    url: str = Field(description="Without its query")
    state: Literal["enabled", "paused", "disabled"]
    failures: int = Field(description="In a row")
    failing_since: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    last_error: str | None
    paused_until: datetime | None
    disabled_at: datetime | None
    disabled_reason: Literal["gone", "failing"] | None

    @classmethod
    def of(cls, row: Endpoint, now: datetime) -> EndpointOut:
        is_paused = row.paused_until is not None and row.paused_until > now
        state = "disabled" if row.disabled_at else "paused" if is_paused else "enabled"
        return cls(**row.model_dump(include=set(cls.model_fields)), state=state)


class EndpointPage(BaseModel):
    """Endpoints, in no order that means anything."""

    items: list[EndpointOut]
    next_cursor: str | None


class EnabledOut(EndpointOut):
    """The endpoint, and how many announcements wait to be asked for again."""

    held: int


class SecretOut(BaseModel):
    """A secret that signs your announcements."""

    number: int
    secret: str
    created_at: datetime
    expires_at: datetime | None = Field(description="When it stops signing; null for the current one")

    @classmethod
    def of(cls, row: WebhookSecret) -> SecretOut:
        return cls(number=row.number, secret=row.value, created_at=row.created_at, expires_at=row.expires_at)


class SecretsOut(BaseModel):
    """The secrets that sign now, the newest first; each try is signed by all of them."""

    items: list[SecretOut]


class NewRotation(Asked):
    """How a new secret takes the place of the current one."""

    overlap_s: float = Field(
        A_DAY_S, ge=0, description="How long the old one signs along; 0 ends all older ones now"
    )


@router.get("/announcements")
async def list_announcements(
    runtime: Part,
    caller: Reader,
    paging: Paged,
    job_id: Annotated[str | None, Query(max_length=64)] = None,
    state: StateWord | None = None,
    endpoint: Annotated[str | None, Query(max_length=64, description="An endpoint's id")] = None,
) -> AnnouncementPage:
    """What callers were told, or are yet to be told; newest first."""
    page = paging.of("announcements", caller.tenant, job_id, state, endpoint)
    wanted = AnnouncementFilter(
        caller.tenant,
        job_id=job_id,
        states=(AnnouncementState(state),) if state else (),
        endpoint_id=endpoint,
        before_id=page.after,
    )
    found = await runtime.outbox.list_announcements(wanted, limit=page.reach)
    shown, more = page.cut(found, lambda each: each.id)
    return AnnouncementPage(items=[AnnouncementOut.of(each) for each in shown], next_cursor=more)


@router.post("/announcements/resend")
async def resend_announcements(wanted: NewResend, runtime: Part, caller: Replayer) -> ResentOut:
    """Send what was made in a time again; with `dry_run` only say how much that would be."""
    found = await runtime.outbox.resend_range(
        AnnouncementFilter(
            caller.tenant,
            states=(AnnouncementState(wanted.state),) if wanted.state else UNDELIVERED,
            endpoint_id=wanted.endpoint,
            since=wanted.since,
            until=wanted.until or runtime.line.clock.now(),
        ),
        by=caller,
        dry_run=wanted.dry_run,
    )
    return ResentOut(
        dry_run=found.dry_run,
        count=found.count,
        to_disabled=found.to_disabled,
        resent=found.resent,
        has_more=found.has_more,
    )


@router.get("/announcements/{announcement_id}", responses=NOT_FOUND)
async def get_announcement(
    announcement_id: AnnouncementId, runtime: Part, caller: Reader
) -> AnnouncementDetail:
    """One announcement: what was sent, every try at it, and what came back."""
    found, tries = await runtime.outbox.get(caller.tenant, announcement_id)
    return AnnouncementDetail(
        **AnnouncementOut.of(found).model_dump(),
        payload=found.payload,
        tries=[AnnouncementAttemptOut.of(each) for each in tries],
    )


@router.post("/announcements/{announcement_id}/resend", status_code=202, responses=NOT_FOUND | CONFLICT)
async def resend_announcement(
    announcement_id: AnnouncementId, runtime: Part, caller: Replayer
) -> AnnouncementOut:
    """Send one again, whatever became of it, under the same `webhook-id`."""
    return AnnouncementOut.of(await runtime.outbox.resend(announcement_id, by=caller))


@router.get("/endpoints")
async def list_endpoints(
    runtime: Part,
    caller: Reader,
    paging: Paged,
    disabled: Annotated[bool | None, Query(description="Only those that are, or are not")] = None,
) -> EndpointPage:
    """The addresses that announcements went to, and how they do."""
    page = paging.of("endpoints", caller.tenant, disabled)
    found = await runtime.outbox.list_endpoints(
        caller.tenant, before_id=page.after, disabled=disabled, limit=page.reach
    )
    shown, more = page.cut(found, lambda each: each.id)
    now = runtime.line.clock.now()
    return EndpointPage(items=[EndpointOut.of(each, now) for each in shown], next_cursor=more)


@router.post("/endpoints/{endpoint_id}/enable", responses=NOT_FOUND)
async def enable_endpoint(endpoint_id: EndpointId, runtime: Part, caller: Replayer) -> EnabledOut:
    """Send there again. What was held meanwhile goes out when it is asked for (`state=held`)."""
    endpoint = await runtime.outbox.enable(endpoint_id, by=caller)
    held = await runtime.outbox.held_at(caller.tenant, endpoint_id)
    return EnabledOut(**EndpointOut.of(endpoint, runtime.line.clock.now()).model_dump(), held=held)


@router.get("/webhook-secrets")
async def show_secrets(runtime: Part, caller: Administrator, response: Response) -> SecretsOut:
    """The secrets that sign your announcements; the first one is made when it is first asked for."""
    response.headers["Cache-Control"] = "no-store"
    return SecretsOut(items=[SecretOut.of(each) for each in await runtime.webhook_keys.show(caller.tenant)])


@router.post("/webhook-secrets", responses=CONFLICT)
async def rotate_secret(
    wanted: NewRotation, runtime: Part, caller: Administrator, response: Response
) -> SecretsOut:
    """Make a new secret; the old one signs along for the overlap, so that no receiver misses a beat."""
    response.headers["Cache-Control"] = "no-store"
    rotated = await runtime.webhook_keys.rotate(by=caller, overlap_s=wanted.overlap_s)
    return SecretsOut(items=[SecretOut.of(each) for each in rotated])
