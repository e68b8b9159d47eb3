"""What a pickle may hold and the functions that it may name, each from data to data.

A global is only a ``Name``, and objects of the network libraries are ``Record``s: a name and attributes.
"""

import math
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Literal, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

# A view with steps of zero can be larger than what it looks at; nothing trained is.
_MOST_REPEATED = 2**24


class Name(NamedTuple):
    """A global that a pickle mentions.  Never resolved."""

    module: str
    attribute: str

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


@dataclass(eq=False)
class Record:
    """An object of a class that is not here: what it is called and what it holds."""

    name: str
    state: Any = field(default_factory=dict, repr=False)


@dataclass(eq=False)
class Dtype:
    """A NumPy dtype, whose byte order arrives after it has been made."""

    code: str
    order: str = "="

    def numpy(self) -> np.dtype:
        """The dtype.

        Raises:
          ValueError: it holds Python objects or fields, which no checkpoint needs.
        """
        dtype = np.dtype(self.code)
        if dtype.hasobject or dtype.names is not None:
            raise ValueError(f"an array of {dtype}")
        order = cast(Literal["<", ">", "=", "|"], self.order)
        return dtype.newbyteorder(order)


class Storage(NamedTuple):
    """The flat memory behind tensors, ``(n,)``."""

    values: np.ndarray


STORAGES: dict[str, type[np.generic]] = {
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": jnp.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
    "torch.ComplexFloatStorage": np.complex64,
    "torch.ComplexDoubleStorage": np.complex128,
    "torch.storage.UntypedStorage": np.uint8,
    "torch.UntypedStorage": np.uint8,
}
DTYPES: dict[str, type[np.generic]] = {
    "torch.float32": np.float32,
    "torch.float64": np.float64,
    "torch.float16": np.float16,
    "torch.bfloat16": jnp.bfloat16,
    "torch.int64": np.int64,
    "torch.int32": np.int32,
    "torch.int16": np.int16,
    "torch.int8": np.int8,
    "torch.uint8": np.uint8,
    "torch.uint16": np.uint16,
    "torch.uint32": np.uint32,
    "torch.uint64": np.uint64,
    "torch.bool": np.bool_,
}
RECORDS = ("torch.nn.", "torch_utils.persistence.")


# --- the functions that a pickle may name: data in, data out ---------------------------------------


def _tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: object) -> np.ndarray:
    """A view of a storage, checked against its bounds."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if len(size) != len(stride) or min((*size, *stride, offset), default=0) < 0:
        raise ValueError(f"a tensor of size {size} and stride {stride} at {offset}")
    count, have = math.prod(size), storage.values.size
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count and (last >= have or count > max(have, _MOST_REPEATED)):
        raise ValueError(f"a tensor of size {size} in a storage of {have} numbers")
    values = storage.values[offset:] if count else storage.values[:0]
    steps = tuple(step * values.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(values, size, steps, writeable=False)


def _tensor_of_dtype(storage: Storage, offset: int, size: tuple, stride: tuple, *rest: object) -> np.ndarray:
    dtype = rest[2]
    if str(dtype) not in DTYPES:
        raise ValueError(f"a tensor of {dtype}")
    return _tensor(Storage(storage.values.view(DTYPES[str(dtype)])), offset, size, stride)


def _numpy_scalar(dtype: Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.numpy(), count=1)[0]


def _numpy_buffer(data: bytes, dtype: Dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(data, dtype.numpy()).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    if encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError(f"text encoded as {encoding!r}")
    return text.encode(encoding)


def _persistent(meta: dict) -> Record:
    """A network of EDM or StyleGAN, which carries the source of its class: the source is left alone."""
    return Record(str(meta["class_name"]), meta["state"])


def as_dict(*arguments: Any) -> dict:
    """A dictionary of the last argument: pairs, a dictionary, or nothing.

    Raises:
      ValueError: a key that is no number or text.
    """
    pairs = arguments[-1] if arguments and not isinstance(arguments[-1], Name) else ()
    pairs = list(pairs.items() if isinstance(pairs, dict) else pairs)
    _check_keys([key for key, _ in pairs])
    return dict(pairs)


def as_set(items: Iterable[Hashable] = ()) -> set:
    """A set.

    Raises:
      ValueError: as ``as_dict``.
    """
    _check_keys(items)
    return set(items)


def _check_keys(keys: Iterable[object]) -> None:
    """Nothing nested: the hash of a deep tuple overflows the stack of the interpreter."""
    for key in keys:
        if type(key) not in (str, int, bool, float, bytes, NoneType):
            raise ValueError(f"a key of type {type(key).__name__}")


CALLS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": as_dict,
    "collections.defaultdict": as_dict,
    "collections.Counter": as_dict,
    "dnnlib.util.EasyDict": as_dict,
    "builtins.set": as_set,
    "_codecs.encode": _encode,
    "numpy.dtype": lambda code, *_: Dtype(str(code)),
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": lambda *_: np.empty(0, np.int8),
    "numpy.core.numeric._frombuffer": _numpy_buffer,
    "torch.Size": lambda size=(): tuple(size),
    "torch.device": lambda kind, *_: str(kind),
    "torch.serialization._get_layout": str,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
}
# The same function under the names of other versions.
ALIASES = {
    "__builtin__.": "builtins.",
    "numpy._core.": "numpy.core.",
    "copy_reg.": "copyreg.",
}


def canonical(name: Name) -> str:
    """The name under which ``CALLS`` has a function."""
    full = str(name)
    for theirs, ours in ALIASES.items():
        if full.startswith(theirs):
            return ours + full.removeprefix(theirs)
    return full
