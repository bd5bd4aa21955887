"""What is asked as SQL over a job's row: the same answer on every database, whatever its own rules are.

Words are looked for in `jobs.said`, which holds them folded and apart. Tags are compared by how JSON spells
them, since no two databases agree on what a member of a JSON object is.
"""

from __future__ import annotations

import json
from functools import reduce
from operator import and_, or_
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, exists, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlmodel import col

from db.search.terms import Both, Edge, Either, Field, Has, Made, Node, Said, Tagged, Without
from db.tables import Attempt, Job


def clause(node: Node) -> ColumnElement[bool]:
    """True for the jobs that it asks for, false for all others: never unknown."""
    match node:
        case Both(parts):
            return reduce(and_, (clause(part) for part in parts))
        case Either(parts):
            return reduce(or_, (clause(part) for part in parts))
        case Without(part):
            return ~clause(part)
        case Said(words, is_open):
            return func.coalesce(col(Job.said), "").contains(f" {' '.join(words)}" + ("" if is_open else " "))
        case Has(field, value):
            return _has(field, value)
        case Tagged(name, value):
            return func.coalesce(json_member(col(Job.caller_metadata), name).in_(_spellings(value)), False)
        case Made(edge, at):
            return col(Job.created_at) >= at if edge is Edge.SINCE else col(Job.created_at) < at


def _has(field: Field, value: str) -> ColumnElement[bool]:
    match field:
        case Field.STATE:
            return col(Job.state) == value
        case Field.KIND:
            return col(Job.kind) == value
        case Field.ID:
            return col(Job.id) == value
        case Field.ERROR:
            return func.coalesce(col(Job.error_code), "") == value
        case Field.PROVIDER:
            tried = select(col(Attempt.id)).where(
                col(Attempt.job_id) == col(Job.id), col(Attempt.provider) == value
            )
            return (col(Job.provider) == value) | exists(tried)


def _spellings(value: str) -> list[str]:
    """How JSON may say this: as text, and as the number or truth value that it reads like."""
    found = {json.dumps(value), json.dumps(value, ensure_ascii=False)}
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        read = None
    if isinstance(read, (bool, int, float)) and json.dumps(read) == value:
        found.add(value)
    return sorted(found)


class json_member(GenericFunction[str]):  # noqa: N801 - it is called like a function of SQL
    """The JSON text of an object's member of this name; null where it has none. Names are plain ASCII."""

    type = Text()
    inherit_cache = True

    def __init__(self, document: Any, name: str) -> None:
        super().__init__(document, name)


@compiles(json_member, "sqlite")
def _on_sqlite(element: json_member, compiler: Any, **options: Any) -> str:
    document, name = element.clauses
    return f"({compiler.process(document, **options)} -> {compiler.process(name, **options)})"


@compiles(json_member, "postgresql")
def _on_postgresql(element: json_member, compiler: Any, **options: Any) -> str:
    document, name = element.clauses
    member = f"{compiler.process(document, **options)} -> {compiler.process(cast(name, Text), **options)}"
    return f"CAST({member} AS TEXT)"


@compiles(json_member)
def _on_mysql(element: json_member, compiler: Any, **options: Any) -> str:
    document, name = element.clauses
    path = func.concat('$."', name, '"')
    member = f"JSON_EXTRACT({compiler.process(document, **options)}, {compiler.process(path, **options)})"
    return f"CAST({member} AS CHAR) COLLATE utf8mb4_bin"
