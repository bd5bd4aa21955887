"""The schema's history: up, down, where a database stands, and whether the tables and the history agree.

The migrations travel with the package, so that an installed service can migrate itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable

from db.session import Database, DatabaseUnavailable
from db.tables import Table

MIGRATIONS = Path(__file__).parent / "migrations"


@compiles(CreateTable, "mysql", "mariadb")
def _create_table(element: CreateTable, compiler: Any, **options: Any) -> str:
    """Every table there holds any character, compares bytes and has transactions, whatever the default."""
    made: str = compiler.visit_create_table(element, **options)
    return f"{made.rstrip()} ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


async def upgrade(database: Database, revision: str = "head") -> None:
    """Bring the database to a revision. Raises DatabaseUnavailable."""
    await _on_connection(database, lambda connection: command.upgrade(_config(connection), revision))


async def downgrade(database: Database, revision: str) -> None:
    """Take the database back to a revision, or to `base`. Raises DatabaseUnavailable."""
    await _on_connection(database, lambda connection: command.downgrade(_config(connection), revision))


async def current_revision(database: Database) -> str | None:
    """Where the database stands; None when it is empty."""

    def read(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    revision: str | None = await _on_connection(database, read)
    return revision


def head_revision() -> str:
    """Where this code wants the database to stand."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""


async def differences(database: Database) -> list[Any]:
    """Where `db.tables` and the migrated database do not agree, as alembic tells it: empty when they do."""

    options = {"compare_type": True, "include_object": _is_ours}

    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Table.metadata))

    found: list[Any] = await _on_connection(database, compare)
    return found


def write_revision(connection: Connection, message: str, rev_id: str) -> None:
    """Write a new migration from what `db.tables` has and this database has not: for developers."""
    command.revision(_config(connection), message=message, autogenerate=True, rev_id=rev_id)


def _is_ours(_item: Any, name: str | None, kind: str, _reflected: bool, _against: Any) -> bool:
    """The work engine keeps tables of its own beside ours."""
    return not (kind == "table" and (name or "").startswith("pgqueuer"))


async def _on_connection(database: Database, act: Callable[[Connection], Any]) -> Any:
    try:
        async with database.engine.begin() as connection:
            return await connection.run_sync(act)
    except (DBAPIError, OSError) as exc:
        raise DatabaseUnavailable(str(getattr(exc, "orig", None) or exc).splitlines()[0][:200]) from exc


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["include_object"] = _is_ours
    return config
