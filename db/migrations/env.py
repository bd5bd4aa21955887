"""Alembic's way in. Always handed an open connection by `db.schema`; there is no offline mode."""

from typing import Any, Literal, cast

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script
from sqlalchemy import delete, inspect
from sqlmodel.sql.sqltypes import AutoString

from db.tables import SchemaMark, Table, UtcDateTime


def render_item(kind: str, item: Any, _autogen: AutogenContext) -> str | Literal[False]:
    """Types of ours and of SQLModel in words that a migration can hold on its own."""
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})"
    if kind == "type" and isinstance(item, UtcDateTime):
        return "UtcDateTime()"
    return False


def mark(ctx: MigrationContext, step: MigrationInfo, heads: Any, run_args: Any) -> None:
    """Keep, beside the revision, which older release still works with it: that one cannot read our files."""
    connection = ctx.connection
    if connection is None or not inspect(connection).has_table(SchemaMark.__tablename__):
        return
    for script in cast("tuple[Script, ...]", step.up_revisions):
        marks = SchemaMark.__table__  # type: ignore[attr-defined]
        connection.execute(delete(marks).where(marks.c.revision == script.revision))
        if step.is_upgrade:
            serves = getattr(script.module, "serves_code_of", script.revision)
            connection.execute(marks.insert(), {"revision": script.revision, "serves_code_of": serves})


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    # SQLite cannot alter most of a table: alembic copies it instead.
    render_as_batch=True,
    render_item=render_item,
    compare_type=True,
    on_version_apply=mark,
    include_object=context.config.attributes["include_object"],
)
with context.begin_transaction():
    context.run_migrations()
