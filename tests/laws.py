"""Laws that rows keep at any moment, whatever happened before.

Each check returns the ways in which its law is broken, in words; an empty list is the law kept. They ask the
service nothing. I2: one effect of one piece of news. I3: an end never changes and is told once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from db.states import AttemptStatus, JobState

Row = Mapping[str, Any]

TERMINAL_EVENTS = {"job.succeeded", "job.failed", "job.canceled"}


@dataclass(frozen=True, slots=True)
class Rows:
    """Every row of the line."""

    jobs: Sequence[Row]
    attempts: Sequence[Row]
    deliveries: Sequence[Row]
    events: Sequence[Row]
    outputs: Sequence[Row]
    assets: Sequence[Row]


def events_told_once(rows: Rows) -> list[str]:
    """I3: `seq` without gaps, one terminal event, the last of all, and it says what the job's state says."""
    by_job: dict[str, list[Row]] = {job["id"]: [] for job in rows.jobs}
    for event in rows.events:
        by_job[event["job_id"]].append(event)
    states = {job["id"]: job["state"] for job in rows.jobs}
    broken = []
    for job_id, events in by_job.items():
        events.sort(key=lambda event: event["seq"])
        types = [event["type"] for event in events]
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            broken.append(f"{job_id}: a gap in its events")
        ends = [name for name in types if name in TERMINAL_EVENTS]
        ended = JobState(states[job_id]).is_terminal
        if not ended and ends:
            broken.append(f"{job_id} is {states[job_id]} and {ends[0]} was told")
        if ended and (len(ends) != 1 or types[-1] != ends[0] or ends != [f"job.{states[job_id]}"]):
            broken.append(f"{job_id} is {states[job_id]} and its events end with {types[-3:]}")
    return broken


def only_results(rows: Rows) -> list[str]:
    """I2: only jobs that succeeded have outputs."""
    succeeded = {job["id"] for job in rows.jobs if job["state"] == JobState.SUCCEEDED}
    having = {output["job_id"] for output in rows.outputs}
    return [f"{each} did not succeed and has an output" for each in sorted(having - succeeded)]


def costs_booked(rows: Rows) -> list[str]:
    """Every attempt that has ended has its bill, and none that is alive: they are one commit."""
    broken = []
    for each in rows.attempts:
        has_ended = AttemptStatus(each["status"]).is_terminal
        if has_ended != (each["billed_at"] is not None):
            broken.append(f"{each['id']} is {each['status']} and {'not ' if has_ended else ''}booked")
    return broken
