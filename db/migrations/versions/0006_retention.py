"""Retention: when a job may be deleted, which objects are being deleted, and who looks for them when."""

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("expires_at", UtcDateTime(), nullable=True))
    op.create_index("ix_jobs_expiry", "jobs", ["expires_at", "finished_at"])
    op.create_table(
        "tombstones",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("mark", sa.String(length=16), nullable=False),
        sa.Column("keys", sa.JSON(), nullable=False),
        sa.Column("asset_id", sa.String(length=64), nullable=True),
        sa.Column("laid_at", UtcDateTime(), nullable=False),
        sa.Column("removed_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_tombstones")),
    )
    op.create_index(op.f("ix_tombstones_asset_id"), "tombstones", ["asset_id"])
    op.create_index(op.f("ix_tombstones_removed_at"), "tombstones", ["removed_at"])
    op.create_table(
        "chores",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("due_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )


def downgrade() -> None:
    op.drop_table("chores")
    op.drop_table("tombstones")
    op.drop_index("ix_jobs_expiry", table_name="jobs")
    op.drop_column("jobs", "expires_at")
