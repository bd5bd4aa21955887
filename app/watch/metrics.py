"""What `/metrics` shows: one registry a runtime, so that two runtimes in a process do not mix.

Labels are words of our own tables (kind, state, station, provider, outcome), never ids and never text
from outside: their number is bounded. Counters and histograms are this process's own; the gauges of queues
are the database's, the same from whichever process.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from app import __version__
from app.errors import AppError, TransientError

_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STEP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)
_JOB_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600, 1800, 3600, 14_400)


class Metrics:
    """The figures that stations report to."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # Resident memory, CPU time, open files and their limit, start time.
        ProcessCollector(registry=self.registry)
        self.build = self._gauge("reprise_build_info", "1, with the version", "version", "python")
        self.build.labels(__version__, platform.python_version()).set(1)
        self._count_the_line()
        self._time_the_line()
        self._show_the_ground()
        self._count_the_sockets()

    @contextmanager
    def outside_call(self, dependency: str, call: str) -> Iterator[None]:
        """Time one call of ours to the outside. An answer that says no is an answer: `refused`."""
        began = time.perf_counter()
        outcome = "canceled"
        try:
            yield
            outcome = "ok"
        except (TransientError, TimeoutError, OSError):
            outcome = "unavailable"
            raise
        except AppError:
            outcome = "refused"
            raise
        except Exception:
            outcome = "error"
            raise
        finally:
            took_s = time.perf_counter() - began
            self.outside_seconds.labels(dependency, call, outcome).observe(took_s)

    def render(self) -> bytes:
        """The exposition text format."""
        return generate_latest(self.registry)

    def _count_the_line(self) -> None:
        self.jobs_submitted = self._counter("reprise_jobs_submitted_total", "Jobs accepted", "kind")
        self.jobs_ended = self._counter("reprise_jobs_ended_total", "Jobs ended", "kind", "state")
        self.attempts_ended = self._counter(
            "reprise_attempts_ended_total", "Attempts ended", "provider", "status"
        )
        self.deliveries_received = self._counter(
            "reprise_deliveries_received_total",
            "Deliveries stored, and duplicates of stored ones",
            "source",
            "provider",
            "new",
        )
        self.deliveries_refused = self._counter(
            "reprise_deliveries_refused_total",
            "Callbacks refused before they were stored",
            "provider",
            "reason",
        )
        self.refusals_left_out = self._counter(
            "reprise_refusals_left_out_total", "Refusals that were too many to be written into the ledger"
        )
        self.deliveries_conflicting = self._counter(
            "reprise_deliveries_conflicting_total",
            "Messages under a known id with another body: the first one counts",
            "source",
            "provider",
        )
        self.deliveries_settled = self._counter(
            "reprise_deliveries_settled_total", "Deliveries settled", "outcome"
        )

        self.announcements_tried = self._counter(
            "reprise_announcements_tried_total", "Tries at announcements", "outcome"
        )
        self.announcements_ended = self._counter(
            "reprise_announcements_ended_total", "Announcements that came to an end", "state"
        )
        self.endpoints_disabled = self._counter(
            "reprise_endpoints_disabled_total", "Endpoints that were given up", "reason"
        )
        self.spend = self._counter(
            "reprise_spend_usd_total",
            "US dollars booked for attempts; an estimate that was too high is not taken back here",
            "provider",
            "kind",
        )

    def _time_the_line(self) -> None:
        self.step_seconds = self._histogram(
            "reprise_step_seconds",
            "Time of one step of a station, or of a part of finishing",
            _STEP_S,
            "step",
        )
        self.outside_seconds = self._histogram(
            "reprise_outside_seconds",
            "Time of one call to a provider",
            _STEP_S,
            "dependency",
            "call",
            "outcome",
        )
        self.ack_seconds = self._histogram(
            "reprise_ack_seconds",
            "Time from a callback's head to its 2xx, so with its body and its commit",
            _FAST_S,
            "provider",
        )
        self.job_seconds = self._histogram(
            "reprise_job_seconds", "Time from submitting a job to its end", _JOB_S, "kind", "state"
        )
        self.wake_seconds = self._histogram(
            "reprise_wake_seconds", "Time from a job's end to a waiter that has read it", _FAST_S
        )

    def _show_the_ground(self) -> None:
        self.waiters = self._gauge("reprise_waiters", "Subscriptions to hints")
        self.queue_depth = self._gauge(
            "reprise_queue_depth", "Rows that a station has yet to work on, due or not", "station", "kind"
        )
        self.queue_due = self._gauge(
            "reprise_queue_due", "Rows that a station could work on now", "station", "kind"
        )
        self.queue_oldest_due = self._gauge(
            "reprise_queue_oldest_due_seconds", "How long the first of them has been due", "station", "kind"
        )
        self.queue_oldest = self._gauge(
            "reprise_queue_oldest_seconds", "Age of the oldest row at the station", "station", "kind"
        )
        self.jobs = self._gauge("reprise_jobs", "Jobs that have not ended, by state", "state")
        self.output_expiry = self._gauge(
            "reprise_output_expiry_soonest_seconds",
            "Time until the provider may delete the first output not stored here; below 0: it may have",
            "provider",
        )
        self.outputs_at_risk = self._gauge(
            "reprise_outputs_at_risk",
            "Outputs not stored here whose time at the provider is more than half over",
            "provider",
        )
        self.pool_connections = self._gauge(
            "reprise_db_pool_connections",
            "Database connections of this process, and what befell them",
            "figure",
        )
        self.dependency_up = self._gauge(
            "reprise_dependency_up", "Whether it answered when it was last asked", "dependency"
        )
        self.dependency_age = self._gauge(
            "reprise_dependency_last_success_seconds", "Time since it last answered well", "dependency"
        )
        self.circuit = self._gauge(
            "reprise_circuit_open", "0 closed, 1 open, 0.5 while one job tries the provider again", "provider"
        )
        self.disk_free = self._gauge("reprise_disk_free_bytes", "Room left on its disk", "place")
        self.clock_skew = self._gauge(
            "reprise_clock_skew_seconds", "How far this machine's clock is ahead", "against"
        )
        self.loop_lag = self._histogram(
            "reprise_event_loop_lag_seconds", "How late the event loop was for a call", _FAST_S
        )
        self.loop_lag_worst = self._gauge(
            "reprise_event_loop_lag_worst_seconds", "The worst of the last minute"
        )
        self.loop_blocked = self._counter(
            "reprise_event_loop_blocked_total", "Times the event loop did not answer for a second"
        )

    def _count_the_sockets(self) -> None:
        self.sockets = self._gauge("reprise_sockets", "Socket.IO connections that are open")
        self.socket_events = self._counter(
            "reprise_socket_events_total", "Events told to clients of Socket.IO"
        )
        self.socket_coalesced = self._counter(
            "reprise_socket_coalesced_total", "Progress left out for newer progress: the client was behind"
        )
        self.sockets_closed = self._counter(
            "reprise_sockets_closed_total",
            "Socket.IO connections that ended, by who ended them and why",
            "reason",
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)
