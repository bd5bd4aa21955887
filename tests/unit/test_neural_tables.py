"""The neural engines' decisions as tables: where a model goes, what a full memory brings, what may load."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.engines.base import EngineError
from app.engines.neural.catalog import BY_KIND, FAMILIES, OPEN, licence_of, read_models
from app.engines.neural.loading import sentences_of
from app.engines.neural.memory import Try, endure, is_out_of_memory, load_where_it_fits, next_try
from app.engines.neural.models.whisper import SAMPLE_RATE, windows
from app.engines.neural.placement import GIB, Device, Need, Placement, find_gpus, place

MUSIC = Need(8 * GIB, ("bfloat16", "float16", "float32"))
WHISPER = Need(6 * GIB, ("float16", "int8", "float32"))
STEMS = Need(GIB, ("float32",))


def gpu(free: float, *, index: int = 0, bf16: bool = True) -> Device:
    return Device(index, int(free * GIB), bf16)


@pytest.mark.parametrize(
    ("need", "gpus", "machine", "expected"),
    [
        (MUSIC, [gpu(24)], 64, Placement("cuda:0", "bfloat16")),
        (MUSIC, [gpu(24, bf16=False)], 64, Placement("cuda:0", "float16")),
        (MUSIC, [gpu(8), gpu(24, index=1)], 64, Placement("cuda:1", "bfloat16")),
        # A GPU is there, and full of somebody else's work.
        (MUSIC, [gpu(2)], 64, Placement("cpu", "float32")),
        (MUSIC, [gpu(5.4)], 64, Placement("cpu", "float32")),
        (MUSIC, [gpu(5.6)], 64, Placement("cuda:0", "bfloat16")),
        (MUSIC, [], 64, Placement("cpu", "float32")),
        (WHISPER, [gpu(8)], 64, Placement("cuda:0", "float16")),
        (WHISPER, [gpu(3)], 64, Placement("cuda:0", "int8")),
        (WHISPER, [gpu(1)], 64, Placement("cpu", "float32")),
        (WHISPER, [], 4, Placement("cpu", "int8")),
        (STEMS, [gpu(1)], 64, Placement("cpu", "float32")),
        (STEMS, [gpu(2)], 64, Placement("cuda:0", "float32")),
    ],
)
def test_fault_67_a_model_goes_where_there_is_room_for_it(
    need: Need, gpus: list[Device], machine: float, expected: Placement
) -> None:
    assert place(need, gpus, machine_free_bytes=int(machine * GIB)) == expected


class _Cuda:
    """Three GPUs, of which the second has lost its driver."""

    def device_count(self) -> int:
        return 3

    def mem_get_info(self, index: int) -> tuple[int, int]:
        if index == 1:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return (index + 1) * GIB, 24 * GIB

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return (7, 5) if index == 0 else (9, 0)


def test_fault_68_a_gpu_that_does_not_answer_is_passed_by() -> None:
    assert find_gpus(_Cuda()) == [gpu(1, bf16=False), gpu(3, index=2)]


def test_a_model_that_fits_nowhere_says_what_it_needs() -> None:
    with pytest.raises(EngineError, match=r"needs 10.0 GiB, the machine has 2.0 GiB free, GPU 0 1.0 GiB"):
        place(MUSIC, [gpu(1)], machine_free_bytes=2 * GIB)


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (Try(True, 30), Try(True, 30, freed=True)),
        (Try(True, 30, freed=True), Try(True, 15, freed=True)),
        (Try(True, 15, freed=True), Try(True, 7.5, freed=True)),
        (Try(True, 7.5, freed=True), Try(False, 30, freed=True)),
        (Try(False, 30), Try(False, 30, freed=True)),
        (Try(False, 30, freed=True), Try(False, 15, freed=True)),
        (Try(False, 7.5, freed=True), None),
    ],
)
def test_fault_67_what_follows_on_a_full_memory(failed: Try, expected: Try | None) -> None:
    assert next_try(failed, first_chunk=30, least_chunk=5) == expected


class _Memory:
    """Work that fits only up to `room`, on the GPU or after the move."""

    def __init__(self, *, gpu_room: float, cpu_room: float) -> None:
        self.room = gpu_room
        self.cpu_room = cpu_room
        self.tried: list[float] = []

    def work(self, chunk: float) -> float:
        self.tried.append(chunk)
        if chunk > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return chunk

    def move(self) -> None:
        self.room = self.cpu_room
        self.tried.append(0)


@pytest.mark.parametrize(
    ("gpu_room", "cpu_room", "tried"),
    [
        (30, 0, [30]),
        (10, 0, [30, 30, 15, 7.5]),
        (1, 99, [30, 30, 15, 7.5, 0, 30]),
        (1, 8, [30, 30, 15, 7.5, 0, 30, 15, 7.5]),
    ],
)
def test_fault_67_smaller_pieces_then_the_processor(
    gpu_room: float, cpu_room: float, tried: list[float]
) -> None:
    memory = _Memory(gpu_room=gpu_room, cpu_room=cpu_room)
    made = endure(memory.work, on_gpu=True, first_chunk=30, least_chunk=5, to_processor=memory.move)
    assert memory.tried == tried
    assert made == tried[-1]


def test_fault_67_what_fits_nowhere_is_a_sentence_and_the_worker_lives() -> None:
    memory = _Memory(gpu_room=1, cpu_room=1)
    with pytest.raises(EngineError, match="out of memory"):
        endure(memory.work, on_gpu=True, first_chunk=30, least_chunk=5, to_processor=memory.move)
    memory.room = 30
    assert endure(memory.work, on_gpu=True, first_chunk=30, least_chunk=5, to_processor=memory.move) == 30


def test_fault_67_a_gpu_that_fills_up_during_the_load_gives_way_to_the_processor() -> None:
    asked: list[Placement] = []

    def load(where: Placement) -> str:
        asked.append(where)
        if where.is_gpu:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "loaded"

    assert load_where_it_fits(load, Placement("cuda:0", "float16")) == "loaded"
    assert asked == [Placement("cuda:0", "float16"), Placement("cpu", "float32")]


def test_another_error_is_not_tried_again() -> None:
    tries: list[float] = []

    def broken(chunk: float) -> float:
        tries.append(chunk)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        endure(broken, on_gpu=True, first_chunk=30, least_chunk=5, to_processor=lambda: None)
    assert tries == [30]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("CUDA failed with error out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("device-side assert triggered"), False),
        (ValueError("no"), False),
    ],
)
def test_running_out_of_memory_is_known_by_all_its_names(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_every_family_states_its_licence() -> None:
    assert {family.kind for family in FAMILIES} == set(BY_KIND)
    open_ones = {family.name for family in FAMILIES if OPEN.match(family.licence)}
    assert open_ones == {"whisper", "translation"}


@pytest.mark.parametrize(
    ("kind", "name", "licence"),
    [
        ("background_music", "facebook/musicgen-small", "CC-BY-NC-4.0"),
        ("sound_effect", "stabilityai/stable-audio-open-1.0", "stabilityai-community"),
        ("transcription", "Systran/faster-whisper-large-v3", "MIT"),
        ("translation", "facebook/m2m100_418M", "MIT"),
        ("translation", "google/madlad400-3b-mt", "Apache-2.0"),
        ("translation", "facebook/nllb-200-distilled-600M", "CC-BY-NC-4.0"),
        ("speech", "facebook/mms-tts-ben", "CC-BY-NC-4.0"),
        ("stem_separation", "adefossez/HTDemucs", "research-only"),
    ],
)
def test_published_weights_have_their_licence(kind: str, name: str, licence: str) -> None:
    assert licence_of(BY_KIND[kind], name) == licence


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(card: str | None = None, *, weights: bytes = b"weights") -> Path:
        if card is not None:
            (tmp_path / "README.md").write_text(f"---\nlanguage: bn\nlicense: {card}\n---\n# A model\n")
        if weights:
            (tmp_path / "model.safetensors").write_bytes(weights)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("card", "is_free"),
    [
        ("mit", True),
        ("apache-2.0", True),
        ("cc-by-4.0", True),
        ("cc-by-nc-4.0", False),
        ("other", False),
        (None, False),
    ],
)
def test_the_card_beside_the_weights_decides(
    folder: Callable[..., Path], card: str | None, is_free: bool
) -> None:
    models = {"speech": str(folder(card))}
    if is_free:
        assert read_models(models, allow_noncommercial=False)["speech"].licence == card
    else:
        with pytest.raises(EngineError, match="NEURAL_ALLOW_NONCOMMERCIAL"):
            read_models(models, allow_noncommercial=False)
    assert read_models(models, allow_noncommercial=True)["speech"].need.full_bytes == len(b"weights")


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("opera", "x/y", "opera: no neural engine makes it"),
        ("transcription", "/nowhere", "neither there nor a name"),
        ("transcription", "../up", "neither there nor a name"),
        ("transcription", "a/b/c", "neither there nor a name"),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused(kind: str, name: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        read_models({kind: name}, allow_noncommercial=True)


def test_a_folder_without_weights_is_refused(folder: Callable[..., Path]) -> None:
    """Fault 70: what was half downloaded is refused with its path."""
    empty = folder("mit", weights=b"")
    with pytest.raises(EngineError, match=f"no weights in {empty}"):
        read_models({"speech": str(empty)}, allow_noncommercial=False)


def test_a_hub_name_is_taken_to_be_of_the_usual_size() -> None:
    named = read_models({"transcription": "Systran/faster-whisper-large-v3"}, allow_noncommercial=False)
    need = named["transcription"].need
    assert dataclasses.astuple(need) == (6 * GIB, ("float16", "int8", "float32"))


def test_windows_cover_everything_once_and_end_in_the_quiet() -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 70 * SAMPLE_RATE).astype(np.float32)
    samples[27 * SAMPLE_RATE : 27 * SAMPLE_RATE + SAMPLE_RATE // 2] = 0
    cuts = list(windows(samples, 30))
    assert cuts[0][0] == 0
    assert cuts[-1][1] == len(samples)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(cuts))
    assert all(end - start <= 30 * SAMPLE_RATE for start, end in cuts)
    assert 27 <= cuts[0][1] / SAMPLE_RATE <= 27.5


def test_sentences_keep_every_word_within_their_length() -> None:
    text = "It is late. " + "word " * 300 + "\nআজ আবহাওয়া। কাল?"
    pieces = sentences_of(text, longest=100)
    assert " ".join(pieces).split() == text.split()
    assert max(map(len, pieces)) <= 100
    assert pieces[0] == "It is late."
    assert pieces[-2:] == ["আজ আবহাওয়া।", "কাল?"]
