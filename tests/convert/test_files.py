"""Files of others as data: what torch, NumPy and Flax write is read, what would run code is refused."""

import builtins
import io
import os
import pickle
import pickletools
import struct
import sys
from collections import OrderedDict, defaultdict

import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.convert import CheckpointError, UnsafePickle, read, safetensors
from score_sde.convert.inert import Name, Record
from score_sde.convert.pickles import Machine
from score_sde.convert.torch_files import read_pickle, read_zip
from tests.convert.torch_writer import STUBS, Storage, Tensor, legacy_bytes, plain_bytes, save_zip, stub


def machine(data):
    return Machine().run(io.BytesIO(data))


SHARED = Storage(np.arange(24, dtype=np.float32))
VIEWS = {
    "whole": (Tensor(SHARED, (2, 3, 4)), np.arange(24).reshape(2, 3, 4)),
    "transposed": (Tensor(SHARED, (4, 6), (1, 4)), np.arange(24).reshape(6, 4).T),
    "inner": (Tensor(SHARED, (2, 2), (12, 2), 5), [[5, 7], [17, 19]]),
    "scalar": (Tensor(SHARED, (), (), 7), 7),
    "none": (Tensor(SHARED, (0, 3)), np.zeros((0, 3))),
    "repeated": (Tensor(SHARED, (3, 2), (0, 1)), [[0, 1]] * 3),
}


def values(kind):
    return np.array([0, 1, 1, 0]) if kind == np.bool_ else np.array([1, 2, 100, 7])


DTYPES = [np.float32, np.float64, np.float16, jnp.bfloat16, np.int64, np.uint8, np.bool_]


@pytest.mark.parametrize("container", ["zip", "legacy", "plain"])
def test_views_and_dtypes_of_tensors(container, tmp_path):
    typed = {np.dtype(kind).name: Tensor.of(values(kind).astype(kind)) for kind in DTYPES}
    saved = OrderedDict({**{name: view for name, (view, _) in VIEWS.items()}, **typed})
    saved["parameter"] = Tensor.of(np.float32([1, 2]), parameter=True)
    if container == "zip":
        loaded = read_zip(save_zip(tmp_path / "x.pt", saved))
    else:
        loaded = read_pickle(io.BytesIO(legacy_bytes(saved) if container == "legacy" else plain_bytes(saved)))
    assert list(loaded) == list(saved)
    for name, (_, want) in VIEWS.items():
        np.testing.assert_array_equal(loaded[name], want, strict=False)
        assert loaded[name].shape == np.shape(want)
    for kind in DTYPES:
        array = loaded[np.dtype(kind).name]
        assert array.dtype == kind
        np.testing.assert_array_equal(array.astype(np.float64), values(kind))
    np.testing.assert_array_equal(loaded["parameter"], [1, 2])
    if container != "plain":  # one memory, as before
        assert np.shares_memory(loaded["whole"], loaded["transposed"])


def test_a_file_of_the_other_byte_order(tmp_path):
    swapped = Storage(np.float32([1.5, -2]).byteswap())
    path = save_zip(tmp_path / "x.pt", {"a": Tensor(swapped, (2,))}, byteorder=b"big")
    np.testing.assert_array_equal(read_zip(path)["a"], [1.5, -2])


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_the_standard_library_and_numpy_write(protocol):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    saved = {
        "array": array,
        "fortran": np.asfortranarray(array),
        "big": array.astype(">f4"),
        "scalar": np.float64(2e-4),
        "integer": np.int64(-7),
        "flag": np.bool_(True),
        "ordered": OrderedDict(a=1, b=[1.5, None, True]),
        "default": defaultdict(list, {"k": [1]}),
        "tuple": (1, (2, 3), ()),
        "set": {1, 2},
        "bytes": b"\x00\xff",
        "long": 2**70,
        "same": [array, array],
    }
    loaded = machine(pickle.dumps(saved, protocol=protocol))
    for name in ("array", "fortran", "big"):
        np.testing.assert_array_equal(loaded[name], array)
    for name in ("scalar", "integer", "flag", "ordered", "default", "tuple", "set", "bytes", "long"):
        assert loaded[name] == saved[name]
    assert loaded["same"][0] is loaded["same"][1]


def test_objects_of_libraries_become_records():
    container = stub("torch.nn.modules.container", "ModuleDict")
    linear = stub("torch.nn.modules.linear", "Linear")
    made, inner = container(), linear()
    made.training, made.inner, inner.bias = False, inner, Tensor.of(np.float32([3]))
    stubs = {("torch.nn.modules.container", "ModuleDict"): container}
    stubs |= {("torch.nn.modules.linear", "Linear"): linear}
    record = read_pickle(io.BytesIO(plain_bytes(made, stubs)))
    assert isinstance(record, Record)
    assert record.name == "torch.nn.modules.container.ModuleDict"
    assert record.state["training"] is False
    assert record.state["inner"].name == "torch.nn.modules.linear.Linear"
    np.testing.assert_array_equal(record.state["inner"].state["bias"], [3])


# --- what must not happen --------------------------------------------------------------------------


class Call:
    """Pickles as a call of ``function(*arguments)``, and then sets ``state``."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts if self.parts[2] is not None else self.parts[:2]


def code(*instructions):
    return b"\x80\x02" + b"".join(instructions) + b"."


ALLOWED = b"ccollections\nOrderedDict\n"
ATTACKS = {
    "posix.system": pickle.dumps(Call(os.system, "touch attacked")),
    "builtins.eval": pickle.dumps({"model": Call(eval, "open('attacked', 'w')")}, protocol=4),
    "builtins.exec": pickle.dumps([Call(exec, "open('attacked', 'w')")], protocol=4),
    "builtins.getattr": pickle.dumps(Call(getattr, "", "join")),
    "builtins.__import__": pickle.dumps(Call(__import__, "os")),
    "subprocess.Popen": code(b"csubprocess\nPopen\n", b"(", b"X\x02\x00\x00\x00ls", b"t", b"R"),
    "numpy.load": code(b"cnumpy\nload\n", b"(", b"X\x01\x00\x00\x00x", b"t", b"R"),
    "torch.load": code(b"ctorch\nload\n", b"(", b"X\x01\x00\x00\x00x", b"t", b"R"),
    # A class is called without being named in a call: NEWOBJ.
    "os.popen": code(b"cos\npopen\n", b")", b"\x81"),
    # Attributes of what is allowed must not change: BUILD on a function, a class, a result.
    "set attributes of collections.OrderedDict": code(
        ALLOWED, b"(N}X\x08\x00\x00\x00__init__cos\nsystem\nstb"
    ),
    "set attributes of a list": code(b"]", b"}X\x01\x00\x00\x00aK\x01s", b"b"),
    "write into collections.OrderedDict as into a dict": code(ALLOWED, b"X\x01\x00\x00\x00aK\x01s"),
    # What a call has returned is called.
    "call a dict": code(ALLOWED, b")R", b")R"),
    "the instruction INST": b"(ios\nsystem\n.",
    "the instruction EXT1": code(b"\x82\x01"),
    "refers to something outside": code(b"X\x01\x00\x00\x00a", b"Q"),
    # A global that is named by a string subclass or a number.
    "names a global by something": code(b"K\x01K\x02\x93"),
    # Dotted names reach through modules when the standard library resolves them.
    "collections.abc.sys.modules.get": code(
        b"\x8c\x0fcollections.abc", b"\x8c\x0fsys.modules.get", b"\x93", b")R"
    ),
}


@pytest.mark.parametrize("wanted", ATTACKS)
def test_attacks_are_refused_by_name(wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = OrderedDict.__init__, dict(vars(Machine)), os.system, builtins.eval
    with pytest.raises(UnsafePickle, match=wanted.replace(".", r"\.")):
        read_pickle(io.BytesIO(ATTACKS[wanted]))
    assert not list(tmp_path.iterdir())
    assert before == (OrderedDict.__init__, dict(vars(Machine)), os.system, builtins.eval)


def test_an_attack_within_the_bytes_of_a_storage():
    evil = Call(STUBS[("torch.storage", "_load_from_bytes")], ATTACKS["posix.system"])
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        read_pickle(io.BytesIO(plain_bytes(evil)))


def test_files_within_files_within_files():
    data = pickle.dumps(1)
    for _ in range(5):
        data = plain_bytes(Call(STUBS[("torch.storage", "_load_from_bytes")], data))
    with pytest.raises(CheckpointError, match="within files"):
        read_pickle(io.BytesIO(data))


def test_globals_are_never_imported():
    """Not even looked up: a module that is named would run on import."""
    assert "antigravity" not in sys.modules
    assert machine(code(b"cantigravity\nfly\n")) == Name("antigravity", "fly")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((25,), (1,), 0),
        ((2,), (24,), 0),
        ((2,), (-1,), 5),
        ((1,), (1,), 24),
        ((1,), (1,), -1),
        ((2**40,), (0,), 0),
    ],
)
def test_tensors_stay_within_their_storage(size, stride, offset, tmp_path):
    path = save_zip(tmp_path / "x.pt", Tensor(SHARED, size, stride, offset))
    with pytest.raises(CheckpointError, match="a tensor of size"):
        read_zip(path)


def test_compressed_archives_are_refused(tmp_path):
    path = save_zip(tmp_path / "x.pt", Tensor.of(np.zeros(100, np.float32)), compression=8)
    with pytest.raises(CheckpointError, match="compressed"):
        read_zip(path)


def test_deep_keys_are_refused():
    key = ()
    for _ in range(50):
        key = (key,)
    with pytest.raises(CheckpointError, match="a key of type tuple"):
        machine(pickle.dumps({key: 1}))


def test_arrays_of_objects_are_refused():
    with pytest.raises(CheckpointError, match="an array of object"):
        machine(pickle.dumps(np.array([os.system, None], dtype=object)))


@pytest.mark.parametrize("kind", ["legacy", "plain", "zip"])
def test_every_truncation_is_an_error_of_ours(kind, tmp_path):
    saved = {"a": Tensor.of(np.float32([1, 2])), "b": np.arange(3), "c": [1.5, "text", None]}
    path = tmp_path / "x.pt"
    if kind == "zip":
        data, read = save_zip(path, saved).read_bytes(), read_zip
    else:
        data = legacy_bytes(saved) if kind == "legacy" else plain_bytes(saved)

        def read(path):
            return read_pickle(io.BytesIO(path.read_bytes()))

    path.write_bytes(data)
    assert list(read(path)) == list(saved)
    for length in range(1, len(data) - 1, 7):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read(path)


def test_random_damage_is_an_error_or_other_data():
    """Whatever the instructions are, no other exception comes out."""
    data = bytearray(plain_bytes({"a": Tensor.of(np.float32([1, 2])), "b": np.arange(3), "c": (1, {2})}))
    random = np.random.default_rng(0)
    outcomes = {"error": 0, "data": 0}
    for _ in range(2000):
        damaged = bytearray(data)
        damaged[random.integers(2, len(data))] = random.integers(256)
        try:
            read_pickle(io.BytesIO(bytes(damaged)))
            outcomes["data"] += 1
        except CheckpointError:
            outcomes["error"] += 1
    assert min(outcomes.values()) > 100


def test_the_attacks_are_pickles():
    """They would run in the standard library; pickletools can at least read each to its end."""
    for data in ATTACKS.values():
        assert list(pickletools.genops(data))[-1][0].name == "STOP"


# --- safetensors -----------------------------------------------------------------------------------


def safetensors_bytes(header, memory=b""):
    text = header if isinstance(header, bytes) else repr(header).replace("'", '"').encode()
    return struct.pack("<Q", len(text)) + text + memory


def test_safetensors_round_trip(tmp_path):
    tensors = {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([1.5, -2], jnp.bfloat16),
        "scalar": np.asarray(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
    }
    safetensors.write(tmp_path / "x.safetensors", tensors, {"about": '{"a": 1}'})
    loaded, metadata = safetensors.read(tmp_path / "x.safetensors")
    assert metadata == {"about": '{"a": 1}'}
    for name, array in tensors.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_safetensors_of_the_specification(tmp_path):
    """Bytes written by hand from the published format."""
    header = {"t": {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}}
    (tmp_path / "x").write_bytes(safetensors_bytes(header, b"\x00\x3c\x00\xc0"))
    np.testing.assert_array_equal(safetensors.read(tmp_path / "x")[0]["t"], [[1, -2]])


def entry(dtype="F32", shape=(1,), start=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header too small"),
        (b"\x01", "header too small"),
        (struct.pack("<Q", 2**62) + b"{}", "header too large"),
        (struct.pack("<Q", 99) + b"{}", "invalid header length"),
        (b"PK\x03\x04" * 9, "no safetensors"),
        (safetensors_bytes(b"{]"), "invalid JSON"),
        (safetensors_bytes(b"[1]"), "invalid JSON"),
        (safetensors_bytes({"t": entry()}, b"12"), "not fully covered"),
        (safetensors_bytes({"t": entry()}, b"12345678"), "not fully covered"),
        (safetensors_bytes({"t": entry(shape=[2])}, b"1234"), "invalid shape"),
        (safetensors_bytes({"t": entry(start=4, end=8)}, b"12345678"), "invalid offset"),
        (safetensors_bytes({"t": entry(), "u": entry()}, b"1234"), "invalid offset"),  # they overlap
        (safetensors_bytes({"t": entry(shape=[-1, -1])}, b"1234"), "-1"),
        (safetensors_bytes({"t": entry(start=-4, end=0)}, b"1234"), "-4"),
        (safetensors_bytes({"t": entry("Q7")}, b"1234"), "Q7"),
        (safetensors_bytes({"t": entry("F8_E8M0", [4])}, b"1234"), "t has the dtype F8_E8M0"),
    ],
)
def test_damaged_safetensors(data, message, tmp_path):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        safetensors.read(tmp_path / "x")


def test_a_damaged_safetensors_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"t": entry()}, b"12"))
    with pytest.raises(CheckpointError, match="model.safetensors.*not fully covered"):
        read(path)


def test_arrays_with_strides_are_written_as_they_read(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    safetensors.write(tmp_path / "x", {"t": array}, {})
    np.testing.assert_array_equal(safetensors.read(tmp_path / "x")[0]["t"], array)
