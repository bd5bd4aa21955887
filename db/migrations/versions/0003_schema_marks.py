"""Which older release still works with what a migration made."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
serves_code_of = "0002"


def upgrade() -> None:
    op.create_table(
        "schema_marks",
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.Column("serves_code_of", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_marks")),
    )


def downgrade() -> None:
    op.drop_table("schema_marks")
