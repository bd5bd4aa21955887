"""tenants take turns; what a process had in hand can be found when it dies.

Both new columns that may not be empty have a default in the database: the release before this one goes on
inserting jobs while processes are replaced one by one.
"""

import sqlalchemy as sa
from alembic import op

from db.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
serves_code_of = "0002"


def upgrade() -> None:
    # SQLite takes no function as the default of a new column, and MySQL another one for each number of
    # digits. There, nobody inserts beside us.
    constant = op.get_bind().dialect.name != "postgresql"
    moment = sa.text("'2000-01-01 00:00:00.000000'") if constant else sa.func.now()
    op.add_column("jobs", sa.Column("tenant", sa.String(64), nullable=False, server_default="default"))
    op.add_column("jobs", sa.Column("turn_at", UtcDateTime(), nullable=False, server_default=moment))
    op.add_column("jobs", sa.Column("leased_by", sa.String(64), nullable=True))
    op.add_column("attempts", sa.Column("begun_by", sa.String(64), nullable=True))
    op.execute("UPDATE jobs SET turn_at = created_at WHERE state IN ('queued', 'running', 'finishing')")
    idle = sa.text("waiting_for IS NULL")
    columns = ["state", "tenant", "turn_at", "run_after"]
    op.create_index("ix_jobs_turn", "jobs", columns, sqlite_where=idle, postgresql_where=idle)
    waiting = sa.text("waiting_for IS NOT NULL")
    columns = ["waiting_for", "tenant", "turn_at"]
    op.create_index("ix_jobs_waiting", "jobs", columns, sqlite_where=waiting, postgresql_where=waiting)
    op.create_index("ix_jobs_started", "jobs", ["tenant", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_jobs_started", "jobs")
    op.drop_index("ix_jobs_waiting", "jobs")
    op.drop_index("ix_jobs_turn", "jobs")
    op.drop_column("attempts", "begun_by")
    for name in ("leased_by", "turn_at", "tenant"):
        op.drop_column("jobs", name)
