"""Spleeter's U-Net as an ONNX graph, one for each stem, with the weights of its checkpoint.

Owns the architecture (Hennequin et al., Spleeter, JOSS 2020; Jansson et al., ISMIR 2017): six convolutions of
stride 2 down, six transposed ones up with what was on the way down beside them, and a last one whose sigmoid
scales the input. In and out: magnitudes of shape (batch, 2 channels, 512 frames, 1024 bins).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHANNELS, FRAMES, BINS = 2, 512, 1024
_DEPTH = 6
_EPSILON = 1e-3
_LEAK = 0.2
_OPSET, _IR_VERSION = 15, 9
_SAME = [1, 1, 2, 2]
"""The padding that TensorFlow calls `same`, for kernels of 5 with stride 2."""


def build(tensors: Mapping[str, NDArray[np.float32]], stem: int) -> bytes:
    """The serialized model of stem 0 or 1, in the checkpoint's order. Raises ValueError from onnx's check."""
    import onnx

    graph = _Graph(tensors, stem)
    skips: list[str] = []
    at = "mix"
    for level in range(_DEPTH):
        at = graph.convolve(at)
        skips.append(at)
        if level < _DEPTH - 1:
            at = graph.add("LeakyRelu", [graph.normalize(at)], alpha=_LEAK)
    graph.pass_over("batch_normalization")  # the deepest level has one that nothing reads
    for level in range(_DEPTH):
        at = graph.normalize(graph.add("Relu", [graph.convolve_back(at)]))
        if level < _DEPTH - 1:
            at = graph.add("Concat", [skips[_DEPTH - 2 - level], at], axis=1)
    mask = graph.add("Sigmoid", [graph.convolve(at, strides=None, pads=[3, 3, 3, 3], dilations=[2, 2])])
    model = graph.close(graph.add("Mul", [mask, "mix"]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class _Graph:
    """Nodes in order, and which of the checkpoint's layers is next.

    TensorFlow numbers layers as they were made, those of the second stem after those of the first.
    """

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], stem: int) -> None:
        self._tensors = tensors
        self._next = {
            "conv2d": (_DEPTH + 1) * stem,
            "conv2d_transpose": _DEPTH * stem,
            "batch_normalization": 2 * _DEPTH * stem,
        }
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, operation: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node; the name of what comes out of it."""
        from onnx import helper

        out = f"n{len(self._nodes)}"
        given = {name: value for name, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(operation, list(inputs), [out], **given))
        return out

    def convolve(
        self,
        at: str,
        *,
        strides: Sequence[int] | None = (2, 2),
        pads: Sequence[int] = tuple(_SAME),
        dilations: Sequence[int] | None = None,
    ) -> str:
        layer = self._take("conv2d")
        weights = [self._kernel(layer), self._constant(f"{layer}/bias")]
        return self.add("Conv", [at, *weights], strides=strides, pads=pads, dilations=dilations)

    def convolve_back(self, at: str) -> str:
        layer = self._take("conv2d_transpose")
        weights = [self._kernel(layer), self._constant(f"{layer}/bias")]
        return self.add("ConvTranspose", [at, *weights], strides=[2, 2], pads=_SAME)

    def normalize(self, at: str) -> str:
        layer = self._take("batch_normalization")
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        figures = [self._constant(f"{layer}/{name}") for name in names]
        return self.add("BatchNormalization", [at, *figures], epsilon=_EPSILON)

    def close(self, out: str) -> Any:
        from onnx import TensorProto, helper

        shape = ["batch", CHANNELS, FRAMES, BINS]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("mix", out)]
        graph = helper.make_graph(self._nodes, "unet", ends[:1], ends[1:], self._constants)
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)

    def pass_over(self, layer: str) -> None:
        self._take(layer)

    def _take(self, layer: str) -> str:
        number = self._next[layer]
        self._next[layer] += 1
        return layer if number == 0 else f"{layer}_{number}"

    def _kernel(self, layer: str) -> str:
        # From (height, width, in, out) to (out, in, height, width); a transposed one has in and out swapped.
        return self._constant(f"{layer}/kernel", axes=(3, 2, 0, 1))

    def _constant(self, name: str, axes: Sequence[int] | None = None) -> str:
        import numpy as np
        from onnx import numpy_helper

        values = self._tensors[name]
        values = values if axes is None else values.transpose(axes)
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name
