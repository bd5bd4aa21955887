"""What is printed: tables for people, JSON for machines, progress bars on a terminal.

Results go to stdout, everything beside them (bars, notes) to stderr, so that a pipe gets the result alone.
Without a terminal there is no colour, no bar and no cut column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app.cli.tools.calls import Json
from app.cli.tools.inert import inert, inert_json

_PIPED_WIDTH = 240
_STATE_STYLES = {
    "queued": "yellow",
    "running": "cyan",
    "finishing": "cyan",
    "succeeded": "green",
    "failed": "red",
    "canceled": "magenta",
}
Note = Callable[[Json], None]
"""Told each event of a job."""


def out() -> Console:
    """For results."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False)


def err() -> Console:
    """For what goes beside them."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPED_WIDTH, highlight=False)


def print_json(value: Json) -> None:
    """A whole JSON document, on stdout."""
    sys.stdout.write(inert_json(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def print_line(text: str) -> None:
    """One line of result, never wrapped or coloured."""
    sys.stdout.write(f"{inert(text)}\n")


def print_live(line: Text | str) -> None:
    """One line of a result that goes on: whole, and out at once, also into a pipe."""
    out().print(line, soft_wrap=True, markup=False, highlight=False)
    sys.stdout.flush()


def state_text(word: str, width: int = 0) -> Text:
    """A job's state, or a word of one, coloured, as wide as that."""
    return Text(word.ljust(width), style=_STATE_STYLES.get(word, ""))


def table(*columns: str, right: Sequence[str] = (), flexible: Sequence[str] = ()) -> Table:
    """An empty table: `right` names columns of figures, `flexible` those of `cut` cells."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns:
        # rich narrows columns that may wrap before all others; `cut` cells then shorten instead.
        justify: JustifyMethod = "right" if name in right else "left"
        made.add_column(name, justify=justify, no_wrap=name not in flexible, overflow="ellipsis")
    return made


def grid(facts: dict[str, Any]) -> Table:
    """Names and values, without those that are None."""
    made = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value is not None:
            made.add_row(f"[dim]{plain(name)}[/]", plain(value))
    return made


def print_page(filled: Table, page: Json, empty: str) -> None:
    """A page of a list, with how to go on."""
    if not page["items"]:
        err().print(empty)
        return
    out().print(filled)
    if page["next_cursor"]:
        err().print(f"[dim]There is more: --cursor {page['next_cursor']}[/]")


def state(word: str) -> str:
    """A job's state, coloured."""
    return f"[{_STATE_STYLES.get(word, 'default')}]{word}[/]"


def plain(text: object) -> str:
    """Somebody's text in a cell: one line, no markup of ours, nothing that a terminal obeys."""
    return escape(_one_line(text))


def cut(text: object) -> Text:
    """The same for a column that may be shortened."""
    return Text(_one_line(text), no_wrap=True, overflow="ellipsis")


def _one_line(text: object) -> str:
    return inert(" ".join(str(text or "").split()))


def seconds(value_s: float | None) -> str:
    """A duration for people."""
    if value_s is None:
        return "–"
    return f"{value_s * 1000:.0f} ms" if value_s < 1 else f"{value_s:.2f} s"


def size(value_bytes: int) -> str:
    """A size for people."""
    return f"{value_bytes / 1e6:.1f} MB" if value_bytes >= 1_000_000 else f"{value_bytes / 1e3:.0f} kB"


def age(moment: str | None) -> str:
    """How long ago that was."""
    if moment is None:
        return "–"
    passed_s = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if passed_s >= unit_s:
            return f"{passed_s / unit_s:.0f} {unit}"
    return f"{passed_s:.0f} s"


def seconds_until(moment: str) -> float:
    """How long until then; below zero when it has passed."""
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """One bar of so many steps on a terminal, gone at the end; told how many are done."""
    console = err()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.completed} of {task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        steps = bars.add_task(name, total=total)
        yield lambda done: bars.update(steps, completed=done)


@contextmanager
def progress(*names: str) -> Iterator[list[Note]]:
    """A bar for each name on a terminal, gone at the end; each job's events are told to its note."""
    console = err()
    if not console.is_terminal:
        yield [_unheard for _ in names]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[stage]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield [_note(bars, bars.add_task(name, total=1.0, stage="queued")) for name in names]


def _note(bars: Progress, bar: TaskID) -> Note:
    def note(event: Json) -> None:
        data = event["data"]
        stage = data.get("stage") or data.get("status") or event["type"].removeprefix("job.")
        done = {"finishing": 0.95, "succeeded": 1.0}.get(data.get("status"), data.get("progress"))
        bars.update(bar, completed=done, stage=plain(stage))
        if data.get("status") in ("succeeded", "failed", "canceled"):
            bars.stop_task(bar)

    return note


def _unheard(_event: Json) -> None:
    """Without a terminal nobody looks."""
