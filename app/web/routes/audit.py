"""`/v1/audit`: who did what in a tenant, for its administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.access.trail import Act
from app.web.paging import Paged
from app.web.parts import Administrator, Moment, Part, Responses
from app.web.schemas import Problem
from db.access.audit import list_audit
from db.tables import Audit

REFUSED: Responses = {
    400: {"model": Problem, "description": "The cursor was not made by this list"},
}
router = APIRouter(prefix="/v1/audit", tags=["audit"], responses=REFUSED)


class AuditOut(BaseModel):
    """One act."""

    id: str
    at: Moment
    act: str
    subject: str = Field(description="The id of what it was done to")
    key_id: str | None = Field(
        description="Whose key; null while there were none, or by a command on the database itself"
    )
    request_id: str | None = Field(description="Null by a command on the database itself")

    @classmethod
    def of(cls, row: Audit) -> AuditOut:
        return cls(**row.model_dump(exclude={"tenant"}))


class AuditPage(BaseModel):
    """A page of acts, newest first."""

    items: list[AuditOut]
    next_cursor: str | None


@router.get("")
async def read_audit(
    runtime: Part,
    caller: Administrator,
    paging: Paged,
    act: Act | None = None,
    subject: Annotated[str | None, Query(max_length=128, description="Only what was done to this id")] = None,
) -> AuditPage:
    """What the keys of your tenant did, newest first; older than AUDIT_S it is forgotten."""
    page = paging.of("audit", caller.tenant, act, subject)
    async with runtime.line.database.reading() as tx:
        found = await list_audit(
            tx, tenant=caller.tenant, act=act, subject=subject, before_id=page.after, limit=page.reach
        )
    shown, more = page.cut(found, lambda each: each.id)
    return AuditPage(items=[AuditOut.of(each) for each in shown], next_cursor=more)
