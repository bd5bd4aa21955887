"""`/performance`: the devices of a karaoke evening, each in the room of one performance.

A device joins, hears `performance_state`, and from then on whatever changes, also what it changed itself: the
events carry the state with its version, and a device shows the highest that it has heard of. Promises: a room
is one performance of one tenant; what changes is a row, so any process may take a command and a restart
forgets nothing; a guest, who came with a token and no key, is in the room of that token alone, and out when
its time is over. What is wrong with a message is answered with the field, and nothing has changed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pydantic import BaseModel

from app.access.callers import Caller, Scope
from app.access.keys import KeyNeeded
from app.errors import Conflict, NotFound
from app.karaoke.stage.remotes import PREFIX, Guest
from app.karaoke.stage.rows import state_of
from app.karaoke.stage.state import Command, apply
from app.karaoke.stage.told import queue_payload, state_payload
from app.web.socket.connections import Goodbye, Member
from app.web.socket.namespace import Answer, Namespace
from app.web.socket.proof import MOST_TOKEN_CHARACTERS, has_ended
from app.web.socket.stage import messages
from app.web.socket.stage.rooms import Room
from app.web.socket.stage.told import OUTGOING
from app.wiring import Runtime


class NotJoined(Conflict):
    """The device is in no performance: `join_performance` comes first."""

    code = "not_joined"


@dataclass(slots=True)
class Presence:
    """What a member of this namespace has."""

    room: Room | None = None
    leaving: asyncio.TimerHandle | None = None
    """A guest's time."""


class PerformanceNamespace(Namespace):
    """The namespace; one object an app."""

    name = "/performance"
    incoming: ClassVar[dict[str, type[BaseModel]]] = {
        "join_performance": messages.Join,
        "leave_performance": messages.Leave,
        "update_performance_control": messages.UpdateControl,
        "playback_play": messages.PlaybackPlay,
        "playback_pause": messages.PlaybackPause,
        "playback_seek": messages.PlaybackSeek,
        "update_player_state": messages.PlayerState,
    }
    outgoing: ClassVar[Mapping[str, tuple[str, type[BaseModel]]]] = OUTGOING

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self._rooms: dict[str, Room] = {}

    async def proven(self, auth: object, authorization: str | None) -> Caller:
        """By a key or a ticket, as everywhere, or by a token for one performance."""
        token = auth.get("token") if isinstance(auth, Mapping) else None
        if not isinstance(token, str) or not token.startswith(PREFIX) or len(token) > MOST_TOKEN_CHARACTERS:
            return await super().proven(auth, authorization)
        guest = self.runtime.karaoke.remotes.read(token, now=self.runtime.line.clock.now())
        if await has_ended(self.runtime, guest):
            raise KeyNeeded
        return guest

    async def came(self, member: Member) -> None:
        member.state = presence = Presence()
        if isinstance(member.caller, Guest):
            left_s = (member.caller.expires_at - self.runtime.line.clock.now()).total_seconds()
            loop = asyncio.get_running_loop()
            presence.leaving = loop.call_later(max(0.0, left_s), partial(self._show_out, member))

    async def left(self, member: Member) -> None:
        presence = _presence(member)
        if presence.leaving is not None:
            presence.leaving.cancel()
        await self._go_out(member)

    async def stop(self) -> None:
        for room in list(self._rooms.values()):
            await room.stop()
        self._rooms.clear()

    async def join_performance(self, member: Member, asked: messages.Join) -> Answer:
        """Come in; what it answers and tells is the state. Raises NotFound."""
        performance_id = await self._which(member.caller, asked.performance_id)
        presence = _presence(member)
        if presence.room is not None and presence.room.performance_id != performance_id:
            await self._go_out(member)
        room = self._room(member, performance_id)
        room.users += 1
        try:
            async with room.lock:
                row = await room.refresh()
                if self.members.get(member.sid) is not member:
                    raise NotJoined("the device has gone")
                is_new = member.sid not in room.members
                room.members[member.sid] = member
                presence.room = room
                if is_new:
                    room.users += 1
                    await self.enter(member, _name_of(room))
                now = self.runtime.line.clock.now()
                state = state_payload(row, now)
                await self.tell(member, "performance_state", state)
                await self.tell(member, "queue_updated", queue_payload(row))
        finally:
            await self._release(room)
        return state

    async def leave_performance(self, member: Member, asked: messages.Leave) -> Answer:
        """Go out; of none is no error."""
        room = _presence(member).room
        await self._go_out(member)
        return {"performance_id": room.performance_id if room else None}

    async def update_performance_control(self, member: Member, asked: messages.UpdateControl) -> Answer:
        return await self._command(member, asked.command())

    async def playback_play(self, member: Member, asked: messages.PlaybackPlay) -> Answer:
        return await self._command(member, asked.command())

    async def playback_pause(self, member: Member, asked: messages.PlaybackPause) -> Answer:
        return await self._command(member, asked.command())

    async def playback_seek(self, member: Member, asked: messages.PlaybackSeek) -> Answer:
        return await self._command(member, asked.command())

    async def update_player_state(self, member: Member, asked: messages.PlayerState) -> Answer:
        """A player's own word: nothing is read or written for it, unless it would change something."""
        self.need(member, Scope.JOBS_WRITE)
        room = _room_of(member)
        report = asked.report(is_alone=room.hear_player(member.sid))
        assert room.row is not None  # noqa: S101 - who is in a room has heard of it
        state = state_of(room.row)
        # The room may be a moment behind: who has heard of more than it knows speaks of what it does not see.
        is_behind = report.seen_version is not None and report.seen_version > state.version
        if not is_behind and apply(state, report, self.runtime.line.clock.now()) is state:
            return {"version": state.version}
        if not (report.ended or not report.is_playing) and not room.may_write():
            return {"version": state.version}
        row = await self.runtime.karaoke.performances.command(room.tenant, room.performance_id, report)
        return {"version": row.version}

    async def _command(self, member: Member, command: Command) -> Answer:
        """Change what all share. Everybody hears of it by the room, whoever has sent it too."""
        if not isinstance(member.caller, Guest):
            self.need(member, Scope.JOBS_WRITE)
        room = _room_of(member)
        row = await self.runtime.karaoke.performances.command(room.tenant, room.performance_id, command)
        return state_payload(row, self.runtime.line.clock.now())

    async def _which(self, caller: Caller, wanted: str | None) -> str:
        """Raises NotFound for what is not the caller's."""
        if isinstance(caller, Guest):
            if wanted not in (None, caller.performance_id):
                raise NotFound(f"there is no performance {wanted}")
            return caller.performance_id
        if wanted is not None:
            return wanted
        return (await self.runtime.karaoke.performances.get_default(caller)).id

    def _room(self, member: Member, performance_id: str) -> Room:
        """The room, or a new one: whether there is such a performance is found out by reading it."""
        tenant = member.caller.tenant
        name = self.room_of(member, performance_id)
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(
                self.runtime, tenant, performance_id, partial(self.tell_room, name)
            )
            room.start(self._close)
        return room

    async def _go_out(self, member: Member) -> None:
        presence = _presence(member)
        room, presence.room = presence.room, None
        if room is None or room.members.pop(member.sid, None) is None:
            return
        room.forget_player(member.sid)
        await self.leave(member, _name_of(room))
        await self._release(room)

    async def _release(self, room: Room) -> None:
        room.users -= 1
        if room.users == 0 and self._rooms.get(_name_of(room)) is room:
            del self._rooms[_name_of(room)]
            await room.stop()

    async def _close(self, room: Room) -> None:
        """The performance was deleted."""
        await self.tell_room(_name_of(room), "performance_deleted", {"performance_id": room.performance_id})
        for member in list(room.members.values()):
            await self._go_out(member)
        if not room.members and self._rooms.get(_name_of(room)) is room:
            del self._rooms[_name_of(room)]
            await room.stop()

    def _show_out(self, member: Member) -> None:
        """A guest's time is over."""
        self.hang_up(member.connection, Goodbye.UNAUTHENTICATED)


def _presence(member: Member) -> Presence:
    presence: Presence = member.state
    return presence


def _room_of(member: Member) -> Room:
    """Raises NotJoined."""
    room = _presence(member).room
    if room is None:
        raise NotJoined("join a performance first")
    return room


def _name_of(room: Room) -> str:
    return "\n".join((room.tenant, room.performance_id))
