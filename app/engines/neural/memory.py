"""What happens when memory runs out in a model: free some, take smaller pieces, leave the GPU, or say so.

`next_try` is a pure table; `endure` walks it. The worker lives on in every case. A model gives itself in
pieces: `chunk` is a number of seconds, lines or frames that it works on at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from app.engines.base import EngineUnavailable
from app.engines.neural.placement import Placement

Result = TypeVar("Result")

_SIGNS = (
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "can't allocate memory",
    "defaultcpuallocator",
    "bad_alloc",
    "failed to allocate",
)


@dataclass(frozen=True, slots=True)
class Try:
    """How a piece of work is tried."""

    on_gpu: bool
    chunk: float
    freed: bool = False
    """The caches have been emptied once for this size."""


def next_try(failed: Try, *, first_chunk: float, least_chunk: float) -> Try | None:
    """What to try after this ran out of memory; None when nothing is left.

    Caches first, then half the chunk as long as it is worth it, then the processor with the first chunk.
    """
    if not failed.freed:
        return replace(failed, freed=True)
    if failed.chunk / 2 >= least_chunk:
        return replace(failed, chunk=failed.chunk / 2)
    if failed.on_gpu:
        return Try(on_gpu=False, chunk=first_chunk, freed=True)
    return None


def endure(
    work: Callable[[float], Result],
    *,
    on_gpu: bool,
    first_chunk: float,
    least_chunk: float,
    to_processor: Callable[[], None],
) -> Result:
    """`work(chunk)` until it fits. `to_processor` moves the model. Raises EngineUnavailable in the end."""
    now: Try | None = Try(on_gpu=on_gpu, chunk=first_chunk)
    while now is not None:
        failed = now
        try:
            return work(failed.chunk)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except: the error's traceback holds the tensors that did not fit.
        now = next_try(failed, first_chunk=first_chunk, least_chunk=least_chunk)
        print(f"out of memory with {failed}; next: {now}", flush=True)
        free_caches()
        if now is not None and failed.on_gpu and not now.on_gpu:
            to_processor()
    raise EngineUnavailable(
        "out of memory: it fits neither the GPU nor the machine, however small the pieces"
    )


def load_where_it_fits(load: Callable[[Placement], Result], placement: Placement) -> Result:
    """`load(placement)`; on the processor where somebody has taken the GPU's room since it was measured."""
    try:
        return load(placement)
    except (MemoryError, RuntimeError) as error:
        if not placement.is_gpu or not is_out_of_memory(error):
            raise
    print(f"out of memory on {placement.device}; loading on the processor", flush=True)
    free_caches()
    return load(Placement("cpu", "float32"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is one of the many ways in which PyTorch, CTranslate2 and CUDA say it."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _SIGNS)


def free_caches() -> None:
    """Give back what is not in use, to Python and to the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
