"""Circuits of providers, and what became of each attempt's trouble."""

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
serves_code_of = "0006"

_TIMES = ("start_by", "limit_at")
_WORDS = ("trouble", "action")


def upgrade() -> None:
    for name in _TIMES:
        op.add_column("attempts", sa.Column(name, UtcDateTime(), nullable=True))
    for name in _WORDS:
        op.add_column("attempts", sa.Column(name, sa.String(length=32), nullable=True))
    op.add_column("attempts", sa.Column("differently", sa.Boolean(), nullable=True))
    op.create_table(
        "circuits",
        sa.Column("provider", sa.String(length=32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("opened", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("open_until", UtcDateTime(), nullable=True),
        sa.Column("probe_until", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("provider", name=op.f("pk_circuits")),
    )


def downgrade() -> None:
    op.drop_table("circuits")
    op.drop_column("attempts", "differently")
    for name in (*_WORDS, *_TIMES):
        op.drop_column("attempts", name)
