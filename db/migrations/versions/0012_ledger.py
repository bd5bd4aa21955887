"""The ledger: who told the end of an attempt, conflicting messages, refusals, recoveries as jobs."""

import sqlalchemy as sa
from alembic import op

from db.tables import REAL, UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""What an older release does not write stays empty; it neither begins nor works on a recovery."""


def upgrade() -> None:
    op.add_column("attempts", sa.Column("told_by", sa.String(length=16), nullable=True))
    op.add_column("attempts", sa.Column("completed_at", UtcDateTime(), nullable=True))
    op.create_index("ix_attempts_told_by", "attempts", ["told_by", "id"])
    op.add_column("deliveries", sa.Column("told", sa.String(length=32), nullable=True))
    op.add_column("deliveries", sa.Column("conflicts", sa.Integer(), nullable=False, server_default="0"))
    _create_recoveries()
    op.create_table(
        "refusals",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("attempt_id", sa.String(length=64), nullable=True),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("failed", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.String(length=300), nullable=False),
        sa.Column("skew_s", REAL, nullable=True),
        sa.Column("secret", sa.Integer(), nullable=True),
        sa.Column("left_out", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
    )
    op.create_index("ix_refusals_tenant", "refusals", ["tenant", "id"])


def _create_recoveries() -> None:
    op.create_table(
        "recoveries",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("task", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since", UtcDateTime(), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
        sa.Column("wanted", sa.JSON(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("finished_at", UtcDateTime(), nullable=True),
        sa.Column("lease", sa.String(length=64), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("leased_by", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recoveries")),
    )
    op.create_index("ix_recoveries_state", "recoveries", ["state", "id"])
    op.create_index("ix_recoveries_tenant", "recoveries", ["tenant", "id"])
    op.create_table(
        "recovery_items",
        sa.Column("recovery_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("row_id", sa.String(length=64), nullable=False),
        sa.Column("attempt_id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("begun_at", UtcDateTime(), nullable=True),
        sa.Column("ended_at", UtcDateTime(), nullable=True),
        sa.Column("effect", sa.String(length=16), nullable=True),
        sa.Column("finding", sa.String(length=16), nullable=True),
        sa.Column("detail", sa.String(length=300), nullable=True),
        sa.Column("delivery_id", sa.String(length=64), nullable=True),
        sa.Column("rerun_micros", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("recovery_id", "number", name=op.f("pk_recovery_items")),
    )


def downgrade() -> None:
    op.drop_table("refusals")
    op.drop_table("recovery_items")
    op.drop_table("recoveries")
    op.drop_column("deliveries", "conflicts")
    op.drop_column("deliveries", "told")
    op.drop_index("ix_attempts_told_by", table_name="attempts")
    op.drop_column("attempts", "completed_at")
    op.drop_column("attempts", "told_by")
