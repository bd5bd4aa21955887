"""The documentation keeps its promises: the reference is the code's, links lead somewhere, words hold."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
)
WRITTEN = [page for page in PAGES if page.parent != DOCS / "reference"]

LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ANCHOR = re.compile(r'<a id="([^"]+)">')
FILE = re.compile(r"`((?:app|db|scripts)/[\w./-]+)`")

FORBIDDEN = re.compile(
    r"\b(notifications?|blobs?|executions?|background tasks?|seamless\w*|blazing\w*|powerful|robust)\b",
    re.IGNORECASE,
)
"""Words that the glossary rules out, as far as a machine can tell, and words that only praise."""


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings, and those that are set by hand."""
    text = page.read_text()
    slugs = {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in HEADING.findall(text)
    }
    return slugs | set(ANCHOR.findall(text))


def _links(page: Path) -> Iterator[tuple[str, str]]:
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if not target.startswith(("http://", "https://")):
            path, _, anchor = target.partition("#")
            yield path, anchor


def test_the_reference_is_what_the_code_says() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "make-reference", "--check"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    broken = []
    for path, anchor in _links(page):
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    assert not broken


def test_every_page_can_be_reached_from_the_map() -> None:
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [(page.parent / path).resolve() for path, _ in _links(page) if path]
    assert sorted(_name(page) for page in set(DOCS.rglob("*.md")) - reached) == []


def test_every_setting_stands_in_the_example_with_its_default(tmp_path: Path) -> None:
    example = (ROOT / ".env.example").read_text()
    names = re.findall(r"^#([A-Z][A-Z0-9_]*)=", example, re.MULTILINE)
    assert names == [name.upper() for name in Settings.model_fields]
    copy = tmp_path / ".env"
    copy.write_text(re.sub(r"^#(?=[A-Z][A-Z0-9_]*=)", "", example, flags=re.MULTILINE))
    fresh = {
        name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()
    }
    assert load_settings(_env_file=copy).model_dump(exclude=_from_environment()) == {
        name: value for name, value in fresh.items() if name not in _from_environment()
    }


def _from_environment() -> set[str]:
    """Settings that this process has from its environment, which wins over a file."""
    given = load_settings(_env_file=None)
    return set(given.model_fields_set)


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = {name for name in FILE.findall(page.read_text()) if not re.search(r"NAME|000N|…", name)}
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_the_life_of_a_job_names_every_station() -> None:
    named = set(FILE.findall((DOCS / "explanation" / "life-of-a-job.md").read_text()))
    stations = {f"app/{name}.py" for name in ("jobs", "dispatch", "inbox", "finish", "recovery", "lifecycle")}
    assert stations <= named


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_forbidden_words_stay_out(page: Path) -> None:
    if page.name == "glossary.md":
        return  # it names them
    found = FORBIDDEN.findall(CODE.sub("", page.read_text()))
    assert not found


def test_every_crash_point_is_explained() -> None:
    source = (ROOT / "app" / "crash_points.py").read_text()
    points = set(re.findall(r'^    [A-Z_]+ = "(\w+)"$', source, re.MULTILINE))
    text = (DOCS / "explanation" / "durability.md").read_text()
    ranged = {"output_fetched"}  # inside "`finish_claimed` to `output_trimmed`"
    assert sorted(point for point in points - ranged if f"`{point}`" not in text) == []


def test_the_map_lists_the_decisions_in_order() -> None:
    files = sorted(path.name for path in (DOCS / "decisions").glob("*.md"))
    assert [name[:4] for name in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    for name in files:
        headings = HEADING.findall((DOCS / "decisions" / name).read_text())
        assert headings[1:] == ["Context", "Decision", "Consequences", "Alternatives"], name
