"""Karaoke: lyrics with their versions, and performances."""

import sqlalchemy as sa
from alembic import op

from db.tables import REAL, UtcDateTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without these tables serves no karaoke, and leaves them alone."""


def upgrade() -> None:
    op.create_table(
        "lyrics",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("language", sa.String(length=64), nullable=True),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lyrics")),
    )
    op.create_index("ix_lyrics_listed", "lyrics", ["tenant", "id"])
    op.create_table(
        "lyrics_versions",
        sa.Column("lyrics_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("lines", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("made_by", sa.String(length=64), nullable=False),
        sa.Column("made_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lyrics_id"],
            ["lyrics.id"],
            name=op.f("fk_lyrics_versions_lyrics_id_lyrics"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("lyrics_id", "number", name=op.f("pk_lyrics_versions")),
    )
    _make_performances()


def _make_performances() -> None:
    op.create_table(
        "performances",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("default_of", sa.String(length=64), nullable=True),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("song", sa.JSON(), nullable=False),
        sa.Column("vocal_volume", REAL, nullable=False),
        sa.Column("instrumental_volume", REAL, nullable=False),
        sa.Column("lyrics_size", sa.String(length=16), nullable=False),
        sa.Column("lyrics_offset", sa.Integer(), nullable=False),
        sa.Column("is_playing", sa.Boolean(), nullable=False),
        sa.Column("position_s", REAL, nullable=False),
        sa.Column("position_at", UtcDateTime(), nullable=False),
        sa.Column("duration_s", REAL, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("moved_version", sa.Integer(), nullable=False),
        sa.Column("queue", sa.JSON(), nullable=False),
        sa.Column("queue_version", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("updated_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_performances")),
        sa.UniqueConstraint("default_of", name=op.f("uq_performances_default_of")),
    )
    op.create_index("ix_performances_listed", "performances", ["tenant", "id"])


def downgrade() -> None:
    op.drop_table("performances")
    op.drop_table("lyrics_versions")
    op.drop_table("lyrics")
