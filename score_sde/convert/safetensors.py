"""The safetensors format: eight bytes of header length, a JSON header, and the memory of the tensors.

Format: https://github.com/huggingface/safetensors (little-endian, row-major, offsets from the end of the
header).
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from score_sde.convert.errors import CheckpointError

DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_LONGEST_HEADER = 100_000_000  # bytes, as in the reference implementation
_METADATA = "__metadata__"


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file by name, and its metadata.

    Raises:
      CheckpointError: it is cut off or inconsistent; does not name the file.
    """
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise CheckpointError(f"cut off, or no safetensors: a header of {length} bytes in {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop(_METADATA, {})
        memory = memoryview(data)[8 + length :]
        return {name: _tensor(name, entry, memory) for name, entry in header.items()}, dict(metadata)
    except CheckpointError:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"a damaged safetensors header: {error!r}") from error


def _tensor(name: str, entry: Mapping[str, Any], memory: memoryview) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise CheckpointError(f"{name} has the dtype {entry['dtype']}, which is unknown")
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(map(int, entry["shape"]))
    start, end = map(int, entry["data_offsets"])
    if min((*shape, start), default=start) < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise CheckpointError(f"{name} of shape {shape} and bytes {start} to {end}: inconsistent")
    if end > len(memory):
        raise CheckpointError(f"cut off: {name} ends at byte {end} of {len(memory)}")
    return np.frombuffer(memory[start:end], dtype).reshape(shape)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata, whole or not at all."""
    codes = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": codes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    fresh = path.with_name(path.name + ".tmp")
    try:
        with fresh.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in tensors.values():
                file.write(np.ascontiguousarray(array).tobytes())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
