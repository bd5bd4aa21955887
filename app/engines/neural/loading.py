"""What the neural engines share: where a model comes from, its random numbers, sound in and out of tensors.

A model is a local folder or a name at the hub, with an optional `@revision`. Nothing is fetched when
HF_HUB_OFFLINE is set. No model may bring code of its own to run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engines.base import EngineError, Progress
from app.engines.neural.catalog import Named
from app.engines.neural.placement import Placement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST_INPUT_S = 4 * 3600.0
_SENTENCE = re.compile(r"(?<=[.!?।…。！？])\s+|\n+")


def source_of(named: Named) -> dict[str, Any]:
    """The arguments of `from_pretrained` that say where the weights are; gated ones need HF_TOKEN."""
    if named.folder is not None:
        return {"pretrained_model_name_or_path": str(named.folder), "local_files_only": True}
    name, _, revision = named.name.partition("@")
    return {"pretrained_model_name_or_path": name, **({"revision": revision} if revision else {})}


def dtype_of(placement: Placement) -> Any:
    """The torch dtype of a placement; int8 is for CTranslate2, which does not ask here."""
    import torch

    return getattr(torch, placement.precision)


def sow(seed: int) -> None:
    """The same numbers again for the same seed, on the processor and on every GPU."""
    import torch

    torch.manual_seed(seed)


def to_samples(tensor: Any, *, frames: int | None = None) -> NDArray[np.float32]:
    """A tensor of (channels, frames) as samples of (frames, channels), never past full scale."""
    import numpy as np

    samples = np.ascontiguousarray(tensor.detach().to("cpu").float().numpy().T)
    if not np.isfinite(samples).all():
        raise EngineError("the model produced numbers that are no sound")
    peak = np.float32(np.abs(samples).max(initial=0.0))
    scaled: NDArray[np.float32] = (samples / peak if peak > 1 else samples).astype(np.float32, copy=False)
    return scaled[:frames]


def read_sound(file: Path, *, sample_rate: int, channels: int) -> NDArray[np.float32]:
    """A file as (channels, frames) at this rate. Raises EngineError where it holds no sound, or too much."""
    import av
    import numpy as np

    layout = "mono" if channels == 1 else "stereo"
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=sample_rate)
    blocks: list[NDArray[np.float32]] = []
    frames = 0
    try:
        with av.open(str(file), metadata_errors="ignore") as container:
            for frame in container.decode(audio=0):
                for block in resampler.resample(frame):
                    blocks.append(block.to_ndarray())
                    frames += blocks[-1].shape[1]
                if frames > LONGEST_INPUT_S * sample_rate:
                    raise EngineError(f"audio: longer than {LONGEST_INPUT_S:g} s")
            blocks += [block.to_ndarray() for block in resampler.resample(None)]
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise EngineError(f"audio: cannot be read as sound: {error}") from error
    if not blocks:
        raise EngineError("audio: there is no sound in it")
    return np.concatenate(blocks, axis=1)


def sentences_of(text: str, *, longest: int) -> list[str]:
    """A text in pieces of at most so many characters, at the ends of sentences where there are any."""
    pieces = []
    for sentence in _SENTENCE.split(text):
        words = sentence.split()
        piece = ""
        for word in words:
            if piece and len(piece) + 1 + len(word) > longest:
                pieces.append(piece)
                piece = ""
            piece = f"{piece} {word}".strip()
        if piece:
            pieces.append(piece)
    return pieces


def token_progress(report: Progress, expected: int, *, done: float, share: float, step: str) -> Any:
    """A stopping criterion that never stops: it is where `generate` lets Python in, once a token."""
    import torch
    import transformers

    class Listener(transformers.StoppingCriteria):  # type: ignore[misc]  # not followed by mypy
        def __init__(self) -> None:
            self.tokens = 0

        def __call__(self, input_ids: Any, _scores: Any, **_more: Any) -> Any:
            self.tokens += 1
            report(done + share * min(1.0, self.tokens / max(1, expected)), step)
            return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)

    return transformers.StoppingCriteriaList([Listener()])
