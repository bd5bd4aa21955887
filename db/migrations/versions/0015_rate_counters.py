"""Counters of rate limits, for the processes that count together."""

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
serves_code_of = "0006"


def upgrade() -> None:
    # Not logged: a hit costs no write to the log, and a crash of the server costs a minute of counting.
    is_postgres = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "rate_counters",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("window_no", sa.BigInteger(), nullable=False),
        sa.Column("current", sa.Integer(), nullable=False),
        sa.Column("previous", sa.Integer(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_counters")),
        prefixes=["UNLOGGED"] if is_postgres else [],
    )
    op.create_index(op.f("ix_rate_counters_expires_at"), "rate_counters", ["expires_at"])


def downgrade() -> None:
    op.drop_table("rate_counters")
