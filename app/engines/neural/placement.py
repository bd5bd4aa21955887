"""Which device a model goes to, and in which precision: by what is free there, not by what is built in.

`place` is a pure table. A GPU that is present but full of somebody else's work is passed by, and so is one
whose driver does not answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.engines.base import EngineUnavailable

Precision = Literal["float32", "bfloat16", "float16", "int8"]

GIB = 1 << 30
HEADROOM = 1.25
"""Room beside the weights: the allocator's own, and what one step of the model needs."""
SPARE_BYTES = GIB // 2
"""What a CUDA context takes."""
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that answered."""

    index: int
    free_bytes: int
    has_bfloat16: bool


@dataclass(frozen=True, slots=True)
class Need:
    """What a model takes: its weights in full precision, and which smaller forms it stands."""

    full_bytes: int
    precisions: tuple[Precision, ...] = ("float32",)
    """In the order of preference on a GPU. On a processor it is float32, or int8 where that is listed."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`cuda:N` or `cpu`, and the precision there."""

    device: str
    precision: Precision

    @property
    def is_gpu(self) -> bool:
        return self.device != "cpu"


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}


def place(need: Need, gpus: Sequence[Device], *, machine_free_bytes: int) -> Placement:
    """The GPU with the most room, in the first precision that fits it; else the processor.

    Raises EngineUnavailable naming what was needed and what was free.
    """
    for gpu in sorted(gpus, key=lambda each: -each.free_bytes):
        for precision in need.precisions:
            if precision == "bfloat16" and not gpu.has_bfloat16:
                continue
            if needed_bytes(need, precision) + SPARE_BYTES <= gpu.free_bytes:
                return Placement(f"cuda:{gpu.index}", precision)
    on_processor: tuple[Precision, ...] = ("float32", "int8") if "int8" in need.precisions else ("float32",)
    for precision in on_processor:
        if needed_bytes(need, precision) <= machine_free_bytes:
            return Placement("cpu", precision)
    least = min(needed_bytes(need, precision) for precision in on_processor)
    raise EngineUnavailable(
        f"not enough memory: the model needs {_gib(least)}, the machine has {_gib(machine_free_bytes)} free"
        + "".join(f", GPU {gpu.index} {_gib(gpu.free_bytes)}" for gpu in gpus)
    )


def needed_bytes(need: Need, precision: Precision) -> int:
    """What must be free for the model in this precision."""
    return int(need.full_bytes * _BYTES[precision] / 4 * HEADROOM)


def find_gpus(cuda: Any) -> list[Device]:
    """The GPUs that answer, with what is free on each now. `cuda` is `torch.cuda`."""
    found = []
    for index in range(cuda.device_count()):
        try:
            free_bytes, _ = cuda.mem_get_info(index)
            major, _ = cuda.get_device_capability(index)
        except RuntimeError:  # lost, or its driver is
            continue
        found.append(Device(index, free_bytes, has_bfloat16=major >= 8))
    return found


def place_here(need: Need) -> Placement:
    """`place` on this machine, as it is now."""
    import torch

    return place(need, find_gpus(torch.cuda), machine_free_bytes=machine_bytes())


def machine_bytes() -> int:
    """What the machine can give without swapping; a terabyte where it does not tell."""
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return 1 << 40
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else 1 << 40


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"
