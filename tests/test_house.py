"""The house rules that a machine can hold: sizes, words, constant time, one place of making."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path for folder in ("app", "db") for path in (ROOT / folder).rglob("*.py") if "versions" not in path.parts
)
MOST_LINES = 400
MOST_MODULES_IN_A_FOLDER = 10
MOST_MODULES_IN_APP = 27
MOST_MODULES_IN_DB = 17
"""One a table with its verbs, and what they stand on."""
MOST_MODULES_IN_ROUTES = 16
"""One a family."""
MOST_MODULES_IN_CLI = 14
"""One a family of commands."""
MOST_MODULES_IN_A_CLIENT = 13
"""One a family of calls, and what they share."""
MOST_MODULES = {
    ROOT / "app" / "cli": MOST_MODULES_IN_CLI,
    ROOT / "app": MOST_MODULES_IN_APP,
    ROOT / "app" / "client" / "aio": MOST_MODULES_IN_A_CLIENT,
    ROOT / "app" / "client" / "blocking": MOST_MODULES_IN_A_CLIENT,
    ROOT / "app" / "web" / "routes": MOST_MODULES_IN_ROUTES,
    ROOT / "db": MOST_MODULES_IN_DB,
}
FORBIDDEN_NAMES = re.compile(r"(utils|helpers|common|core|misc|manager|service|handler|processor)s?")
EXEMPT_FROM_SIZE = {ROOT / "db" / "tables.py", ROOT / "app" / "settings.py"}
"""Tables: one row follows the other, and who looks for one looks in one place."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_opens_with_what_it_owns_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no module docstring"
    if path not in EXEMPT_FROM_SIZE:
        assert len(text.splitlines()) <= MOST_LINES, "which second room is hiding in here?"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_no_module_is_named_after_nothing(path: Path) -> None:
    assert not FORBIDDEN_NAMES.fullmatch(path.stem)


def test_no_folder_holds_more_modules_than_a_reader_can_keep_in_mind() -> None:
    crowded = {}
    for folder in {path.parent for path in MODULES}:
        count = len([path for path in MODULES if path.parent == folder and path.name != "__init__.py"])
        most = MOST_MODULES.get(folder, MOST_MODULES_IN_A_FOLDER)
        if count > most:
            crowded[_name(folder)] = count
    assert not crowded


def _public_functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield node


def test_functions_stay_short() -> None:
    long = [
        f"{_name(path)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in _public_functions(ast.parse(path.read_text()))
        if (node.end_lineno or 0) - node.lineno > 60
    ]
    assert not long


def test_digests_and_tokens_are_compared_in_constant_time() -> None:
    suspicious = re.compile(r"(digest|signature|token|hmac)\w*(\(\))?\s*[!=]=", re.IGNORECASE)
    found = [
        f"{_name(path)}:{number}"
        for path in MODULES
        if "engines" not in path.parts  # words of a prompt, not secrets
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if suspicious.search(line)
    ]
    assert not found, "use hmac.compare_digest"


def test_the_environment_is_read_through_the_settings_alone() -> None:
    allowed = {
        "app/settings.py",
        "app/engines/supervisor.py",
        "app/engines/predict.py",
        "app/engines/neural/predict.py",
        "app/cli/tools/connection.py",
        "app/client/calls.py",  # the client runs on other machines than the service
    }
    found = [
        _name(path)
        for path in MODULES
        if re.search(r"os\.environ|os\.getenv", path.read_text()) and _name(path) not in allowed
    ]
    assert not found


def test_tests_replace_ports_and_never_patch_by_dotted_path() -> None:
    patch = re.compile(r"mock\.patch|mocker\.patch|monkeypatch\.setattr\(\s*[\"']")
    found = [
        _name(path)
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__) and patch.search(path.read_text())
    ]
    assert not found
