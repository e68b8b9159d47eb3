"""Checkpoints of the official code: the same outputs, the same state, and messages that help."""

import gzip
import json
import os
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from score_sde import cli, convert
from score_sde.convert import CheckpointError, recipes
from score_sde.convert import score_sde as format
from score_sde.data import Spec
from score_sde.denoiser import score_from
from score_sde.experiment.assemble import architecture_of
from score_sde.flags import parse
from score_sde.nets import parameter_count
from score_sde.nets.official import to_flax_names, to_torch_names
from score_sde.runtime.mesh import make_mesh
from score_sde.train import Checkpoints
from tests.conftest import ROOT
from tests.convert.official_names import state_dict
from tests.convert.torch_writer import Tensor, save_zip
from tests.recipe import state_dict as recipe_state_dict

DATA = Path(__file__).parents[1] / "data/nets"
RECIPES = json.loads(gzip.decompress((DATA / "recipes.json.gz").read_bytes()))


def checkpoint(model, ema, step=3, moments=None, untrained=()):
    """The value that the official code saves."""
    names = list(model)
    state = {
        names.index(name): {"step": step, "exp_avg": Tensor.of(a), "exp_avg_sq": Tensor.of(b)}
        for name, (a, b) in (moments or {}).items()
    }
    group = {"lr": np.float64(2e-4), "betas": (0.9, 0.999), "eps": 1e-8, "params": list(range(len(names)))}
    return {
        "optimizer": {"state": state, "param_groups": [group]},
        "model": OrderedDict(
            {"module.sigmas": Tensor.of(np.geomspace(50, 0.01, 1000))}
            | {f"module.{name}": Tensor.of(array) for name, array in model.items()}
        ),
        "ema": {
            "decay": 0.9999,
            "num_updates": step,
            "shadow_params": [Tensor.of(array) for name, array in ema.items() if name not in untrained],
        },
        "step": step,
    }


def parsed(*words):
    return parse(["run.py", "--mode=train", *words], "usage").config


# --- recorded outputs of the released networks -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "which"),
    [
        pytest.param(
            "vp/cifar10_ddpmpp_continuous@nf32",
            ["--config=configs/vp_cifar.py"],
            "ema",
            marks=pytest.mark.slow,
        ),
        ("ve/cifar10_ncsnpp_continuous@nf32", ["--config=configs/ve_cifar.py"], "ema"),
        pytest.param(
            "subvp/cifar10_ddpmpp_continuous@nf32",
            ["--config=configs/subvp_cifar.py"],
            "params",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_scores_are_the_recorded_ones(name, words, which, tmp_path, monkeypatch):
    """The recorded weights are the average of a file, or its parameters."""
    monkeypatch.chdir(ROOT)
    recipe = RECIPES[name]
    recorded = recipe_state_dict(recipe["seed"], recipe["table"])
    other = {key: array * np.float32(0.5) for key, array in recorded.items()}
    # The official code does not average the Fourier frequencies: they are those of the model.
    untrained = [key for key in recorded if key == "all_modules.0.W"]
    other |= {key: recorded[key] for key in untrained}
    raw, ema = (other, recorded) if which == "ema" else (recorded, other)
    path = save_zip(tmp_path / "checkpoint.pth", checkpoint(raw, ema, untrained=untrained))
    model = convert.load(path, parsed(*words, "--config.model.nf=32"))
    assert int(model.state.step) == 3
    assert model.architecture.spec.shape == (32, 32, 3)

    e, file = model.architecture, np.load(DATA / f"{name.replace('/', '-')}.npz")
    x, labels = jnp.moveaxis(jnp.asarray(file["x"]), 1, -1), file["labels"]
    if name.startswith("ve"):
        t = np.log(labels / e.sde.sigma_min) / e.sde.log_ratio
        want = file["out"]  # divided by sigma in the network
    else:
        t = labels / 999
        want = -file["out"] / np.asarray(e.sde.sigma(jnp.asarray(t)))[:, None, None, None]
    t = jnp.asarray(t, jnp.float32)

    def score(params, x):
        return score_from(e.sde, e.bind(params, {})(x, t), t)

    params = getattr(model.state, which)
    # Little optimisation: the program runs once, so compiling it is all the time there is.
    compiled = jax.jit(score).lower(params, x).compile({"xla_backend_optimization_level": 0})
    got = np.moveaxis(np.asarray(compiled(params, x)), -1, 1)
    for one, recorded_one in zip(got, want, strict=True):
        assert np.abs(one - recorded_one).max() / np.abs(recorded_one).max() < 1e-4


# --- what a file may be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["vp/cifar10_ddpmpp_continuous@nf32", "subvp/cifar10_ddpmpp_continuous@nf32"]
)
def test_the_shapes_name_the_recipes_and_the_width(name):
    shapes = [shape for _, shape, *_ in RECIPES[name]["table"]]
    names = {recipe.name for recipe in recipes.fitting(shapes)}
    assert names == {f"{n}/cifar10_ddpmpp_continuous" for n in ("vp", "subvp")} | {"vp/cifar10_ddpmpp"}
    assert recipes.width(shapes) == 32
    assert recipes.channels(shapes) == 3
    hint = recipes.describe(shapes, recipes.fitting(shapes))
    assert "--config=configs/subvp_cifar.py --config.model.nf=32" in hint


QUICK = ("vp/cifar10_ddpmpp_continuous", "ve/cifar10_ncsnpp")


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(r, marks=[] if r.name in QUICK else pytest.mark.slow, id=r.name) for r in recipes.RECIPES],
)
def test_the_words_of_a_recipe_make_its_network(recipe, monkeypatch):
    """Our parameters under that config, by their released names, have the signature of the file."""
    monkeypatch.chdir(ROOT)
    config = parsed(*recipe.words.split())
    shape = (recipe.size, recipe.size, 3)
    architecture = architecture_of(config, Spec(shape, 256))
    tree = architecture.net.shapes(shape)
    empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), tree)
    released = to_torch_names(empty, architecture.net, shape)
    assert recipes.signature([array.shape for array in released.values()]) == recipe.signature
    if recipe.name == "cifar10_k_ve":
        # As many as EDM's published NCSN++ of this width has, with its frequencies and no augmentation.
        assert parameter_count(tree) == 56_397_827 - 9 * 256 + 128
        assert config.sde.name == "edm"
        return
    process, rest = recipe.name.split("/", 1)
    discrete = "continuous" not in rest
    assert config.sde.name == ({"vp": "ddpm", "ve": "smld"}[process] if discrete else process)


def test_the_documentation_has_every_recipe():
    text = (ROOT / "docs" / "recipes.md").read_text()
    for recipe in recipes.RECIPES:
        assert recipe.name == "cifar10_k_ve" or f"| {recipe.name} | `{recipe.config}` |" in text


# --- the whole way, on a network of a few parameters -----------------------------------------------

TINY = [
    f"--config={ROOT / 'configs' / 'vp_digits.py'}",
    "--config.model.nf=4",
    "--config.model.ch_mult=(1,)",
    "--config.model.attn_resolutions=(8,)",
    "--config.data.source=array",
    "--config.data.source.grey_levels=17",
    "--config.training.batch_size=16",
    "--config.training.sample_count=1",
    "--config.training.eval_examples=16",
    "--config.sampling.steps=3",
    "--config.sampling.batch_size=4",
]


def run(*words):
    return cli.run(parse(["run.py", *words], "usage"))


def message(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint whose average, parameters and moments differ, and our own trees of them."""
    architecture = architecture_of(parsed(*TINY), Spec((8, 8, 1), 17))
    trees = [architecture.init(jax.random.key(i))["net"] for i in range(4)]
    trees[3] = jax.tree.map(jnp.square, trees[3])  # the second moment
    model, ema, first, second = (state_dict(architecture.net, (8, 8, 1), tree) for tree in trees)
    path = tmp_path_factory.mktemp("tiny") / "checkpoint_1.pth"
    save_zip(path, checkpoint(model, ema, 7, {name: (first[name], second[name]) for name in model}))
    return path, trees


def test_everything_arrives(tiny):
    path, trees = tiny
    model = convert.load(path, parsed(*TINY))
    adam = next(s for s in jax.tree.leaves(model.state.opt_state, is_leaf=is_adam) if is_adam(s))
    for got, want in zip((model.state.params, model.state.ema, adam.mu, adam.nu), trees, strict=True):
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, got, {"net": want})))
    assert int(adam.count) == int(model.state.step) == 7
    assert model.moments


def is_adam(node):
    return hasattr(node, "mu")


def test_import_then_sample_export_and_import_again(tiny, tmp_path, capsys):
    path, trees = tiny
    workdir = tmp_path / "run"
    assert run("--mode=import", f"--checkpoint={path}", f"--workdir={workdir}", *TINY) == 0
    assert "step 7" in capsys.readouterr().out
    assert run("--mode=sample", f"--workdir={workdir}", "--num_samples=2", f"--output={tmp_path}/a.npz") == 0

    exported = tmp_path / "model.safetensors"
    assert run("--mode=export", f"--workdir={workdir}", f"--output={exported}") == 0
    again = convert.load(exported)
    assert again.config == convert.load(path, parsed(*TINY)).config
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again.state.ema["net"], trees[1])))

    # What training restores is what was imported.
    want = convert.load(path, parsed(*TINY)).state
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = checkpoints.restore(want, make_mesh())
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, state, want)))


@pytest.mark.slow
def test_import_then_train(tiny, tmp_path, capsys):
    path, _ = tiny
    assert run("--mode=import", f"--checkpoint={path}", f"--workdir={tmp_path / 'run'}", *TINY) == 0
    steps = [
        "--config.data.source=digits",
        "--config.training.steps=8",
        "--config.training.log_every_steps=1",
    ]
    assert run("--mode=train", f"--workdir={tmp_path / 'run'}", *steps) == 0
    assert "resuming from step 7" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoints" / "8").is_dir()


def test_what_is_not_finished_leaves_nothing(tiny, tmp_path, monkeypatch, capsys):
    path, _ = tiny
    words = ("--mode=import", f"--checkpoint={path}", f"--workdir={tmp_path / 'run'}", *TINY)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    assert "disk full" in message(capsys, *words)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert "nf = 4" not in message(capsys, *words, "--config.model.nf=8")
    assert list(tmp_path.iterdir()) == []
    assert run(*words) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert "holds checkpoints already" in message(capsys, *words)


def test_messages(tiny, tmp_path, capsys):
    path, _ = tiny
    where = ("--mode=import", f"--workdir={tmp_path / 'run'}")
    error = message(capsys, *where, f"--checkpoint={path}", *TINY, "--config.model.nf=8")
    assert "all_modules.0.bias: got [16], want [32]" in error
    assert str(path) in error
    assert "name its config" in message(capsys, *where, f"--checkpoint={path}")
    assert "no such file" in message(capsys, *where, "--checkpoint=nowhere.pth", *TINY)
    assert "needs --checkpoint" in message(capsys, *where, *TINY)
    nowhere = [word for word in TINY if "attn_resolutions" not in word]
    error = message(capsys, *where, f"--checkpoint={path}", *nowhere, "--config.model.attn_resolutions=()")
    assert "--config.data.source.size" in error


FOREIGN = {
    "an empty file": b"",
    "a web page": b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
    "no known format": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "damaged or cut-off zip": b"PK\x03\x04" + bytes(100),
    "tar archive": bytes(257) + b"ustar" + bytes(300),
    "without a 'model'": b"\x80\x02}q\x00X\x05\x00\x00\x00epochq\x01K\x03s.",
    "cut off": b"\x80\x02}q\x00X\x05\x00\x00\x00epo",
    "cut off or damaged msgpack": b"\x85\xa4step\x01",
    "without 'params_ema'": msgpack.packb({"step": 1}),
    r"damaged or foreign \(KeyError: 'shape'": msgpack.packb({"params": {"__msgpack_chunked_array__": True}}),
    r"damaged or foreign \(KeyError: 'step'": b"\x23" + bytes(7) + b'{"__metadata__":{"score_sde":"{}"}}',
    "wants to call posix.system": b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R.",
}


@pytest.mark.parametrize("cause", FOREIGN)
def test_foreign_files(cause, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(FOREIGN[cause])
    with pytest.raises(CheckpointError, match=cause) as error:
        convert.read(path)
    assert str(path) in str(error.value)


def test_averages_that_do_not_belong(tmp_path):
    weights = {"all_modules.0.W": np.zeros(4), "all_modules.1.weight": np.zeros((8, 8))}
    whole = [np.ones(4), np.ones((8, 8))]
    for shadow in (whole, whole[1:]):
        release = format.from_torch({"model": weights, "ema": {"shadow_params": shadow}})
        assert release.average["all_modules.1.weight"].all()
        assert release.average["all_modules.0.W"].any() == (len(shadow) == 2)
    with pytest.raises(CheckpointError, match="0 tensors, and the model 1"):
        format.from_torch({"model": weights, "ema": {"shadow_params": []}})
    with pytest.raises(CheckpointError, match=r"all_modules.1.weight has shape \(8, 8\) .* and \(8, 7\)"):
        format.from_torch({"model": weights, "ema": {"shadow_params": [np.ones((8, 7))]}})


# --- msgpack files of the JAX version --------------------------------------------------------------


def packed(tree):
    """``flax.serialization``: arrays as extension 1."""
    if isinstance(tree, dict):
        return {key: packed(value) for key, value in tree.items()}
    if isinstance(tree, np.ndarray):
        data = msgpack.packb([list(tree.shape), tree.dtype.name, tree.tobytes()])
        return msgpack.ExtType(1, data)
    return tree


def test_msgpack_files_of_both_families(tmp_path):
    params = {"Conv_0": {"kernel": np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2), "bias": np.ones(2)}}
    average = jax.tree.map(lambda a: a + 1, params)
    states = jax.tree.map(lambda a: {"grad_ema": 2 * a, "grad_sq_ema": 3 * a}, params)
    optimizer = {"target": params, "state": {"step": np.asarray(9), "param_states": states}}
    common = {"step": np.asarray(9), "lr": 2e-4, "params_ema": average, "model_state": {}}
    for extra in ({"optimizer": optimizer}, {"params": params, "rng_state": np.zeros(2, np.uint32)}):
        (tmp_path / "x").write_bytes(msgpack.packb(packed(common | extra)))
        release = convert.read(tmp_path / "x")
        assert release.step == 9
        for got, want in ((release.raw, params), (release.average, average)):
            assert all(jax.tree.leaves(jax.tree.map(np.array_equal, got, want)))
        assert (release.moments is None) == ("params" in extra)
        if release.moments is not None:
            np.testing.assert_array_equal(release.moments[1]["Conv_0"]["bias"], [3, 3])


def test_a_file_of_the_jax_version_arrives_whole(tiny, tmp_path):
    _, trees = tiny
    net = architecture_of(parsed(*TINY), Spec((8, 8, 1), 17)).net
    raw, average, first, second = (to_flax_names(tree, net, (8, 8, 1)) for tree in trees)
    states = jax.tree.map(lambda a, b: {"grad_ema": a, "grad_sq_ema": b}, first, second)
    tree = {
        "step": np.asarray(7),
        "optimizer": {"target": raw, "state": {"step": np.asarray(7), "param_states": states}},
        "params_ema": average,
    }
    (tmp_path / "checkpoint_1").write_bytes(msgpack.packb(packed(tree)))
    state = convert.load(tmp_path / "checkpoint_1", parsed(*TINY)).state
    adam = next(s for s in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(s))
    for got, want in zip((state.params, state.ema, adam.mu, adam.nu), trees, strict=True):
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, got, {"net": want})))
    assert int(state.step) == int(adam.count) == 7


def test_flax_itself_writes_what_is_read(tmp_path, monkeypatch):
    serialization = pytest.importorskip("flax.serialization")
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    tree = {
        "params": {"a": np.arange(40.0).reshape(5, 8), "b": jnp.ones(3, jnp.bfloat16)},
        "params_ema": {"a": np.float32(2), "c": [1, 2]},
        "step": np.int64(5),
    }
    (tmp_path / "x").write_bytes(serialization.to_bytes(tree))
    release = convert.read(tmp_path / "x")
    np.testing.assert_array_equal(release.raw["a"], tree["params"]["a"])
    assert release.raw["b"].dtype == jnp.bfloat16
    assert release.average == {"a": np.float32(2), "c": {"0": 1, "1": 2}}


def test_a_config_may_be_a_path(tiny):
    path, _ = tiny
    with pytest.raises(CheckpointError, match=r"all_modules.0.bias: got \[16\], want \[128\]"):
        convert.load(path, ROOT / "configs/vp_digits.py")
