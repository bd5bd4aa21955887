"""An answer's head and body go out together, and a head without a body does not wait for one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from app.web.server import OnePacket

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Line:
    """A transport that remembers what was written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def on(line: Line) -> OnePacket:
    return OnePacket(cast("asyncio.Transport", line), asyncio.get_running_loop())


async def turn() -> None:
    """What was called soon has been called."""
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


async def test_a_head_goes_with_its_body() -> None:
    answers = on(line := Line())
    answers.write(HEAD)
    assert line.written == []
    answers.write(b"body")
    await turn()
    assert line.written == [HEAD + b"body"]


async def test_a_head_that_nothing_follows_goes_by_itself() -> None:
    answers = on(line := Line())
    answers.write(HEAD)
    await turn()
    assert line.written == [HEAD]
    answers.write(b"later")
    assert line.written == [HEAD, b"later"]


async def test_what_comes_in_pieces_is_not_held_up() -> None:
    answers = on(line := Line())
    for piece in (HEAD, b"one", b"two"):
        answers.write(piece)
    assert line.written == [HEAD + b"one", b"two"]


async def test_answers_one_after_the_other_stay_in_their_order() -> None:
    answers = on(line := Line())
    for piece in (HEAD, HEAD, b"body", HEAD):
        answers.write(piece)
    await turn()
    assert b"".join(line.written) == HEAD + HEAD + b"body" + HEAD


async def test_closing_loses_nothing() -> None:
    answers = on(line := Line())
    answers.write(HEAD)
    answers.close()
    await turn()
    assert (line.written, line.is_closed, answers.is_closing()) == ([HEAD], True, True)
