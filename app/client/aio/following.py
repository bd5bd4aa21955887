"""Waiting for a job's end and following events: woken by the service, never by a timer.

Promises: every event once and in order, over any number of cut connections; a wait ends when the job does,
when its time is over, or when the service stays away for longer than the client's patience.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

from app.client import calls
from app.client.aio.transport import AsyncTransport
from app.client.aio.waits import sleep
from app.client.call import Call
from app.client.errors import RateLimited, RepriseError, Unavailable
from app.client.models import Event, Events, Fact, FeedEvent, FeedReset, JobFacts, parse
from app.client.patience import Patience
from app.client.streams import EventReader, Message

HASTE_S = 1.0
"""A wait that is answered sooner than this, without an end, is a service that stops."""


async def wait_for(transport: AsyncTransport, job_id: str, *, timeout_s: float) -> bytes:
    """The job's last answer: it has ended, or the time is over. Raises RepriseError."""
    patience = transport.long_patience()
    until_s = time.monotonic() + timeout_s
    while True:
        asked_s = time.monotonic()
        left_s = max(0.0, until_s - asked_s)
        try:
            content = await transport.ask_once(calls.get_job(job_id, wait_s=left_s))
            if parse(JobFacts, content).is_ended or time.monotonic() >= until_s:
                return content
            if time.monotonic() - asked_s >= HASTE_S:
                patience.refresh()
                continue
            failure: RepriseError = Unavailable("the service ends waits before their time")
        except (Unavailable, RateLimited) as exc:
            failure = exc
        wait_s = patience.wait_s(failure)
        if wait_s is None:
            raise failure
        await sleep(min(wait_s, max(0.0, until_s - time.monotonic())))


async def follow(transport: AsyncTransport, job_id: str, *, after_seq: int) -> AsyncGenerator[Event, None]:
    """Every event after `after_seq` until the job's last. Raises RepriseError."""
    patience = transport.long_patience()
    while True:
        try:
            async with aclosing(_stream(transport, job_id, after_seq, patience)) as events:
                async for event in events:
                    after_seq = event.seq
                    patience.refresh()
                    yield event
                    if event.is_last:
                        return
            if await _has_no_more(transport, job_id, after_seq):
                return
            failure: RepriseError = Unavailable("the stream of events ended before the job")
        except (Unavailable, RateLimited) as exc:
            failure = exc
        await _pause(patience, failure)


async def _stream(
    transport: AsyncTransport, job_id: str, after_seq: int, patience: Patience
) -> AsyncGenerator[Event, None]:
    """One connection's events, each the next in its turn; it ends at the first that is not."""
    call = calls.follow_events(job_id, after_seq=after_seq)
    async with aclosing(_messages(transport, call, patience)) as messages:
        async for message in messages:
            event = parse(Event, message.data)
            if event.seq > after_seq + 1:
                return
            if event.seq == after_seq + 1:
                after_seq = event.seq
                yield event


async def follow_feed(
    transport: AsyncTransport, after: int | None, *, since: datetime | None, **wanted: str | None
) -> AsyncGenerator[FeedEvent | FeedReset, None]:
    """Every event of the feed after a position, without an end. Raises RepriseError."""
    patience = transport.long_patience()
    position = after
    while True:
        # Once there is a position it says where to go on: `since` is where to begin.
        call = calls.follow_feed(position=position, since=since if position is None else None, **wanted)
        try:
            async with aclosing(_messages(transport, call, patience)) as messages:
                async for message in messages:
                    if message.name == "closed":
                        break
                    position = parse(_At, message.data).position
                    if message.name in ("opened", "position"):
                        continue
                    patience.refresh()
                    if message.name == "reset":
                        yield parse(FeedReset, message.data)
                    else:
                        yield parse(FeedEvent, message.data)
            failure: RepriseError = Unavailable("the stream of events was closed")
        except (Unavailable, RateLimited) as exc:
            failure = exc
        await _pause(patience, failure)


class _At(Fact):
    """Where a message of the feed stands."""

    position: int


async def _messages(
    transport: AsyncTransport, call: Call, patience: Patience
) -> AsyncGenerator[Message, None]:
    """One connection's messages. A ping that comes counts the retries anew, as a quiet stream has nothing
    else; what comes at once does not, or a service that ends streams would be asked without end."""
    reader, asked_s = EventReader(), time.monotonic()
    async with transport.open(call) as response:
        async for chunk in response.aiter_bytes():
            if time.monotonic() - asked_s >= HASTE_S:
                patience.refresh()
            for message in reader.feed(chunk):
                yield message


async def _has_no_more(transport: AsyncTransport, job_id: str, after_seq: int) -> bool:
    """Whether the job has ended and every event of it was seen: whoever begins after the last sees none."""
    job = parse(JobFacts, await transport.ask_once(calls.get_job(job_id)))
    if not job.is_ended:
        return False
    rest = await transport.ask_once(calls.list_events(job_id, after_seq=after_seq))
    return not parse(Events, rest).items


async def _pause(patience: Patience, failure: RepriseError) -> None:
    wait_s = patience.wait_s(failure)
    if wait_s is None:
        raise failure
    await sleep(wait_s)
