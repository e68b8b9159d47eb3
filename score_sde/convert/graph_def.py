"""The constants of a frozen TensorFlow graph (``GraphDef``, a ``.pb`` file), without TensorFlow.

A protocol buffer is a sequence of fields, each a number, a wire type and a value
(https://protobuf.dev/programming-guides/encoding).  Only the fields that hold a float32 constant are looked
at: ``GraphDef.node = 1``; ``NodeDef.name = 1, op = 2, attr = 5``; ``AttrValue.tensor = 8``;
``TensorProto.dtype = 1, tensor_shape = 2, tensor_content = 4, float_val = 5``;
``TensorShapeProto.dim = 2, Dim.size = 1``.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from score_sde.convert.errors import CheckpointError

_FLOAT = 1  # DataType.DT_FLOAT
_FIXED = {1: 8, 5: 4}  # wire types of so many bytes
_LONGEST = 10  # bytes of a variable-length integer

Field = tuple[int, int | memoryview]


def read(path: Path) -> dict[str, np.ndarray]:
    """The float32 constants of a graph by the names of their nodes.

    Raises:
      CheckpointError: it is cut off or no such file; does not name the file.
    """
    constants = {}
    for number, node in fields(memoryview(path.read_bytes())):
        if number != 1 or isinstance(node, int):
            continue
        parts = list(fields(node))
        names = {key: bytes(part) for key, part in parts if key in (1, 2) and not isinstance(part, int)}
        if names.get(2) != b"Const":
            continue
        name = names.get(1, b"").decode("utf-8", "replace")
        attributes = [dict(fields(_message(part))) for key, part in parts if key == 5]
        for attribute in attributes:
            if attribute.get(1) == b"value":
                tensor = dict(fields(_message(attribute.get(2, 0)))).get(8, 0)
                constant = _constant(name, _message(tensor))
                if constant is not None:
                    constants[name] = constant
    if not constants:
        raise CheckpointError("no graph of TensorFlow: it holds no constants")
    return constants


def fields(message: memoryview) -> Iterator[Field]:
    """Numbers and values of the fields of a message, in order: integers, or the bytes of anything else.

    Raises:
      CheckpointError: it is cut off, or no protocol buffer.
    """
    place = 0
    while place < len(message):
        key, place = _integer(message, place)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, place = _integer(message, place)
            yield number, value
            continue
        if kind == 2:
            size, place = _integer(message, place)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise CheckpointError(f"no protocol buffer: a field of wire type {kind}")
        if size > len(message) - place:
            raise CheckpointError(
                f"cut off: a field of {size} bytes, of which {len(message) - place} are left"
            )
        yield number, message[place : place + size]
        place += size


def _integer(message: memoryview, place: int) -> tuple[int, int]:
    """A variable-length integer, seven bits a byte from the lowest, and where it ends."""
    value = 0
    for i, byte in enumerate(message[place : place + _LONGEST]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, place + i + 1
    raise CheckpointError("cut off, or no protocol buffer: an integer that does not end")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise CheckpointError("a damaged graph: a number where a message should be")
    return value


def _constant(name: str, tensor: memoryview) -> np.ndarray | None:
    """The array of a ``TensorProto``; None for other types than float32."""
    parts = list(fields(tensor))
    if dict(parts).get(1) != _FLOAT:
        return None
    shape = tuple(
        int(dict(fields(_message(dim))).get(1, 0))  # type: ignore[arg-type]
        for key, part in parts
        if key == 2
        for inner, dim in fields(_message(part))
        if inner == 2
    )
    content = b"".join(bytes(_message(part)) for key, part in parts if key in (4, 5))
    values, count = np.frombuffer(content[: len(content) // 4 * 4], "<f4"), math.prod(shape)
    if len(values) == 1:  # one number stands for all
        return np.full(shape, values[0]) if count < 2**31 else None
    if len(content) != 4 * count:
        raise CheckpointError(f"{name} of shape {shape} has {len(content)} bytes, not {4 * count}")
    return values.reshape(shape)
