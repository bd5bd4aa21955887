"""The work engine's tables, on PostgreSQL: PgQueuer's own, beside ours. Elsewhere it works in memory."""

from alembic import op
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _execute_script(QueryBuilderEnvironment().build_install_query())


def downgrade() -> None:
    _execute_script(QueryBuilderEnvironment().build_uninstall_query())


def _execute_script(script: str) -> None:
    connection = op.get_bind()
    adapted = connection.connection.dbapi_connection
    if connection.dialect.name == "postgresql" and adapted is not None:
        # Several statements in one text, which the driver's prepared statements do not take.
        adapted.run_async(lambda driver: driver.execute(script))
