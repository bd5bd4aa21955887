"""`POST /v1/socket-tokens`: a short-lived token for a page that should not have a key."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.web.parts import Moment, Part, Reader

router = APIRouter(prefix="/v1/socket-tokens", tags=["sockets"])


class SocketToken(BaseModel):
    """What a client sends as `auth: {token}` when it connects."""

    token: str
    expires_at: Moment = Field(description="To connect by; a connection that stands goes on")


@router.post("", status_code=201)
async def create_socket_token(runtime: Part, caller: Reader, response: Response) -> SocketToken:
    """A token that connects to Socket.IO with what your key allows, for as long as the key holds."""
    ticket = runtime.tickets.issue(caller, now=runtime.line.clock.now())
    response.headers["Cache-Control"] = "no-store"
    return SocketToken(token=ticket.text, expires_at=ticket.expires_at)
