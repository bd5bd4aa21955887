"""Finding jobs: their words, lists by tenant, acts on many, another end from a step, retention of one job.

The words of the jobs that are there already are written by the housekeeper, in bounded batches (`said` is
null until then): a migration that did it would hold the table for as long as they are many.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.tables import EXACT_TEXT, EXACT_WORD, LONG_TEXT, REAL, UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without these columns makes jobs whose words are written later, like those of old jobs; words of
jobs that it deletes stay behind and are found by nobody."""

_LISTED = {
    "ix_jobs_listed": ["tenant", "created_at", "id"],
    "ix_jobs_listed_state": ["tenant", "state", "created_at", "id"],
    "ix_jobs_listed_kind": ["tenant", "kind", "created_at", "id"],
    "ix_jobs_listed_kind_state": ["tenant", "kind", "state", "created_at", "id"],
}
_BEFORE = {
    "ix_jobs_created_at": ["created_at"],
    "ix_jobs_state_created_at": ["state", "created_at"],
    "ix_jobs_kind_created_at": ["kind", "created_at"],
}
_COLUMNS: dict[str, Any] = {
    "said": EXACT_TEXT,
    "retention_s": REAL,
    "rerun_of": sa.String(length=64),
    "result_of": sa.String(length=64),
    "expunged_at": UtcDateTime(),
}


def upgrade() -> None:
    for name, kind in _COLUMNS.items():
        op.add_column("jobs", sa.Column(name, kind, nullable=True))
    for name, columns in _LISTED.items():
        op.create_index(name, "jobs", columns)
    for name in _BEFORE:
        op.drop_index(name, "jobs")
    unsaid = sa.text("said IS NULL")
    op.create_index("ix_jobs_unsaid", "jobs", ["id"], sqlite_where=unsaid, postgresql_where=unsaid)
    op.create_table(
        "job_words",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("word", EXACT_WORD, nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "word", "created_at", "job_id", name=op.f("pk_job_words")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "bulk_acts",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("query", LONG_TEXT, nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
        sa.Column("skipped", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("abort_at", UtcDateTime(), nullable=True),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("lease", sa.String(length=64), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bulk_acts")),
    )
    op.create_index("ix_bulk_acts_due", "bulk_acts", ["finished_at", "lease_until"])
    op.create_index("ix_bulk_acts_listed", "bulk_acts", ["tenant", "created_at", "id"])
    op.create_table(
        "bulk_items",
        sa.Column("act_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("detail", sa.String(length=200), nullable=True),
        sa.ForeignKeyConstraint(
            ["act_id"], ["bulk_acts.id"], name=op.f("fk_bulk_items_act_id_bulk_acts"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("act_id", "number", name=op.f("pk_bulk_items")),
    )


def downgrade() -> None:
    op.drop_table("bulk_items")
    op.drop_table("bulk_acts")
    op.drop_table("job_words")
    op.drop_index("ix_jobs_unsaid", "jobs")
    for name, columns in _BEFORE.items():
        op.create_index(name, "jobs", columns)
    for name in _LISTED:
        op.drop_index(name, "jobs")
    for name in reversed(_COLUMNS):
        op.drop_column("jobs", name)
