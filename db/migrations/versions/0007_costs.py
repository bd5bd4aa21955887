"""Costs: what an attempt took and cost, what a live job holds of its budget, the books of deleted jobs."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
serves_code_of = "0006"

BILL: dict[str, Any] = {
    "billed_at": UtcDateTime(),
    "tenant": sa.String(64),
    "run_ms": sa.BigInteger(),
    "characters": sa.BigInteger(),
    "output_ms": sa.BigInteger(),
    "price": sa.String(128),
    "cost_micros": sa.BigInteger(),
    "cost_basis": sa.String(16),
}
SUMS = ("attempts", "jobs", "unpriced", "estimated", "run_ms", "characters", "output_ms", "cost_micros")


def upgrade() -> None:
    for name, kind in BILL.items():
        op.add_column("attempts", sa.Column(name, kind, nullable=True))
    op.create_index("ix_attempts_billed", "attempts", ["billed_at", "tenant", "provider", "cost_micros"])
    op.add_column("jobs", sa.Column("reserved_micros", sa.BigInteger(), nullable=True))
    op.create_table(
        "past_costs",
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", "tenant", "provider", "kind", "model", name=op.f("pk_past_costs")),
    )


def downgrade() -> None:
    op.drop_table("past_costs")
    op.drop_column("jobs", "reserved_micros")
    op.drop_index("ix_attempts_billed", table_name="attempts")
    for name in reversed(BILL):
        op.drop_column("attempts", name)
