"""`/v1/keys`: an administrator's keys of its own tenant: list, create, rotate, revoke."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field, Strict

from app.access.callers import Scope
from app.access.desk import LONGEST_OVERLAP_S, MOST_NAME_CHARACTERS, Issued
from app.web.paging import Paged
from app.web.parts import Administrator, Moment, Part, Responses
from app.web.schemas import Asked, Problem
from db.tables import AccessKey

KeyId = Annotated[str, Path(max_length=64, description="The key's id")]
NOT_FOUND: Responses = {404: {"model": Problem, "description": "There is no such key"}}
REFUSED: Responses = {
    422: {"model": Problem, "description": "A value is wrong; `field` names it"},
}
router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=REFUSED)


class NewAccessKey(Asked):
    """A key to be made, in the tenant of whoever asks."""

    name: str = Field(min_length=1, max_length=MOST_NAME_CHARACTERS, description="For people")
    scopes: list[Annotated[Scope, Strict(False)]] = Field(min_length=1, max_length=len(Scope))
    expires_at: Moment | None = Field(None, description="When it ends; null: not by itself")


class Rotation(Asked):
    """How a key is replaced."""

    overlap_s: float = Field(
        86_400, ge=0, le=LONGEST_OVERLAP_S, description="How long the old key goes on beside the new one"
    )
    expires_at: Moment | None = Field(
        None, description="When the new one ends; null: after as long as the old one was given"
    )


class AccessKeyOut(BaseModel):
    """A key without its text, which nobody can read again."""

    id: str
    prefix: str = Field(description="How its text begins")
    name: str
    tenant: str
    scopes: list[str]
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None = Field(description="To the minute")
    revoked_at: Moment | None

    @classmethod
    def of(cls, key: AccessKey) -> AccessKeyOut:
        return cls(**key.model_dump(exclude={"digest"}))


class IssuedKey(AccessKeyOut):
    """A new key with its text, this once."""

    key: str = Field(description="The text, for `Authorization: Bearer`. It is shown this once")

    @classmethod
    def issued(cls, issued: Issued) -> IssuedKey:
        return cls(**issued.key.model_dump(exclude={"digest"}), key=issued.text)


class AccessKeyPage(BaseModel):
    """A page of keys, newest first."""

    items: list[AccessKeyOut]
    next_cursor: str | None


@router.get("")
async def list_keys(
    runtime: Part,
    caller: Administrator,
    paging: Paged,
) -> AccessKeyPage:
    """The keys of your tenant, newest first, those that have ended too."""
    page = paging.of("keys", caller.tenant)
    found = await runtime.key_desk.list_keys(caller.tenant, before_id=page.after, limit=page.reach)
    shown, more = page.cut(found, lambda each: each.id)
    return AccessKeyPage(items=[AccessKeyOut.of(each) for each in shown], next_cursor=more)


@router.post("", status_code=201)
async def create_key(
    new: NewAccessKey, runtime: Part, caller: Administrator, response: Response
) -> IssuedKey:
    """Make a key. From the first one on every request needs one."""
    issued = await runtime.key_desk.create(
        caller, name=new.name, scopes=new.scopes, expires_at=new.expires_at
    )
    return _shown_once(runtime, issued, response)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    responses={**NOT_FOUND, 409: {"model": Problem, "description": "The key has ended"}},
)
async def rotate_key(
    key_id: KeyId, wanted: Rotation, runtime: Part, caller: Administrator, response: Response
) -> IssuedKey:
    """Make a key with the same rights; the old one ends after the overlap."""
    issued = await runtime.key_desk.rotate(
        caller, key_id, overlap_s=wanted.overlap_s, expires_at=wanted.expires_at
    )
    return _shown_once(runtime, issued, response)


@router.post("/{key_id}/revoke", responses=NOT_FOUND)
async def revoke_key(key_id: KeyId, runtime: Part, caller: Administrator) -> AccessKeyOut:
    """End a key: here at once, in other processes within ACCESS_CACHE_S. Ending it twice changes nothing."""
    key = await runtime.key_desk.revoke(caller, key_id)
    runtime.keyring.forget()
    return AccessKeyOut.of(key)


def _shown_once(runtime: Part, issued: Issued, response: Response) -> IssuedKey:
    runtime.keyring.close_house()
    runtime.keyring.forget()
    response.headers["Cache-Control"] = "no-store"
    return IssuedKey.issued(issued)
