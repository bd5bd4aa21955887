"""The schema on real SQLite and real PostgreSQL: the history makes the tables, up, down and up again."""

from __future__ import annotations

from sqlalchemy import inspect

from db import schema
from db.session import Database
from db.tables import Table


async def test_the_migrations_make_exactly_the_tables(database: Database) -> None:
    assert await schema.current_revision(database) == schema.head_revision()
    assert await schema.differences(database) == []


async def test_a_downgrade_leaves_nothing_and_an_upgrade_brings_it_back(database: Database) -> None:
    await schema.downgrade(database, "base")
    assert await _tables(database) <= {"alembic_version"}
    await schema.upgrade(database)
    assert await schema.differences(database) == []
    assert set(Table.metadata.tables) <= await _tables(database)


async def test_an_upgrade_of_a_current_database_changes_nothing(database: Database) -> None:
    await schema.upgrade(database)
    assert await schema.current_revision(database) == schema.head_revision()


async def _tables(database: Database) -> set[str]:
    async with database.engine.connect() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))
