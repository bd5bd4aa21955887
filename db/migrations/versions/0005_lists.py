"""Indexes for lists by time of making, narrowed by state, kind or both."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
serves_code_of = "0002"

MADE = {
    "ix_jobs_created_at": ["created_at"],
    "ix_jobs_state_created_at": ["state", "created_at"],
    "ix_jobs_kind_created_at": ["kind", "created_at"],
    "ix_jobs_kind_state_created_at": ["kind", "state", "created_at"],
}


def upgrade() -> None:
    for name, columns in MADE.items():
        op.create_index(name, "jobs", columns)
    op.drop_index("ix_jobs_kind_id", "jobs")


def downgrade() -> None:
    op.create_index("ix_jobs_kind_id", "jobs", ["kind", "id"])
    for name in MADE:
        op.drop_index(name, "jobs")
