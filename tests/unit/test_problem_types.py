"""One table of problem types: whatever is raised or answered is in it, and it says enough of each."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.web
from app.web.problem_types import Family, problem_type, problem_types

ROOT = Path(__file__).resolve().parents[2]

for module in pkgutil.walk_packages(app.web.__path__, "app.web."):
    importlib.import_module(module.name)


def spelled() -> Iterator[tuple[str, str]]:
    """Codes as the source writes them: of classes, and of problems that are made without one."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and "engines" not in path.parts:
                for each in node.body:
                    target = (
                        each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
                    )
                    if isinstance(target, ast.Name) and target.id == "code":
                        yield from ((path.name, text) for text in texts(each))
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("problem", "self._refuse", "Fail"):
                given = [*node.args, *(word.value for word in node.keywords if word.arg == "code")]
                yield from ((path.name, text) for each in given for text in texts(each) if text.islower())


def texts(node: ast.AST) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value.isidentifier():
            yield each.value


def test_every_code_that_is_raised_or_answered_is_in_the_table() -> None:
    table = problem_types()
    found = set(spelled())
    assert len(found) > 25, "the search has lost its way"
    assert sorted((where, code) for where, code in found if code not in table) == []


def test_every_type_says_what_it_means_and_has_a_status_where_it_is_answered() -> None:
    for kind in problem_types().values():
        assert kind.meaning.endswith("."), kind.code
        assert kind.title, kind.code
        assert (kind.status is None) == (kind.family is Family.JOB), kind.code
        assert kind.status is None or 400 <= kind.status <= 599


def test_a_code_that_is_not_in_the_table_cannot_be_answered() -> None:
    with pytest.raises(KeyError):
        problem_type("made_up")
