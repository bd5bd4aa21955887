"""What `/metrics` shows: one registry a runtime, so that two runtimes in a process do not mix.

Labels are words of our own tables (kind, state, station, provider, outcome), never ids and never text
from outside: their number is bounded.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)


class Metrics:
    """The figures that stations report to."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.jobs_submitted = Counter(
            "reprise_jobs_submitted_total", "Jobs accepted", ["kind"], registry=self.registry
        )
        self.jobs_ended = Counter(
            "reprise_jobs_ended_total", "Jobs ended", ["kind", "state"], registry=self.registry
        )
        self.attempts_ended = Counter(
            "reprise_attempts_ended_total", "Attempts ended", ["provider", "status"], registry=self.registry
        )
        self.deliveries_received = Counter(
            "reprise_deliveries_received_total",
            "Deliveries stored, and duplicates of stored ones",
            ["source", "provider", "new"],
            registry=self.registry,
        )
        self.deliveries_refused = Counter(
            "reprise_deliveries_refused_total",
            "Callbacks refused before they were stored",
            ["provider", "reason"],
            registry=self.registry,
        )
        self.deliveries_settled = Counter(
            "reprise_deliveries_settled_total", "Deliveries settled", ["outcome"], registry=self.registry
        )
        self.step_seconds = Histogram(
            "reprise_step_seconds", "Time of one step", ["step"], buckets=_SECONDS, registry=self.registry
        )
        self.waiters = Gauge("reprise_waiters", "Subscriptions to hints", registry=self.registry)
        self.jobs = Gauge(
            "reprise_jobs", "Jobs by state, ended ones included", ["state"], registry=self.registry
        )
        self.deliveries_unsettled = Gauge(
            "reprise_deliveries_unsettled", "Deliveries not settled", registry=self.registry
        )
        self.pool_connections = Gauge(
            "reprise_db_pool_connections", "Database connections", ["figure"], registry=self.registry
        )

    def render(self) -> bytes:
        """The exposition text format."""
        return generate_latest(self.registry)
