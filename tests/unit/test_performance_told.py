"""What a performance says to its devices is what its reference page says that it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from app.karaoke.stage import singers
from app.karaoke.stage.rows import changed, queue_of, state_of
from app.karaoke.stage.singers import Entry, Queue, Song
from app.karaoke.stage.state import Control, Pause, Play, Seek, apply
from app.karaoke.stage.told import events_between, queue_payload, state_payload
from app.web.socket.stage.told import OUTGOING
from db.tables import Performance

NOW = datetime(2026, 5, 1, 20, tzinfo=UTC)
SONG = Song(
    title="Ours", vocals="ast_1", instrumental="ast_2", lyrics_id=None, job_id="job_1", duration_s=60.0
)  # fmt: skip


def row() -> Performance:
    return Performance(
        id="prf_1", tenant="default", title="Friday", song={}, queue={}, queue_version=0, vocal_volume=0.0,
        instrumental_volume=1.0, lyrics_size="medium", lyrics_offset=0, is_playing=False, position_s=0.0,
        position_at=NOW, duration_s=60.0, version=1, moved_version=1, created_at=NOW, updated_at=NOW,
    )  # fmt: skip


def queue(*names: str) -> Queue:
    made = Queue()
    for name in names:
        made = singers.add(made, Entry(id=f"sng_{name}", singer=name, song=SONG, added_at=NOW.isoformat()))
    return made


def test_every_event_of_a_performance_is_as_it_is_documented() -> None:
    looks = [row()]

    def look(**changes: object) -> None:
        looks.append(changed(looks[-1], NOW, **changes))  # type: ignore[arg-type]

    look(title="Saturday", song=SONG)
    for command in (
        Control(vocal_volume=0.3),
        Control(lyrics_size="large", lyrics_offset=-50),
        Play(),
        Seek(20.0),
    ):
        look(state=apply(state_of(looks[-1]), command, NOW + timedelta(seconds=len(looks))))
    look(state=apply(state_of(looks[-1]), Pause(), NOW + timedelta(seconds=30)))
    look(queue=queue("Ana", "Bo"))
    look(queue=singers.advance(queue_of(looks[-1])), song=SONG)
    told = [each for a, b in pairwise(looks) for each in events_between(a, b, NOW)]
    told += [
        ("performance_state", state_payload(looks[-1], NOW)),
        ("queue_updated", queue_payload(looks[-1])),
    ]
    for event, payload in told:
        shape = OUTGOING[event][1]
        shape.model_validate(payload)
    assert {event for event, _ in told} == set(OUTGOING) - {"performance_deleted"}
