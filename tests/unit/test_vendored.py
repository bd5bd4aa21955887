"""The libraries of others that pages load are what their table says, and nothing else lies beside them."""

from __future__ import annotations

import re
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

VENDOR = Path(__file__).resolve().parents[2] / "app" / "web" / "static" / "vendor"
TABLE = VENDOR / "VENDORED.toml"
LIBRARIES: list[dict[str, Any]] = tomllib.loads(TABLE.read_text())["library"]
LICENCES = {"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC"}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda each: each["name"])
def test_a_vendored_library_is_byte_for_byte_what_its_package_has(library: dict[str, Any]) -> None:
    for name, said in library["files"].items():
        assert sha256((VENDOR / name).read_bytes()).hexdigest() == said["sha256"], name
    assert library["licence"] in LICENCES
    assert (VENDOR / library["licence_file"]).read_text().strip()
    assert library["source"] == f"npm:{library['name']}@{library['version']}"
    assert (TABLE.parents[4] / "NOTICE").read_text().find(library["name"]) >= 0, "name it in NOTICE"


def test_nothing_lies_there_that_the_table_does_not_name() -> None:
    named = {TABLE.name}
    for library in LIBRARIES:
        named |= {*library["files"], library["licence_file"]}
    assert {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()} == named


def test_pages_load_nothing_from_elsewhere_and_hold_no_script_or_style() -> None:
    """Fault 23: a text that a caller gives is never script, because no page holds any."""
    templates = (VENDOR.parent.parent / "dashboard" / "templates").rglob("*.html")
    for template in templates:
        text = template.read_text()
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|\|\s*safe", text), (
            template.name
        )
        for address in re.findall(r'(?:src|href)="([^"]*)"', text):
            assert address.startswith(("/", "#", "{{")), (template.name, address)
