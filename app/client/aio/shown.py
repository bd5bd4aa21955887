"""Jobs and files as callers hold them: what the service told, and what can be done with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from app.client import calls
from app.client.aio import files, following
from app.client.aio.transport import AsyncTransport
from app.client.call import Call
from app.client.errors import InvalidInput, JobCanceled, JobFailed, TimedOut
from app.client.models import Event, JobFacts, OutputFacts, parse

WAIT_S = 600.0
"""How long a wait lasts where nothing else is said."""


class AsyncOutput(OutputFacts):
    """A stored file of a job."""

    _transport: AsyncTransport = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._transport = context

    async def save(self, path: str | Path) -> Path:
        """Fetch it into a file; folders are made. It is there whole and proven by size and SHA-256, or what
        was there before is. A download that is cut goes on where it was. Raises RepriseError, OSError."""
        return await files.save(self._transport, self, path)

    async def read(self) -> bytes:
        """Its bytes, proven."""
        return await files.read(self._transport, self)


class AsyncJob(JobFacts):
    """A job as it was when it was asked about; `refresh` asks again."""

    outputs: Mapping[str, AsyncOutput]
    _transport: AsyncTransport = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self._transport = context

    async def refresh(self) -> AsyncJob:
        """The job as it stands now."""
        return await _get(self._transport, calls.get_job(self.id))

    async def wait(self, timeout_s: float = WAIT_S, *, check: bool = True) -> AsyncJob:
        """The job once it has ended; see `jobs.wait`."""
        job = self
        if not self.is_ended:
            content = await following.wait_for(self._transport, self.id, timeout_s=timeout_s)
            job = bind(self._transport, content)
        return settle(job, timeout_s, check=check)

    def events(self, *, after_seq: int = 0) -> AsyncGenerator[Event, None]:
        """Its events from the first on, until the last; see `jobs.events`."""
        return following.follow(self._transport, self.id, after_seq=after_seq)

    async def cancel(self) -> AsyncJob:
        """End it. Raises Conflict where it has ended."""
        return await _get(self._transport, calls.cancel_job(self.id))

    async def retry(self) -> AsyncJob:
        """A new job that asks for the same. Raises Conflict unless this one failed or was canceled."""
        return await _get(self._transport, calls.retry_job(self.id))

    async def save(self, path: str | Path) -> Path:
        """Save the one output there is. Raises InvalidInput where there are several, or none yet."""
        if len(self.outputs) != 1:
            there = ", ".join(self.outputs) or "none: it has not succeeded"
            raise InvalidInput(f"{self.kind} {self.id}: name the output to save; there are {there}")
        (output,) = self.outputs.values()
        return await output.save(path)


def settle(job: AsyncJob, timeout_s: float, *, check: bool) -> AsyncJob:
    """The job, if it is what was waited for. Raises TimedOut; with `check` JobFailed, JobCanceled."""
    if not job.is_ended:
        raise TimedOut(job, timeout_s)
    if check and job.state == "failed":
        raise JobFailed(job)
    if check and job.state == "canceled":
        raise JobCanceled(job)
    return job


def bind(transport: AsyncTransport, content: bytes) -> AsyncJob:
    """An answer as a job that things can be done with."""
    return parse(AsyncJob, content, transport)


async def _get(transport: AsyncTransport, call: Call) -> AsyncJob:
    return bind(transport, await transport.ask(call))
