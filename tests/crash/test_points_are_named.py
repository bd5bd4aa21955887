"""Every commit of the service and every call to somebody outside has a moment of death, or a reason for none.

The tables here are read beside the code: a function that begins to commit, or to call out, and is not in them
fails the test. Whoever adds one says where a kill there is tried, or why it need not be.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from app.crash_points import CrashPoint
from tests.crash.child import ROOT

P = CrashPoint
COMMITS: dict[str, CrashPoint | str] = {
    "dispatch.step": P.ATTEMPT_COMMITTED,
    "dispatch._created": P.PREDICTION_STORED,
    "dispatch._hold_against": "holds a failure against the provider; forgotten, the next one counts",
    "dispatch._look_soon": "only moves the time of the next look, which comes anyway",
    "dispatch._withdraw": P.ATTEMPT_WITHDRAWN,
    "finish.step": P.FINISH_CLAIMED,
    "finish._let_go": "gives back a lease that would run out",
    "finish._keep": "renews a lease; a death before or after it is a death under a lease",
    "finish._succeed": P.JOB_FINISHED,
    "finish._ask_again": P.OUTPUT_ASKED_AGAIN,
    "finish._postpone": P.FINISH_POSTPONED,
    "finish._fail": P.FINISH_FAILED,
    "inbox._may_begin": P.DELIVERY_BEGUN,
    "inbox._postpone": "only moves the time of the next try",
    "inbox._quarantine": "settles a delivery that moves nothing",
    "inbox._apply": P.DELIVERY_APPLIED,
    "station.step": P.FAMILY_PLANNED,
    "station._claim": P.ANNOUNCEMENT_CLAIMED,
    "station._note": P.ANNOUNCEMENT_NOTED,
    "station._let_go": "gives back a lease that would run out",
    "station._hand_on": "writes an item for a row that the sweep finds",
    "signing.show": "made once, by whoever comes first",
    "signing.rotate": "nobody was answered: asked again, the older secret is live still",
    "outbox.resend": "only makes it due now; nobody was answered, and asks again",
    "outbox._resend_batch": "only makes them due now; nobody was answered, and asks again",
    "outbox.enable": "done again by whoever was not answered, to the same effect",
    "intake._store": P.JOB_COMMITTED,
    "uploads.store": P.UPLOAD_COMMITTED,
    "resumable.create": "nobody was answered: asked again with its key it is found, without one it expires",
    "resumable.remove": "done again to the same effect; pieces without a row are swept",
    "resumable._writing": "takes a lease that runs out",
    "resumable._finish": "what is no sound is sent again and refused again; pieces without a row are swept",
    "writer.held": "gives back a lease that would run out",
    "writer._count": P.PIECE_COUNTED,
    "writer._renew": "renews a lease; a death before or after it is a death under a lease",
    "pieces.expire": "pieces without a row are swept",
    "jobs.cancel": P.JOB_CANCELED,
    "acts.ask": "nobody was answered: the act is there and runs, and an abort finds it in the list",
    "acts.abort": "done again to the same effect",
    "runner._claim": "takes a lease that runs out",
    "runner._run": "gives back a lease that would run out",
    "runner._go_through": "the last word on an act of which nothing is left to do: said by the next process",
    "runner._note": "tests/flow/test_bulk.py dies before it and does nothing twice",
    "expunge.expunge": P.OBJECTS_DOOMED,
    "housekeeping.index": "writes words that the next round finds missing",
    "moves.end_refused": P.ATTEMPT_REFUSED,
    "recovery._heard": P.PREDICTION_FOUND,
    "recovery._in_budget": "only moves the time of the next look",
    "recovery._check_later": "only moves the time of the next look",
    "inbox._known": "flags a conflict; one that is not told is lost, and has no effect",
    "refusals.write": "facts for operators: what a death takes along changes nothing",
    "recoveries.begin": P.RECOVERY_COMMITTED,
    "recoveries.abort": "done again by whoever asked, to the same effect",
    "recoveries.work": "takes a lease that runs out",
    "recoveries._take": "counts a try, or says that all is done: said again by the next life",
    "recoveries._work_on": P.RECOVERY_ITEMS_DONE,
    "housekeeping.expire": P.OBJECTS_DOOMED,
    "housekeeping.expire_uploads": P.OBJECTS_DOOMED,
    "housekeeping._doom": P.OBJECTS_DOOMED,
    "housekeeping.remove_doomed": "forgets tombstones whose time is over",
    "housekeeping._remove": P.OBJECTS_REMOVED,
    "housekeeping._find_refusal": "marks the store as this database's own; done again alike",
    "housekeeping._is_our_turn": "takes the turn for one round; the next comes in its time",
    "housekeeping.forget_acts": "forgets what nobody asks for any more",
    "desk.create": "nobody was answered: the key that nobody knows stands in the list, to be revoked",
    "desk.revoke": "done again to the same effect",
    "desk.rotate": "nobody was answered: the old key holds on for the overlap, and the next rotation ends it",
    "keyring._write_used": "says that a key is in use; the next use says so too",
    "registry.create": "nobody was answered: asked again, with its key there is still one voice",
    "registry.rename": "done again to the same effect",
    "registry.delete": "done again: it is not there, as was wanted",
    "replay.send_again": "says that it was asked for; nobody was answered, and asks again",
    "book._begin": "nobody was answered: the lyrics stand in the list, to be deleted",
    "book._change": "nobody was answered, and asks again: the version is not the newest any more",
    "book._rename": "done again to the same effect",
    "book.delete": "done again by whoever was not answered: they are gone",
    "performances.create": "nobody was answered: it stands in the list, to be deleted",
    "performances.get_default": "made once, by whoever comes first",
    "performances.change": "done again to the same effect",
    "performances.delete": "done again by whoever was not answered: it is gone",
    "performances.command": "whoever was not answered sees the state when they come back",
    "performances.add_singer": "nobody was answered: the singer stands in the line, to be removed",
    "performances.change_line": "whoever was not answered reads the line, or its version refuses the second",
    "performances.next_singer": "whoever was not answered reads the line, or its version refuses the second",
    "performances.note_invitation": "the token was given to nobody",
    "once._take": "takes a key for a time that runs out",
    "once._give_back": "gives back a key that would be free after its time",
    "openers.claim_own_secret": "made once, by whoever comes first",
    "links.keeping_links": "made once, by whoever comes first",
    "links.rotate_links": "nobody was answered: done again, and links under the secret before are refused",
    "pulse._beat": "says that the process is alive",
    "worker.beat": "says that the process is alive",
    "worker.alive": "says that the process has left; a death tells the same, later",
    "worker._take_over": "done again by whoever looks next, to the same effect",
    "worker.adopt": "done again by the next life, to the same effect",
    "worker._forget_old_keys": "forgets what nobody asks for any more",
}
CALLS: dict[str, CrashPoint | str] = {
    "dispatch._create": P.PREDICTION_CREATED,
    "dispatch._stop_paying": "PREDICTION_CANCELED proves a cancel that nobody stored",
    "finish._fetch": P.OUTPUT_FETCHED,
    "finish._trim": P.OUTPUT_TRIMMED,
    "joining._mix": P.PARTS_JOINED,
    "shelf.shelve": P.OUTPUT_STORED,
    "pieces.put": P.PIECE_STORED,
    "outlines._draw": "drawn again by whoever asks next",
    "housekeeping._find_refusal": "marks the store as this database's own; done again alike",
    "station._send": P.ANNOUNCEMENT_SENT,
    "inbox.receive": P.DELIVERY_COMMITTED,
    "intake.accept": P.JOB_COMMITTED,
    "recovery._ask": P.POLL_ANSWERED,
    "recovery._cancel": P.PREDICTION_CANCELED,
}
"""`inbox.receive` and `intake.accept` hand their rows to a group commit."""
CALL = re.compile(
    r"provider(s\[[^\]]+\])?\.(create|get|find|cancel)\(|\.(outbound|storage|audio)\.(download|post|put|trim)\w*\("
    r"|_audio\.mix\(|_outbound\.post\(|_group\.submit\(|\sstorage\.put\(|_storage\.put_bytes\("
)
NO_STATIONS = {"cli", "web", "engines", "provider", "outbound"}
"""They hold no rows: the web and the commands call `jobs` and `inbox`, the rest are what is called."""


def functions() -> Iterator[tuple[str, str]]:
    """Every function of the service, as `module.function`, and its text."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        if NO_STATIONS.isdisjoint(path.relative_to(ROOT / "app").parts):
            yield from functions_of(path)


def functions_of(path: Path) -> Iterator[tuple[str, str]]:
    text = path.read_text()
    lines = text.splitlines()
    room = path.parent.name if path.stem == "__init__" else path.stem
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{room}.{node.name}", "\n".join(lines[node.lineno - 1 : node.end_lineno])


def test_every_commit_has_a_moment_of_death_or_a_reason_for_none() -> None:
    """Fault 52."""
    found = {name for name, text in functions() if ".transaction()" in text or ".transact(" in text}
    assert found == set(COMMITS)


def test_every_call_to_somebody_outside_has_one_too() -> None:
    """Fault 52."""
    found = {name for name, text in functions() if CALL.search(text)}
    assert found == set(CALLS)


def test_every_moment_is_in_the_tables_and_in_the_code() -> None:
    told = {point for point in [*COMMITS.values(), *CALLS.values()] if isinstance(point, CrashPoint)}
    assert set(CrashPoint) - told == {P.DELIVERY_PARSED}, "between two commits, and no call"
    reached = {name for _, text in functions() for name in re.findall(r"reach\(CrashPoint\.(\w+)\)", text)}
    assert reached == {point.name for point in CrashPoint}
