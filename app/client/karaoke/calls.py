"""What is asked of `/v1/lyrics` and `/v1/performances`, one function a route.

None of these requests carries an Idempotency-Key, so what changes something is not repeated unless it
certainly did nothing: a second create would be a second performance, a second shift another version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.client.call import Call, json_call, query, segment

LYRICS = "/v1/lyrics"
PERFORMANCES = "/v1/performances"


def create_lyrics(**given: str | float | None) -> Call:
    return _change("POST", LYRICS, given)


def list_lyrics(*, limit: int, cursor: str | None) -> Call:
    return Call("GET", LYRICS, query(limit=limit, cursor=cursor))


def get_lyrics(lyrics_id: str, *, number: int | None = None) -> Call:
    path = f"{LYRICS}/{segment(lyrics_id)}"
    return Call("GET", path if number is None else f"{path}/versions/{number:d}")


def get_lrc(lyrics_id: str, *, words: bool) -> Call:
    return Call("GET", f"{LYRICS}/{segment(lyrics_id)}/lrc", query(words=str(words).lower()))


def list_versions(lyrics_id: str) -> Call:
    return Call("GET", f"{LYRICS}/{segment(lyrics_id)}/versions")


def shift_lyrics(lyrics_id: str, *, version: int, ms: int) -> Call:
    return _change("POST", f"{LYRICS}/{segment(lyrics_id)}/shift", {"version": version, "ms": ms})


def fix_lyrics(
    lyrics_id: str, *, version: int, title: str | None, lines: Sequence[Mapping[str, Any]]
) -> Call:
    body = {"version": version, "title": title, "lines": [dict(line) for line in lines]}
    return _change("PATCH", f"{LYRICS}/{segment(lyrics_id)}", body)


def replace_lines(lyrics_id: str, *, version: int, lines: Sequence[Mapping[str, Any]]) -> Call:
    body = {"version": version, "lines": [dict(line) for line in lines]}
    return _change("PUT", f"{LYRICS}/{segment(lyrics_id)}/lines", body)


def restore_lyrics(lyrics_id: str, *, version: int, number: int) -> Call:
    return _change("POST", f"{LYRICS}/{segment(lyrics_id)}/restore", {"version": version, "number": number})


def delete_lyrics(lyrics_id: str) -> Call:
    return Call("DELETE", f"{LYRICS}/{segment(lyrics_id)}", is_repeatable=False)


def create_performance(title: str | None, song: Mapping[str, Any]) -> Call:
    return _change("POST", PERFORMANCES, {"title": title, **song})


def list_performances(*, limit: int, cursor: str | None) -> Call:
    return Call("GET", PERFORMANCES, query(limit=limit, cursor=cursor))


def get_performance(performance_id: str) -> Call:
    return Call("GET", f"{PERFORMANCES}/{segment(performance_id)}")


def change_performance(
    performance_id: str, *, title: str | None, song_title: str | None, song: Mapping[str, Any]
) -> Call:
    body = {"title": title, "song_title": song_title, **song}
    return _change("PATCH", f"{PERFORMANCES}/{segment(performance_id)}", body)


def delete_performance(performance_id: str) -> Call:
    return Call("DELETE", f"{PERFORMANCES}/{segment(performance_id)}", is_repeatable=False)


def invite(performance_id: str) -> Call:
    return Call("POST", f"{PERFORMANCES}/{segment(performance_id)}/remote-tokens", is_repeatable=False)


def list_singers(performance_id: str) -> Call:
    return Call("GET", _singers(performance_id))


def add_singer(performance_id: str, singer: str, title: str | None, song: Mapping[str, Any]) -> Call:
    return _change("POST", _singers(performance_id), {"singer": singer, "title": title, **song})


def order_singers(performance_id: str, entry_ids: Sequence[str], *, version: int) -> Call:
    body = {"version": version, "ids": list(entry_ids)}
    return _change("PUT", f"{_singers(performance_id)}/order", body)


def next_singer(performance_id: str, *, version: int | None) -> Call:
    return _change("POST", f"{_singers(performance_id)}/next", {"version": version})


def move_singer(performance_id: str, entry_id: str, *, position: int, version: int | None) -> Call:
    body = {"position": position, "version": version}
    return _change("PATCH", f"{_singers(performance_id)}/{segment(entry_id)}", body)


def remove_singer(performance_id: str, entry_id: str) -> Call:
    return Call("DELETE", f"{_singers(performance_id)}/{segment(entry_id)}", is_repeatable=False)


def song(
    job_id: str | None, vocals: str | None, instrumental: str | None, lyrics_id: str | None
) -> dict[str, str | None]:
    """A song by its parts."""
    return {"job_id": job_id, "vocals": vocals, "instrumental": instrumental, "lyrics_id": lyrics_id}


def _singers(performance_id: str) -> str:
    return f"{PERFORMANCES}/{segment(performance_id)}/singers"


def _change(method: str, path: str, given: Mapping[str, Any]) -> Call:
    """What was not given is not sent."""
    body = {name: value for name, value in given.items() if value is not None}
    return json_call(method, path, body, is_repeatable=False)
