"""`/v1/audit`: who did what in a tenant, for its administrators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.access.trail import Act
from app.web.parts import Administrator, Moment, Part, Responses, pack_cursor, unpack_cursor
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
    act: Act | None = None,
    subject: Annotated[str | None, Query(max_length=128, description="Only what was done to this id")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> AuditPage:
    """What the keys of your tenant did, newest first; older than AUDIT_S it is forgotten."""
    binding = ("audit", caller.tenant, act, subject)
    before_id = unpack_cursor(cursor, runtime.cursors, binding=binding)
    async with runtime.line.database.reading() as tx:
        found = await list_audit(
            tx, tenant=caller.tenant, act=act, subject=subject, before_id=before_id, limit=limit + 1
        )
    last = found[limit - 1].id if len(found) > limit else None
    more = pack_cursor(last, runtime.cursors, binding=binding) if last else None
    return AuditPage(items=[AuditOut.of(each) for each in found[:limit]], next_cursor=more)
