"""TensorFlow's checkpoint files, read without TensorFlow: tensors by name.

A checkpoint is a table of `BundleEntryProto` by tensor name (`model.index`, the format of LevelDB's sorted
tables) and the bytes of all tensors one after the other (`model.data-…`). Only what Spleeter's has is read:
one shard, uncompressed blocks, float32. Both files are proven before they come here, so what is wrong with
them is a fault of ours and not typed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
_FLOAT32 = 1
_DTYPE, _SHAPE, _OFFSET, _SIZE = 1, 2, 4, 5
"""Fields of BundleEntryProto."""


def read_tensors(index: bytes, data: bytes | bytearray) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a checkpoint by name; views of `data`, not copies."""
    import numpy as np

    tensors: dict[str, NDArray[np.float32]] = {}
    for name, entry in _entries(index):
        fields = dict(_fields(entry))
        if not name or fields.get(_DTYPE) != _FLOAT32:
            continue
        at, size = int(fields.get(_OFFSET, 0)), int(fields[_SIZE])
        flat = np.frombuffer(data, "<f4", count=size // 4, offset=at)
        tensors[name.decode()] = flat.reshape(_shape(bytes(fields.get(_SHAPE, b""))))
    return tensors


def _entries(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted table: its footer leads to the block of blocks."""
    footer = index[-_FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise ValueError("not a sorted table")
    at = 0
    handles = []
    for _ in range(4):  # offset and size of the meta block, then of the index block
        handle, at = _varint(footer, at)
        handles.append(handle)
    for _, place in _block(index, handles[2], handles[3]):
        offset, at = _varint(place, 0)
        size, _ = _varint(place, at)
        yield from _block(index, offset, size)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; each key is told by what it shares with the one before."""
    block = table[offset : offset + size]
    if table[offset + size]:
        raise ValueError("a compressed block")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer: numbers as such, everything longer as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        match tag & 7:
            case 0:
                value, at = _varint(message, at)
            case 2:
                length, at = _varint(message, at)
                value, at = message[at : at + length], at + length
            case wire:
                length = 8 if wire == 1 else 4
                value, at = message[at : at + length], at + length
        yield tag >> 3, value


def _shape(message: bytes) -> list[int]:
    """TensorShapeProto: a `dim` each (field 2), whose size is its field 1."""
    dims = [dict(_fields(bytes(value))) for number, value in _fields(message) if number == 2]
    return [int(dim.get(1, 0)) for dim in dims]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
