"""`client.jobs`: ask, read, wait, list, cancel, retry, follow, run again, forget."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from app.client import calls
from app.client.aio import following
from app.client.aio.shown import WAIT_S, AsyncJob, bind, settle
from app.client.aio.transport import AsyncTransport
from app.client.models import Event, Page, Step, Steps, parse


class AsyncJobs:
    """Every call raises RepriseError."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(
        self,
        kind: str,
        input: Mapping[str, Any],  # noqa: A002 - the word of the API
        *,
        metadata: Mapping[str, Any] | None = None,
        provider: str | None = None,
        deadline_s: float | None = None,
        priority: int | None = None,
        callback_url: str | None = None,
        retention_s: float | None = None,
        idempotency_key: str | None = None,
        wait_s: float | None = None,
    ) -> AsyncJob:
        """Ask for a job; it as it stands once it is stored, or with `wait_s` (1-60) once it has ended within.

        `input` is what the kind takes. Without an `idempotency_key` one is made: whatever happens on the way,
        one call makes one job. Your own key makes one job over many calls. `callback_url` is told of the end
        by a signed POST; `retention_s` is how long after it the job is kept.
        """
        call = calls.create_job(
            kind,
            input,
            metadata=metadata,
            provider=provider,
            deadline_s=deadline_s,
            priority=priority,
            callback_url=callback_url,
            retention_s=retention_s,
            idempotency_key=idempotency_key,
            wait_s=wait_s,
        )
        return bind(self._transport, await self._transport.ask(call))

    async def get(self, job_id: str) -> AsyncJob:
        """A job as it stands. Raises NotFound."""
        return bind(self._transport, await self._transport.ask(calls.get_job(job_id)))

    async def wait(self, job_id: str, timeout_s: float = WAIT_S, *, check: bool = True) -> AsyncJob:
        """The job once it has ended: the service holds the answer back until then.

        Raises TimedOut after `timeout_s`, JobFailed and JobCanceled; without `check` those two are returned.
        """
        content = await following.wait_for(self._transport, job_id, timeout_s=timeout_s)
        return settle(bind(self._transport, content), timeout_s, check=check)

    async def page(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        q: str | None = None,
        parent_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[AsyncJob]:
        """One page of jobs, newest first. `q` is a search, such as `state:failed rain -prompt:snow`; a page
        with one may hold fewer than `limit`, even none, while there is a next. `parent_id` leads to the jobs
        that do that one's work, which are in no other list. Raises InvalidQuery.
        """
        call = calls.list_jobs(
            state=state,
            kind=kind,
            since=since,
            until=until,
            q=q,
            parent_id=parent_id,
            limit=limit,
            cursor=cursor,
        )
        return parse(Page[AsyncJob], await self._transport.ask(call), self._transport)

    async def list(
        self,
        *,
        state: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        q: str | None = None,
        parent_id: str | None = None,
        limit: int = 50,
    ) -> AsyncIterator[AsyncJob]:
        """Every job that fits, newest first; the pages, of `limit` each, are fetched as they are needed."""
        cursor = None
        while True:
            page = await self.page(
                state=state,
                kind=kind,
                since=since,
                until=until,
                q=q,
                parent_id=parent_id,
                limit=limit,
                cursor=cursor,
            )
            for job in page.items:
                yield job
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    async def cancel(self, job_id: str) -> AsyncJob:
        """End a job; canceling a canceled one changes nothing. Raises Conflict where it ended otherwise."""
        return bind(self._transport, await self._transport.ask(calls.cancel_job(job_id)))

    async def retry(self, job_id: str, *, idempotency_key: str | None = None) -> AsyncJob:
        """A new job that asks for the same; one call makes one. Raises Conflict unless that one failed or was
        canceled."""
        call = calls.retry_job(job_id, idempotency_key=idempotency_key)
        return bind(self._transport, await self._transport.ask(call))

    async def steps(self, job_id: str) -> Sequence[Step]:
        """The job's steps, and from which of them it can be run again."""
        return parse(Steps, await self._transport.ask(calls.list_steps(job_id))).items

    async def rerun(
        self,
        job_id: str,
        from_: Literal["dispatch", "finish"],
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the word of the API
    ) -> AsyncJob:
        """Another end of a job that has ended: a new job with `rerun_of`; `input` goes over that of the old.

        From `finish` the answer that the provider gave is finished anew, and nobody is paid. Raises Conflict,
        and Gone where that answer was deleted. Not repeated when its own answer is lost: look for a job with
        this `rerun_of` before you call it again.
        """
        call = calls.rerun_job(job_id, from_, input or {})
        return bind(self._transport, await self._transport.ask(call))

    async def expunge(self, job_id: str) -> AsyncJob:
        """Delete what a job asked, said and made, for good; its state and cost stay. Raises Conflict before
        its end."""
        return bind(self._transport, await self._transport.ask(calls.expunge_job(job_id)))

    def events(self, job_id: str, *, after_seq: int = 0) -> AsyncGenerator[Event, None]:
        """Every event after `after_seq` as it happens, until the last: each once, over cut connections."""
        return following.follow(self._transport, job_id, after_seq=after_seq)
