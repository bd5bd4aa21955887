"""What every namespace does alike: lets callers in, takes their messages, tells them things.

A namespace is a class below `Namespace`: `name`, the messages that it takes (`incoming`: a model for each,
and a method of the same name), and what it does when somebody comes or goes. Promises: the method is called
for a proven caller with a valid message and nothing else; a message that is none of `incoming`, the library's
own words included, is answered with `error`; what a method raises is answered with its code, and never with a
foreign exception's text. A message that asks for an acknowledgement gets the method's answer there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import socketio
import structlog
from pydantic import BaseModel, Field, ValidationError
from socketio.exceptions import ConnectionRefusedError as Refused

from app.access.callers import Caller, Scope
from app.errors import AppError, Forbidden, InvalidInput, Overloaded, RequestError, Stopping, TransientError
from app.web.socket.connections import Connection, Goodbye, Member
from app.web.socket.library import encode
from app.web.socket.proof import prove
from app.wiring import Runtime
from db.session import DatabaseUnavailable

log = structlog.get_logger()

MOST_FIELD_CHARACTERS = 200
CONNECTION = "connection"
"""Under this name the library hands our connection back: a client cannot make one up."""
Answer = Mapping[str, Any] | None


class ErrorTold(BaseModel):
    """A message that was refused."""

    code: str = Field(description="One of the table of errors, or `internal`")
    message: str
    event: str = Field(description="What you called your message")
    field: str | None = Field(None, description="Which part of it is wrong")
    retry_after_s: float | None = Field(None, description="When the same may work")


class ClosedTold(BaseModel):
    """The last word."""

    reason: Goodbye
    message: str


EVERYWHERE: Mapping[str, tuple[str, type[BaseModel]]] = {
    "error": ("Your message was refused; the connection stands", ErrorTold),
    "closed": ("The service ends the connection", ClosedTold),
}
"""What is told in every namespace."""


class Namespace(socketio.AsyncNamespace):  # type: ignore[misc]
    """One namespace of a server; one object an app."""

    name: ClassVar[str]
    incoming: ClassVar[Mapping[str, type[BaseModel]]]
    outgoing: ClassVar[Mapping[str, tuple[str, type[BaseModel]]]]
    """What is told here: for each event what it says, and the model of its payload; `EVERYWHERE` beside."""
    needs: ClassVar[Scope] = Scope.JOBS_READ
    """What a caller must be allowed, to be here at all; a method may ask for more by `need`."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(self.name)
        self.runtime = runtime
        self.members: dict[str, Member] = {}
        self.is_closing = False
        self.count_of: Callable[[str], int] = lambda _counted_as: 0
        """Connections of one caller to the server, who knows."""
        self.hang_up: Callable[[Connection, Goodbye], None] = lambda _connection, _reason: None
        """Close a connection, soon; the server does."""

    async def proven(self, auth: object, authorization: str | None) -> Caller:
        """Who wants to come in, and may. Raises KeyNeeded, Forbidden, DatabaseUnavailable."""
        caller = await prove(self.runtime, auth, authorization)
        if not caller.may(self.needs):
            raise Forbidden(f"the key lacks the scope {self.needs.value}")
        return caller

    async def came(self, member: Member) -> None:
        """Somebody was let in; their first message comes after this."""

    async def left(self, member: Member) -> None:
        """Somebody has gone, or is about to: nothing that is told reaches them any more."""

    async def stop(self) -> None:
        """The server stops; everybody has been sent away."""

    async def tell(self, member: Member, event: str, payload: object) -> None:
        """Say something to one member; nothing, if they have gone. Waits for nobody."""
        await self.server.eio.send_packet(member.connection.id, encode(self.name, event, payload))

    async def tell_room(self, room: str, event: str, payload: object, *, but: Member | None = None) -> None:
        """Say something to everybody in a room (`room_of`), in their own time; encoded once."""
        packet = encode(self.name, event, payload)
        for sid, line in list(self.server.manager.get_participants(self.name, room)):
            if but is None or sid != but.sid:
                await self.server.eio.send_packet(line, packet)

    def room_of(self, member: Member, *names: str) -> str:
        """The name of a room that only members of this one's tenant can be in."""
        return "\n".join((member.caller.tenant, *names))

    async def enter(self, member: Member, room: str) -> None:
        await self.enter_room(member.sid, room)

    async def leave(self, member: Member, room: str) -> None:
        await self.leave_room(member.sid, room)

    def need(self, member: Member, scope: Scope) -> None:
        """Raises Forbidden, unless the member's key allows that."""
        if not member.caller.may(scope):
            raise Forbidden(f"the key lacks the scope {scope.value}")

    async def trigger_event(self, event: object, *args: Any) -> Any:
        """Called by the library for everything that happens, and with whatever a client calls a message."""
        sid = args[0]
        if event == "connect" and _connection_in(args) is not None:
            await self._let_in(sid, args[1][CONNECTION], args[2] if len(args) > 2 else None)
            return None
        member = self.members.get(sid)
        if event == "disconnect" and not self.server.manager.is_connected(sid, self.name):
            if member is not None:
                await self._let_go(member)
            return None
        return None if member is None else await self._take(member, event, args[1:])

    async def _let_in(self, sid: str, connection: Connection, auth: object) -> None:
        try:
            if self.is_closing or connection.is_closing:
                raise Stopping("the service is stopping")
            caller = await self.proven(auth, connection.authorization)
            if connection.caller is not None and connection.caller.tenant != caller.tenant:
                raise Forbidden("one connection is one tenant's")
            self._count_in(connection, caller.key_id or connection.address)
        except (AppError, DatabaseUnavailable) as exc:
            refusal = problem_of(exc)
            raise Refused(refusal["message"], refusal) from exc
        connection.caller = caller
        member = connection.members[self.name] = self.members[sid] = Member(sid, caller, connection)
        await self.came(member)

    def _count_in(self, connection: Connection, counted_as: str) -> None:
        """Raises Overloaded where this caller has too many already."""
        if connection.caller is not None:
            return
        most = self.runtime.settings.socket_connections_per_caller
        if self.count_of(counted_as) >= most:
            raise Overloaded(f"more than {most} connections of one caller", retry_after_s=5)

    async def _let_go(self, member: Member) -> None:
        self.members.pop(member.sid, None)
        member.connection.members.pop(self.name, None)
        await self.left(member)

    async def _take(self, member: Member, event: object, args: tuple[Any, ...]) -> Answer:
        """A message: the method's answer, or what is wrong, which is told as `error` too."""
        try:
            asked = self._read(event, args)
            answer: Answer = await getattr(self, str(event))(member, asked)
            return answer
        except ValidationError as exc:
            problem = {"code": InvalidInput.code, **_what_is_wrong(exc)}
        except (AppError, DatabaseUnavailable) as exc:
            problem = problem_of(exc)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("socket.message_failed", namespace=self.name, message_name=str(event)[:64])
            problem = {"code": "internal", "message": "an error of ours; see the log"}
        refusal = {**problem, "event": str(event)[:64]}
        await self.tell(member, "error", refusal)
        return {"error": refusal}

    def _read(self, event: object, args: tuple[Any, ...]) -> BaseModel:
        """Raises UnknownMessage, ValidationError."""
        model = self.incoming.get(event) if isinstance(event, str) else None
        if model is None:
            raise UnknownMessage("there is no such message here")
        return model.model_validate({} if not args or args[0] is None else args[0])


class UnknownMessage(RequestError):
    """A Socket.IO message of that name is not taken in that namespace."""

    code = "unknown_message"


def problem_of(exc: AppError | DatabaseUnavailable) -> dict[str, Any]:
    """What a refusal says: `code`, `message`, and `retry_after_s` where coming again may help."""
    if isinstance(exc, DatabaseUnavailable):
        return {
            "code": "storage_unavailable",
            "message": "the database cannot be used now",
            "retry_after_s": 5,
        }
    if not isinstance(exc, (RequestError, TransientError)):
        return {"code": "internal", "message": "an error of ours; see the log"}
    said: dict[str, Any] = {"code": exc.code, "message": exc.message}
    if isinstance(exc, InvalidInput) and exc.field:
        said["field"] = exc.field
    wait_s = getattr(exc, "retry_after_s", None)
    return {**said, "retry_after_s": wait_s} if wait_s is not None else said


def _connection_in(args: tuple[Any, ...]) -> Connection | None:
    environ = args[1] if len(args) > 1 else None
    found = environ.get(CONNECTION) if isinstance(environ, dict) else None
    return found if isinstance(found, Connection) else None


def _what_is_wrong(exc: ValidationError) -> dict[str, str]:
    first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:MOST_FIELD_CHARACTERS]
    return {"message": str(first["msg"])[:MOST_FIELD_CHARACTERS], **({"field": field} if field else {})}
