"""What torch writes, without torch: stand-ins for its globals, and its two file formats."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from contextlib import contextmanager

import jax.numpy as jnp
import numpy as np

KINDS = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(jnp.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}


def stub(module, name, kind=object):
    """A function or class that pickles as ``module.name`` and does nothing."""
    if kind is None:

        def made(*_):
            raise AssertionError("called")

    else:
        made = type(name, (kind,), {})
    made.__module__, made.__qualname__, made.__name__ = module, name, name
    return made


STUBS = {
    ("torch._utils", name): stub("torch._utils", name, None)
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter")
}
STUBS[("torch.storage", "_load_from_bytes")] = stub("torch.storage", "_load_from_bytes", None)
STUBS |= {("torch", kind): stub("torch", kind) for kind in KINDS.values()}


@contextmanager
def importable(stubs):
    """The stand-ins under their names, as the pickler asks for them."""
    names = {
        ".".join(module.split(".")[:i]) for module, _ in stubs for i in range(1, 1 + len(module.split(".")))
    }
    before = {name: sys.modules.get(name) for name in names}
    try:
        for name in names:
            sys.modules[name] = types.ModuleType(name)
        for (module, name), value in stubs.items():
            setattr(sys.modules[module], name, value)
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class Storage:
    def __init__(self, values):
        self.values = np.ascontiguousarray(values).reshape(-1)

    def __reduce__(self):  # in a plain pickle: a torch file of the older format
        return STUBS[("torch.storage", "_load_from_bytes")], (legacy_bytes(self),)


class Tensor:
    """A view of a storage, ``stride`` in numbers."""

    def __init__(self, storage, size, stride=None, offset=0, parameter=False):
        self.storage = storage if isinstance(storage, Storage) else Storage(storage)
        steps = [int(np.prod(size[i + 1 :])) for i in range(len(size))]
        self.args = (offset, tuple(size), tuple(steps if stride is None else stride))
        self.parameter = parameter

    @classmethod
    def of(cls, array, parameter=False):
        return cls(array, np.shape(array), parameter=parameter)

    def __reduce__(self):
        args = (self.storage, *self.args, False, OrderedDict())
        if not self.parameter:
            return STUBS[("torch._utils", "_rebuild_tensor_v2")], args
        plain = Tensor(self.storage, self.args[1], self.args[2], self.args[0])
        return STUBS[("torch._utils", "_rebuild_parameter")], (plain, True, OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, file, view_metadata=False):
        super().__init__(file, protocol=2)
        self.storages, self._extra = [], (None,) if view_metadata else ()

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        if obj not in self.storages:
            self.storages.append(obj)
        kind = STUBS[("torch", KINDS[obj.values.dtype])]
        return ("storage", kind, str(self.storages.index(obj)), "cpu", obj.values.size, *self._extra)


def save_zip(path, value, stubs=None, compression=zipfile.ZIP_STORED, byteorder=b"little"):
    """``torch.save`` since 1.6."""
    buffer = io.BytesIO()
    with importable(STUBS | (stubs or {})):
        pickler = Pickler(buffer)
        pickler.dump(value)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for i, storage in enumerate(pickler.storages):
            archive.writestr(f"archive/data/{i}", storage.values.tobytes())
        archive.writestr("archive/version", b"3\n")
    return path


def legacy_bytes(value):
    """``torch.save`` before 1.6."""
    buffer = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(part, buffer, protocol=2)
    with importable(STUBS):
        pickler = Pickler(buffer, view_metadata=True)
        pickler.dump(value)
    pickle.dump([str(i) for i in range(len(pickler.storages))], buffer, protocol=2)
    for storage in pickler.storages:
        buffer.write(storage.values.size.to_bytes(8, "little") + storage.values.tobytes())
    return buffer.getvalue()


def plain_bytes(value, stubs=None, protocol=4):
    """``pickle.dump`` of something that holds tensors."""
    with importable(STUBS | (stubs or {})):
        return pickle.dumps(value, protocol=protocol)
