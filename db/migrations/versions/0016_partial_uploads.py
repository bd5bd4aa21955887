"""Resumable uploads: how far each is, and the pieces that have come."""

import sqlalchemy as sa
from alembic import op

from db.tables import LONG_TEXT, UtcDateTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without these tables never fills them, and leaves the objects that they name alone."""


def upgrade() -> None:
    op.create_table(
        "partial_uploads",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("pieces", sa.Integer(), nullable=False),
        sa.Column("about", LONG_TEXT, nullable=False),
        sa.Column("lease", sa.String(length=64), nullable=True),
        sa.Column("lease_until", UtcDateTime(), nullable=True),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partial_uploads")),
    )
    op.create_index(op.f("ix_partial_uploads_tenant"), "partial_uploads", ["tenant"])
    op.create_index(op.f("ix_partial_uploads_expires_at"), "partial_uploads", ["expires_at"])
    op.create_table(
        "upload_pieces",
        sa.Column("upload_id", sa.String(length=64), nullable=False),
        sa.Column("start_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("storage_key", sa.String(length=160), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"],
            ["partial_uploads.id"],
            name=op.f("fk_upload_pieces_upload_id_partial_uploads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("upload_id", "start_bytes", name=op.f("pk_upload_pieces")),
    )


def downgrade() -> None:
    op.drop_table("upload_pieces")
    op.drop_table("partial_uploads")
