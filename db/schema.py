"""The schema's history: up, down, where a database stands, and whether this code can live with that.

The migrations travel with the package, so that an installed service can migrate itself. One process
migrates at a time, each move is one transaction where the database has transactional DDL, and one that was
killed leaves the database where it was. A migration says in `serves_code_of` which older release still
works on the schema it makes; the database keeps that, since the older release does not have the migration.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, event, inspect, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable
from sqlmodel import col

from db.connections.faults import Fault, fault_of, unavailable
from db.engines import server_engine, sqlite_engine
from db.mysql.connections import mysql_engine
from db.mysql.owner import take_turn
from db.session import Database, DatabaseUnavailable
from db.tables import SchemaMark, Table

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LIMIT_S = 1800.0
"""The longest statement of a migration, and the longest wait for another process that migrates."""
_LOCK = 0x7265707269736501
"""The name of the advisory lock: `reprise` in ASCII, and a number."""


@compiles(CreateTable, "mysql", "mariadb")
def _create_table(element: CreateTable, compiler: Any, **options: Any) -> str:
    """Every table there holds any character, compares bytes and has transactions, whatever the default."""
    made: str = compiler.visit_create_table(element, **options)
    return f"{made.rstrip()} ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


class Standing(StrEnum):
    """Where a database stands, seen from this code."""

    CURRENT = "current"
    OLDER = "older"
    """Empty, or at a revision that this code has left behind."""
    NEWER = "newer"
    """A later release has migrated it, and says that this code still works there."""
    FOREIGN = "foreign"
    """A later release has migrated it, and this code does not work there."""


async def upgrade(database: Database, revision: str = "head", *, migrations: Path = MIGRATIONS) -> None:
    """Bring the database to a revision. Raises DatabaseUnavailable; nothing has changed then."""
    await _migrate(database, lambda connection: command.upgrade(_config(connection, migrations), revision))


async def downgrade(database: Database, revision: str, *, migrations: Path = MIGRATIONS) -> None:
    """Take the database back to a revision, or to `base`. Raises DatabaseUnavailable; as above."""
    await _migrate(database, lambda connection: command.downgrade(_config(connection, migrations), revision))


async def current_revision(database: Database) -> str | None:
    """Where the database stands; None when it is empty."""

    def read(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    revision: str | None = await _on_connection(database.engine, read)
    return revision


async def standing(database: Database) -> Standing:
    """Whether this code can work on the database as it stands. Raises DatabaseUnavailable."""
    here, wanted = await current_revision(database), head_revision()
    if here == wanted:
        return Standing.CURRENT
    if here is None or _is_known(here):
        return Standing.OLDER

    def serves(connection: Connection) -> bool:
        if not inspect(connection).has_table(SchemaMark.__tablename__):
            return False
        marks = connection.execute(select(col(SchemaMark.revision), col(SchemaMark.serves_code_of)))
        # Revisions are numbered: every migration that this code does not know must be content with it.
        later = {mark.revision: mark.serves_code_of for mark in marks if mark.revision > wanted}
        return here in later and all(floor <= wanted for floor in later.values())

    return Standing.NEWER if await _on_connection(database.engine, serves) else Standing.FOREIGN


def head_revision() -> str:
    """Where this code wants the database to stand."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""


async def differences(database: Database) -> list[Any]:
    """Where `db.tables` and the migrated database do not agree, as alembic tells it: empty when they do."""

    options = {"compare_type": True, "include_object": _is_ours}

    def compare(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Table.metadata))

    found: list[Any] = await _on_connection(database.engine, compare)
    return found


def write_revision(connection: Connection, message: str, rev_id: str) -> None:
    """Write a new migration from what `db.tables` has and this database has not: for developers."""
    command.revision(_config(connection), message=message, autogenerate=True, rev_id=rev_id)


def _is_ours(_item: Any, name: str | None, kind: str, _reflected: bool, _against: Any) -> bool:
    """The work engine keeps tables of its own beside ours."""
    return not (kind == "table" and (name or "").startswith("pgqueuer"))


def _is_known(revision: str) -> bool:
    try:
        ScriptDirectory(str(MIGRATIONS)).get_revision(revision)
    except CommandError:
        return False
    return True


async def _migrate(database: Database, act: Callable[[Connection], Any]) -> None:
    """In one transaction, one process at a time; the next one reads the revision when it has its turn."""

    def alone(connection: Connection) -> None:
        # Who waits for a table stops everybody who comes after him: better to give up and come again.
        limit_s = database.limits.timeout_s
        if database.is_shared:
            connection.execute(text("SELECT pg_advisory_xact_lock(:name)"), {"name": _LOCK})
            connection.execute(text(f"SET LOCAL lock_timeout = {int(limit_s * 1000)}"))
        elif database.is_mysql:
            take_turn(connection, limit_s=MIGRATION_LIMIT_S)
            connection.execute(text(f"SET SESSION lock_wait_timeout = {math.ceil(limit_s)}"))
        act(connection)
        if database.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise DatabaseUnavailable("the migration would leave rows that refer to nothing")

    async with _patient_engine(database) as engine:
        await _on_connection(engine, alone)


@asynccontextmanager
async def _patient_engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """An engine for migrations alone: copying a large table takes longer than a request's statement may."""
    limits = replace(database.limits, size=1, max_overflow=0, statement_timeout_s=MIGRATION_LIMIT_S)
    if database.is_sqlite:
        engine = sqlite_engine(database.url, limits, size=1, begin="BEGIN IMMEDIATE")
        event.listen(engine.sync_engine, "connect", _without_references)
    elif database.is_mysql:
        engine = mysql_engine(database.url, limits)
    else:
        engine = server_engine(database.url, limits)
    try:
        yield engine
    finally:
        await engine.dispose()


def _without_references(connection: Any, _record: Any) -> None:
    # To alter a table SQLite needs a copy in its place, and dropping the old one would drop what refers to
    # its rows, or fail for it. What is left is checked before the commit.
    connection.execute("PRAGMA foreign_keys=OFF")


async def _on_connection(engine: AsyncEngine, act: Callable[[Connection], Any]) -> Any:
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(act)
    except (DBAPIError, OSError) as exc:
        raise unavailable(exc, fault_of(exc) or Fault.AWAY, committing=False) from exc


def _config(connection: Connection, migrations: Path = MIGRATIONS) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    config.attributes["include_object"] = _is_ours
    return config
