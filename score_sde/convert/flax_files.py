"""Files of ``flax.serialization``: msgpack, with arrays as extensions.

Extension 1 is an array and 3 a NumPy scalar, both packed again as (shape, dtype, bytes); 2 is a complex
number.  A large array is a dictionary of its pieces.  No Flax is needed to read them.
"""

import math
from pathlib import Path

import jax.numpy as jnp
import msgpack
import numpy as np

from score_sde.arrays import Tree
from score_sde.convert.errors import CheckpointError

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {
    *("float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128"),
}


def read(path: Path) -> Tree:
    """The tree of a file: dictionaries with string keys, arrays and numbers.

    Raises:
      CheckpointError: it is cut off, or holds something else; does not name the file.
    """
    data = path.read_bytes()
    try:
        tree = msgpack.unpackb(
            data,
            ext_hook=_extension,
            raw=False,
            strict_map_key=False,
            # What is written cannot be larger than the file.
            **{f"max_{kind}_len": len(data) for kind in ("str", "bin", "array", "map", "ext")},
        )
    except CheckpointError:
        raise
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError, TypeError) as error:
        raise CheckpointError(f"cut off or damaged msgpack ({type(error).__name__}: {error})") from error
    return _joined(tree)


def _extension(code: int, data: bytes) -> np.ndarray | np.generic | complex:
    if code == _COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (_ARRAY, _SCALAR):
        raise CheckpointError(f"an extension of type {code}, which Flax does not write")
    shape, name, memory = msgpack.unpackb(data, raw=False, max_bin_len=len(data))
    if name != "bfloat16" and name not in _DTYPES:
        raise CheckpointError(f"an array of {name!r}")
    array = np.frombuffer(memory, jnp.bfloat16 if name == "bfloat16" else name).reshape(shape)
    return array if code == _ARRAY else array[()]


def _joined(tree: Tree) -> Tree:
    """The tree with every array in one piece."""
    if not isinstance(tree, dict):
        return [_joined(item) for item in tree] if isinstance(tree, list) else tree
    if tree.get(_CHUNKED) is not True:
        return {str(key): _joined(value) for key, value in tree.items()}
    shape = [tree["shape"][str(i)] for i in range(len(tree["shape"]))]
    pieces = [tree["chunks"][str(i)] for i in range(len(tree["chunks"]))]
    whole = np.concatenate([np.ravel(piece) for piece in pieces])
    if whole.size != math.prod(shape):
        raise CheckpointError(f"an array of shape {shape} in pieces of {whole.size} numbers")
    return whole.reshape(shape)
