"""Alembic's way in. Always handed an open connection by `db.schema`; there is no offline mode."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlmodel.sql.sqltypes import AutoString

from db.tables import Table, UtcDateTime


def render_item(kind: str, item: Any, _autogen: AutogenContext) -> str | Literal[False]:
    """Types of ours and of SQLModel in words that a migration can hold on its own."""
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})"
    if kind == "type" and isinstance(item, UtcDateTime):
        return "UtcDateTime()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite cannot alter most of a table: alembic copies it instead.
    render_as_batch=True,
    render_item=render_item,
    compare_type=True,
    include_object=context.config.attributes["include_object"],
)
with context.begin_transaction():
    context.run_migrations()
