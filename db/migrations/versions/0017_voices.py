"""Voices: what was measured of a recording, and what two voices are compared by."""

import sqlalchemy as sa
from alembic import op

from db.tables import BODY_BYTES, REAL, UtcDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without this table sees their recordings as uploads that never expire, and keeps them."""


def upgrade() -> None:
    op.create_table(
        "voices",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("asset_id", sa.String(length=64), nullable=False),
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("duration_s", REAL, nullable=False),
        sa.Column("snr_db", REAL, nullable=True),
        sa.Column("silence_share", REAL, nullable=True),
        sa.Column("clipped_share", REAL, nullable=True),
        sa.Column("consistency", REAL, nullable=True),
        sa.Column("lowest_hz", REAL, nullable=True),
        sa.Column("median_hz", REAL, nullable=True),
        sa.Column("highest_hz", REAL, nullable=True),
        sa.Column("embedding_model", sa.String(length=64), nullable=False),
        sa.Column("embedding", BODY_BYTES, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_voices")),
    )
    op.create_index("ix_voices_tenant", "voices", ["tenant", "id"])


def downgrade() -> None:
    # What they held goes like any upload: the release before this one has no other reason to keep it.
    op.execute("UPDATE uploads SET expires_at = created_at WHERE id IN (SELECT upload_id FROM voices)")
    op.drop_table("voices")
