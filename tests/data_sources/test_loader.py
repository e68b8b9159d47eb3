"""Batches: the same whatever the placement, the workers, the step resumed at and the processes."""

import itertools
import os
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.conditions import labelled
from score_sde.data import Batches, Digits, batch_indices, eval_batches, loader
from score_sde.data.base import Spec
from score_sde.data.loader import rows_of


def mesh_of(*shape):
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, ("data", "model")[: len(shape)])


def split_over(*shape, spec=("data",)):
    return NamedSharding(mesh_of(*shape), PartitionSpec(*spec))


def take(batches, step, count):
    iterator = batches.from_step(step)
    taken = [jax.tree.map(np.asarray, b) for b in itertools.islice(iterator, count)]
    iterator.close()
    return taken


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def expected(source, seed, steps, batch_size):
    return [source.read(batch_indices(seed, s, batch_size, len(source))) for s in steps]


class Numbered:
    """Example i is i everywhere: what is read can be told from what comes out."""

    def __init__(self, size, shape=(2, 2, 1), levels=256):
        self.spec = Spec(shape, levels, labelled(size))
        self.size = size

    def __len__(self):
        return self.size

    def read(self, indices):
        x = np.empty((len(indices), *self.spec.shape), self.spec.dtype)
        x[:] = np.reshape(indices, (-1,) + (1,) * len(self.spec.shape))
        return {"x": x, "label": np.asarray(indices, np.int32)}


class Failing(Numbered):
    def read(self, indices):
        raise ValueError("data.source.path: cannot use broken.png")


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("sharding", [None, (8,), (4, 2)])
def test_batches_are_what_the_order_says(placement, sharding):
    sharding = sharding and split_over(*sharding)
    source = Digits("train")
    batches = Batches(source, batch_size=64, seed=3, sharding=sharding, placement=placement)
    assert_same(take(batches, 20, 6), expected(source, 3, range(20, 26), 64))
    batch = next(batches.from_step(0))
    assert batch["x"].dtype == np.uint8 and batch["label"].dtype == np.int32
    if sharding is not None:
        assert batch["x"].sharding.is_equivalent_to(sharding, 4)
        assert batch["label"].sharding.is_equivalent_to(sharding, 1)


@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_worker_processes_change_nothing(workers):
    source = Digits("test")
    batches = Batches(source, batch_size=32, seed=1, placement="stream", num_workers=workers)
    assert_same(take(batches, 5, 7), expected(source, 1, range(5, 12), 32))


def test_errors_in_worker_processes_arrive():
    for workers in (0, 1):
        batches = Batches(Failing(10), batch_size=2, seed=0, placement="stream", num_workers=workers)
        with pytest.raises(ValueError, match="broken.png"):
            next(batches.from_step(0))


@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("sharding", [None, (8,)])
def test_stacked_steps_are_the_same_steps(placement, sharding):
    source = Digits("test")
    batches = Batches(
        source,
        batch_size=16,
        seed=0,
        sharding=sharding and split_over(*sharding),
        placement=placement,
        steps_per_dispatch=3,
    )
    single = expected(source, 0, range(4, 10), 16)
    stacked = [jax.tree.map(lambda *a: np.stack(a), *single[i : i + 3]) for i in (0, 3)]
    assert_same(take(batches, 4, 2), stacked)
    if sharding is not None:
        spec = next(batches.from_step(0))["x"].sharding.spec
        assert tuple(spec)[:2] == (None, "data")


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_batches_run_across_epochs_and_exceed_the_set(placement):
    batches = Batches(Numbered(5), batch_size=16, seed=0, placement=placement)
    labels = np.concatenate([b["label"] for b in take(batches, 0, 5)])
    for epoch in labels.reshape(16, 5):
        assert sorted(epoch) == list(range(5))


def test_continuous_data_keep_their_type():
    for placement in ("device", "stream"):
        batches = Batches(Numbered(9, (3, 1), None), batch_size=4, seed=0, placement=placement)
        batch = next(batches.from_step(0))
        assert batch["x"].dtype == np.float32
        np.testing.assert_array_equal(batch["x"][:, 0, 0], batch["label"])


@pytest.mark.slow
def test_batches_taken_stay_valid():
    # jax on the CPU may share memory with numpy: later batches must not overwrite earlier ones.
    source = Numbered(200, (64, 64, 3))
    batches = Batches(source, batch_size=8, seed=0, placement="stream", num_workers=1)
    iterator = batches.from_step(0)
    kept = list(itertools.islice(iterator, 20))
    iterator.close()
    for batch in kept:
        np.testing.assert_array_equal(batch["x"][:, 5, 5, 1], batch["label"])


def test_auto_placement_goes_by_size(monkeypatch):
    source = Numbered(100, (4, 4, 1))
    assert Batches(source, batch_size=2, seed=0).placement == "device"
    monkeypatch.setattr(loader, "DEVICE_BYTES", 1599)
    assert Batches(source, batch_size=2, seed=0).placement == "stream"


def test_shares_of_processes_make_up_the_batch():
    sharding = split_over(8)
    devices = jax.devices()[:8]
    for processes in (1, 2, 4, 8):
        groups = np.array(devices).reshape(processes, -1)
        rows = [np.arange(24)[rows_of(sharding, 24, group)] for group in groups]
        np.testing.assert_array_equal(np.concatenate(rows), np.arange(24))
        assert all(len(part) == 24 // processes for part in rows)


def test_shares_follow_the_mesh():
    # 4 x 2 mesh, batch over the first axis: the two devices of a row hold the same rows.
    sharding = split_over(4, 2)
    devices = sharding.mesh.devices
    assert rows_of(sharding, 8, devices[1]) == slice(2, 4)
    assert rows_of(sharding, 8, devices[:, 0]) == slice(0, 8)
    assert rows_of(sharding, 8, devices[2:, 1]) == slice(4, 8)
    assert rows_of(None, 8, []) == slice(0, 8)
    with pytest.raises(ValueError, match="order the mesh by process"):
        rows_of(sharding, 8, [devices[0, 0], devices[2, 0]])


@pytest.mark.parametrize(("size", "batch_size"), [(20, 8), (16, 8), (3, 8)])
@pytest.mark.parametrize("sharding", [None, (8,)])
def test_evaluation_sees_every_example_once_in_order(size, batch_size, sharding):
    sharding = sharding and split_over(*sharding)
    batches = list(eval_batches(Numbered(size), batch_size, sharding))
    assert {b["x"].shape for b in batches} == {(batch_size, 2, 2, 1)}
    label, mask = (np.concatenate([b[name] for b in batches]) for name in ("label", "mask"))
    assert mask.dtype == bool
    np.testing.assert_array_equal(label[mask], np.arange(size))
    assert len(mask) == -(-size // batch_size) * batch_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 12, "sharded": True}, "training.batch_size = 12.* 8 devices"),
        ({"batch_size": 0}, "training.batch_size = 0"),
        ({"placement": "disk"}, "data.placement = 'disk'.*auto, device or stream"),
        ({"num_workers": -1}, "data.num_workers = -1"),
        ({"steps_per_dispatch": 0}, "training.steps_per_dispatch = 0"),
    ],
)
def test_refuses_options(options, message):
    sharding = split_over(8) if options.pop("sharded", False) else None
    with pytest.raises(ValueError, match=message):
        Batches(Numbered(4), **{"batch_size": 2, "seed": 0, "sharding": sharding, **options})


def test_refuses_steps_and_evaluation_batches():
    for placement in ("device", "stream"):
        with pytest.raises(ValueError, match="step = -1"):
            Batches(Numbered(4), batch_size=2, seed=0, placement=placement).from_step(-1)
    with pytest.raises(ValueError, match="evaluate.batch_size = 12"):
        eval_batches(Numbered(4), 12, split_over(8))


def run_script(script, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
def test_a_script_may_end_with_a_stream_open(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        if __name__ == "__main__":
            from score_sde.data import Batches, Digits
            options = dict(batch_size=64, seed=0, placement="stream")
            workers = Batches(Digits("test"), num_workers=2, **options).from_step(0)
            thread = Batches(Digits("test"), **options).from_step(0)
            batch = next(workers), next(thread)
        """)
    )
    process = run_script(script)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    assert "Exception ignored" not in error and "leaked" not in error, error


@pytest.mark.slow
def test_two_real_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import jax, numpy as np
        jax.config.update("jax_num_cpu_devices", 2)
        jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
        from jax.sharding import Mesh, NamedSharding, PartitionSpec
        from score_sde.data import Batches, Digits, batch_indices, eval_batches
        sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
        source = Digits("test")
        reads = []
        read = source.read
        source.read = lambda indices: (reads.append(len(indices)), read(indices))[1]
        def check(array, whole):
            assert array.shape == whole.shape
            for shard in array.addressable_shards:
                np.testing.assert_array_equal(shard.data, whole[shard.index])
        batches = Batches(source, batch_size=16, seed=0, sharding=sharding).from_step(3)
        for step in range(3, 6):
            whole = read(batch_indices(0, step, 16, len(source)))
            batch = next(batches)
            for name in whole:
                check(batch[name], whole[name])
        batches.close()
        for start, batch in zip(range(0, 300, 16), eval_batches(source, 16, sharding), strict=True):
            rows = np.arange(start, start + 16)
            check(batch["mask"], rows < 300)
            check(batch["x"], read(np.where(rows < 300, rows, 0))["x"])
        assert set(reads) == {8}, reads
        """)
    )
    port = str(20000 + os.getpid() % 20000)
    processes = [run_script(script, port, str(i)) for i in range(2)]
    for process in processes:
        _, error = process.communicate(timeout=180)
        assert process.returncode == 0, error
