"""Announcements: what callers are told, each try at it, the addresses, and the secrets that sign."""

import sqlalchemy as sa
from alembic import op

from db.tables import BODY_BYTES, LONG_TEXT, SECRET_TEXT, UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without these tables announces nothing, and its jobs take their announcements along."""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("callback_url", LONG_TEXT, nullable=True))
    _make_announcements()
    op.create_table(
        "announcement_attempts",
        sa.Column("announcement_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("error", LONG_TEXT, nullable=True),
        sa.Column("request_headers", sa.JSON(), nullable=False),
        sa.Column("response_headers", sa.JSON(), nullable=False),
        sa.Column("response_body", BODY_BYTES, nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["announcement_id"],
            ["announcements.id"],
            name=op.f("fk_announcement_attempts_announcement_id_announcements"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("announcement_id", "number", name=op.f("pk_announcement_attempts")),
    )
    op.create_table(
        "endpoints",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("url", LONG_TEXT, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("failing_since", UtcDateTime(), nullable=True),
        sa.Column("last_success_at", UtcDateTime(), nullable=True),
        sa.Column("last_failure_at", UtcDateTime(), nullable=True),
        sa.Column("last_error", LONG_TEXT, nullable=True),
        sa.Column("paused_until", UtcDateTime(), nullable=True),
        sa.Column("disabled_at", UtcDateTime(), nullable=True),
        sa.Column("disabled_reason", sa.String(length=16), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
    )
    op.create_index("ix_endpoints_list", "endpoints", ["tenant", "id"])
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("value", SECRET_TEXT, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "number", name=op.f("pk_webhook_secrets")),
    )


def _make_announcements() -> None:
    op.create_table(
        "announcements",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("endpoint_id", sa.String(length=64), nullable=False),
        sa.Column("receiver", sa.String(length=64), nullable=False),
        sa.Column("url", LONG_TEXT, nullable=False),
        sa.Column("type", sa.String(length=32), nullable=False),
        sa.Column("payload", LONG_TEXT, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("run_after", UtcDateTime(), nullable=False),
        sa.Column("lease", sa.String(length=64), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("settled_at", UtcDateTime(), nullable=True),
        sa.Column("error", LONG_TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_announcements_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_announcements")),
    )
    op.create_index("ix_announcements_due", "announcements", ["state", "receiver", "run_after"])
    op.create_index("ix_announcements_endpoint", "announcements", ["endpoint_id", "state"])
    op.create_index("ix_announcements_list", "announcements", ["tenant", "id"])
    op.create_index("ix_announcements_state", "announcements", ["tenant", "state", "id"])
    op.create_index("ix_announcements_job_id", "announcements", ["job_id"])


def downgrade() -> None:
    for table in ("webhook_secrets", "endpoints", "announcement_attempts", "announcements"):
        op.drop_table(table)
    op.drop_column("jobs", "callback_url")
