"""Run the benches, one after another, each in a process of its own, and write the page of the last run.

Usage: scripts/bench [NAME …] [--quick] [--json FILE] [--page]     (as `reprise bench`, in a checkout)
       scripts/bench --page --json FILE --no-run

Needs a quiet machine with two cores or more. `--quick` takes shorter trials: a look, not for the page. With
`--json` what was measured is kept, with the machine and the commands; a bench that was run replaces its own
part of the file and leaves the others. `--page` writes `docs/reference/performance.md` from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from ground import HERE, KEPT, ROOT
from page import BENCHES, describe_machine, write_page

MOST_S = 400.0
"""After that a bench is ended: it hangs."""


def main() -> None:
    given = _arguments()
    kept = Path(given.json) if given.json else KEPT / "last.json"
    run = json.loads(kept.read_text()) if kept.exists() else {"benches": {}}
    if not given.no_run:
        kept.parent.mkdir(parents=True, exist_ok=True)
        for name in given.names or BENCHES:
            run["machine"] = machine = describe_machine()
            when = {fact: machine[fact] for fact in ("at", "commit", "load")}
            run["benches"][name] = when | _run(name, quick=given.quick)
            kept.write_text(json.dumps(run, indent=1) + "\n")
    if given.page:
        write_page(run)
        print("docs/reference/performance.md is written.")
    if any(bench["failure"] for bench in run["benches"].values()):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="shorter trials")
    parser.add_argument(
        "--json", metavar="FILE", help="keep the figures there (default: var/bench/last.json)"
    )
    parser.add_argument("--page", action="store_true", help="write docs/reference/performance.md")
    parser.add_argument("--no-run", action="store_true", help="measure nothing: only the page")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in BENCHES]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return given


def _run(name: str, *, quick: bool) -> dict[str, object]:
    """One bench in a process of its own, its table as it comes."""
    print(f"\n{name}: {BENCHES[name]}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "figures.json")
        argv = [sys.executable, HERE / f"{name}.py", "--json", target, *(["--quick"] if quick else [])]
        failure = ""
        bench = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            _, said = bench.communicate(timeout=MOST_S)
            if bench.returncode:
                failure = said.strip().splitlines()[-1] if said.strip() else "it failed"
        except subprocess.TimeoutExpired:
            # Not killed: it ends what it has started.
            bench.terminate()
            bench.communicate(timeout=60)
            failure = f"it took longer than {MOST_S:.0f} s"
        if failure:
            print(failure)
        return {
            "figures": json.loads(target.read_text()) if target.exists() else [],
            # A part that this machine lacks is told in the page; it is no failure.
            "skipped": failure.removeprefix("skipped: ") if failure.startswith("skipped: ") else "",
            "failure": "" if failure.startswith("skipped: ") else failure,
            "quick": quick,
            "took_s": round(time.monotonic() - began),
        }


if __name__ == "__main__":
    main()
