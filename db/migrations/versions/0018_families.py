"""Families: jobs whose work is other jobs, and what was made before for the same question."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
serves_code_of = "0006"
"""A release without these columns plans no family: what is live of one waits for its deadline there."""

_CHILDREN = "uq_jobs_parent_id_step"
_DUE = "ix_jobs_plan_at"
_MADE = "ix_jobs_tenant_recipe"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parent_id", sa.String(length=64), nullable=True))
    op.add_column("jobs", sa.Column("step", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("plan_at", UtcDateTime(), nullable=True))
    op.add_column("jobs", sa.Column("recipe", sa.String(length=32), nullable=True))
    op.add_column("jobs", sa.Column("measured", sa.JSON(), nullable=True))
    op.create_index(_CHILDREN, "jobs", ["parent_id", "step"], unique=True, **_where("parent_id IS NOT NULL"))
    op.create_index(_DUE, "jobs", ["plan_at"], **_where("plan_at IS NOT NULL"))
    op.create_index(_MADE, "jobs", ["tenant", "recipe"], **_where("recipe IS NOT NULL"))


def downgrade() -> None:
    for name in (_MADE, _DUE, _CHILDREN):
        op.drop_index(name, "jobs")
    for name in ("measured", "recipe", "plan_at", "step", "parent_id"):
        op.drop_column("jobs", name)


def _where(condition: str) -> dict[str, Any]:
    """For an index over these rows alone, where the database has such."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
