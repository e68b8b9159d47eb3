"""Snapshots of EDM, built here with classes of the same names (tests/data/README.md has the recording)."""

import pickle
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import convert
from score_sde.conditions import labelled
from score_sde.convert import CheckpointError, edm
from score_sde.denoiser import Denoiser
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.schema import typed
from score_sde.nets.edm_names import to_edm_names
from tests.convert.torch_writer import STUBS, Tensor, plain_bytes, stub

PERSISTENCE = ("torch_utils.persistence", "_reconstruct_persistent_obj")
EASY = ("dnnlib.util", "EasyDict")
CONTAINER = ("torch.nn.modules.container", "ModuleDict")
CLASSES = {
    PERSISTENCE: stub(*PERSISTENCE, None),
    EASY: stub(*EASY, dict),
    CONTAINER: stub(*CONTAINER),
}


class Persistent:
    """Pickles as EDM's decorated classes do: with the source text of the class."""

    def __init__(self, name, source="raise SystemExit('the source was run')", **state):
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": state}
        self.meta = CLASSES[EASY](meta)

    def __reduce__(self):
        return CLASSES[PERSISTENCE], (self.meta,), None


def module(tensors=None, children=None, **state):
    """The attributes of a module of torch."""
    return {
        "training": False,
        "_parameters": OrderedDict({k: v if v is None else Tensor.of(v, True) for k, v in tensors.items()})
        if tensors
        else OrderedDict(),
        "_buffers": OrderedDict(),
        "_modules": OrderedDict(children or {}),
        "_backward_hooks": OrderedDict(),
        "_non_persistent_buffers_set": set(),
        **state,
    }


def nested(tensors):
    """Modules in modules from dotted names, the inner ones in a container of torch."""
    own, children = {}, {}
    for name, array in tensors.items():
        first, _, rest = name.partition(".")
        if rest:
            children.setdefault(first, {})[rest] = array
        else:
            own[first] = array
    made = CLASSES[CONTAINER]()
    vars(made).update(module(own, {name: nested(inner) for name, inner in children.items()}))
    return made


def snapshot(tensors, precond="EDMPrecond", model_type="SongUNet", **made):
    kwargs = {"img_resolution": 8, "img_channels": 1, "label_dim": 0, "model_type": model_type, **made}
    inner = Persistent(model_type, **vars(nested(tensors)))
    limits = {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}
    network = Persistent(
        precond, **module(None, {"model": inner}, _init_args=(), _init_kwargs=CLASSES[EASY](kwargs), **limits)
    )
    loss = Persistent("EDMLoss", P_mean=-1.2)
    return {"ema": network, "loss_fn": loss, "augment_pipe": None, "dataset_kwargs": CLASSES[EASY](path="x")}


SIZES = {
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}
MODELS = {
    "SongUNet": (
        SIZES
        | {"embedding_type": "fourier", "encoder_type": "residual", "decoder_type": "standard"}
        | {"channel_mult_noise": 4, "channel_mult_emb": 2, "resample_filter": [1, 3, 3, 1]}
        | {"augment_dim": 9, "label_dim": 3},
        {
            "name": "songunet",
            "nf": 8,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "attn_resolutions": (4,),
            "embedding_type": "fourier",
            "noise_mult": 4,
            "embedding_mult": 2,
            "progressive_input": "residual",
            "fir": True,
            "dropout": 0.0,
        },
    ),
    "DhariwalUNet": (
        SIZES | {"channel_mult_emb": 3},
        {
            "name": "adm",
            "embedding_mult": 3,
            "nf": 8,
            "ch_mult": (1, 2),
            "num_res_blocks": 1,
            "attn_resolutions": (4,),
            "dropout": 0.0,
        },
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_snapshot_becomes_a_model(kind, tmp_path):
    made, fields = MODELS[kind]
    labels, augmented = made.get("label_dim", 0), "augment_dim" in made
    spec = edm.Spec((8, 8, 1), 256, labelled(labels))
    config = {"model": fields, "conditions": {"names": ("label",) if labels else ()}}
    wanted = architecture_of(typed({**config, "data": {"augment_probability": 0.12 * augmented}}), spec)
    params = jax.tree.map(np.asarray, wanted.init(jax.random.key(0))["net"])
    theirs = to_edm_names(params, wanted.net, spec.shape)
    theirs = {name.removeprefix("model."): array for name, array in theirs.items()}  # of the network within
    (tmp_path / "network-snapshot-000100.pkl").write_bytes(
        plain_bytes(snapshot(theirs, model_type=kind, **made), STUBS | CLASSES)
    )
    model = convert.load(tmp_path / "network-snapshot-000100.pkl")
    assert model.what == f"an EDM snapshot (EDMPrecond of {kind})"
    assert model.architecture.spec == spec
    assert model.architecture.net == wanted.net
    assert (model.architecture.sde.t_min, model.architecture.sde.t_max) == (0.002, 80.0)
    for tree in (model.state.ema["net"], model.state.params["net"]):
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, tree, params)))


@pytest.mark.parametrize("scaling", ["EDMPrecond", "VPPrecond", "VEPrecond"])
def test_scalings_are_the_recorded_ones(scaling, fixture):
    """Each of table 1 of the paper as a process, a prediction, a time input and a range of the data."""
    file = fixture("edm_rows")
    x, sigma, raw, given, label, denoised = (
        file[f"{scaling}_{name}"] for name in ("x", "sigma", "F", "input", "c_noise", "D")
    )
    sections = {name: edm.PROCESSES[scaling].get(name, {}) for name in ("sde", "denoiser", "codec", "model")}
    config = typed({**sections, "model": {"nf": 4, "ch_mult": (1,), **sections["model"]}})
    e = architecture_of(config, edm.Spec((8, 8, 1), 256))
    low, high = e.codec.low, e.codec.high
    scale = (high - low) / 2  # of our data over theirs, which are in [-1, 1]
    # The time of their level, which is relative to the scale of the signal.
    grid = np.geomspace(1e-6, 1, 2_000_001) * e.sde.t_max
    levels = np.exp(-0.5 * np.asarray(e.sde.log_snr(jnp.asarray(grid))))
    t = np.interp(np.log(sigma * scale), np.log(levels), grid)
    alpha, wide = np.asarray(e.sde.alpha(jnp.asarray(t))), (-1, 1, 1, 1)
    ours = alpha.reshape(wide) * (low + (x + 1) * scale) if scale != 1 else alpha.reshape(wide) * x

    seen = {}

    def net(params, x, c_noise, cond, key=None):
        seen["x"], seen["c_noise"] = x, c_noise
        return jnp.asarray(raw)

    denoise = Denoiser({}, e.sde, net, e.precondition)
    got = np.asarray(denoise(jnp.asarray(ours, jnp.float32), jnp.asarray(t, jnp.float32)).x0)
    want = low + (denoised + 1) * scale if scale != 1 else denoised
    for i in range(len(sigma)):  # per example: at large noise the values are large
        np.testing.assert_allclose(got[i], want[i], atol=3e-5 * max(1, np.abs(want[i]).max()))
    span = config.model.options["input_range"]
    into = 2 * (np.asarray(seen["x"]) - span[0]) / (span[1] - span[0]) - 1
    np.testing.assert_allclose(into, given, atol=1e-4 * np.abs(given).max())
    np.testing.assert_allclose(seen["c_noise"], label, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precond": "CLDPrecond"}, "a snapshot of a CLDPrecond; known are EDMPrecond, "),
        (
            {"model_type": "OtherUNet"},
            "a network of type OtherUNet, which is not here; .*: SongUNet",
        ),
        ({"encoder_type": "other"}, "made with encoder_type = 'other'"),
        ({"resample_filter": [1, 2, 1]}, r"made with resample_filter = \[1, 2, 1\]"),
        ({"resample_filter": [1, 2, 3, 4]}, r"made with resample_filter = \[1, 2, 3, 4\]"),
        ({"width": 3}, "made with width = 3: not ours"),
        (
            {"img_resolution": 10**9, "model_channels": 2},
            "the size of its images = 1000000000: must be at most",
        ),
        ({"precond": "VPPrecond", "M": 500}, "made with M = 500: not ours"),
        ({"augment_dim": 5}, "augment_dim = 5; known is 9"),
    ],
)
def test_what_is_not_here_is_named(change, message, tmp_path):
    value = snapshot({"a.weight": np.zeros(3, np.float32)}, **SIZES | change)
    (tmp_path / "x.pkl").write_bytes(plain_bytes(value, STUBS | CLASSES))
    with pytest.raises(CheckpointError, match=message):
        convert.read(tmp_path / "x.pkl")


def test_the_source_within_is_not_run(tmp_path):
    """The standard library would call the function of the name, which runs the source."""
    data = plain_bytes(
        snapshot({"a": np.zeros(1, np.float32)}, model_channels=1, num_blocks=1, channel_mult=[1]),
        STUBS | CLASSES,
    )
    assert b"the source was run" in data
    (tmp_path / "x.pkl").write_bytes(data)
    release = convert.read(tmp_path / "x.pkl")
    assert list(release.average) == ["model.a"]
    with pytest.raises(ModuleNotFoundError):  # what it would need
        pickle.loads(data)
