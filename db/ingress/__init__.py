"""The hot path of the rows: deliveries that arrive together, stored in one commit without an ORM.

SQLite: one thread with one plain `sqlite3` connection, synchronous=FULL, taking turns with the other writer
of the process. PostgreSQL: one asyncpg connection and one statement a group. MySQL and MariaDB: one asyncmy
connection and one transaction a group. All insert-or-ignore by `dedupe_key` and say which rows were new; all
return only after the commit is durable.
"""

from __future__ import annotations

from db.ingress.mysql import MysqlIngress
from db.ingress.postgres import PostgresIngress
from db.ingress.rows import Ingress, ItemsFor, NewDelivery, Statement
from db.ingress.sqlite import SqliteIngress
from db.session import Database

__all__ = ["Ingress", "ItemsFor", "NewDelivery", "Statement", "open_ingress"]


def open_ingress(database: Database, items_for: ItemsFor | None = None) -> Ingress:
    """The ingress for this database; it connects at the first write."""
    if database.is_sqlite:
        return SqliteIngress(database)
    if database.is_mysql:
        return MysqlIngress(database)
    return PostgresIngress(database, items_for)
