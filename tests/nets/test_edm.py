"""SongUNet and ADM against the released EDM networks (see tests/data/README.md)."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoiser, Precondition
from score_sde.nets import NETS, Net, parameter_count
from score_sde.nets.edm_names import from_edm_names, to_edm_names
from score_sde.sde import EDM
from tests.conditioned import conditions
from tests.conftest import DATA
from tests.recipe import state_dict

NCSNPP = {"fir": True, "embedding_type": "fourier", "progressive_input": "residual"}
TABLES = json.loads(gzip.decompress((DATA / "edm/recipes.json.gz").read_bytes()))
ROWS = {
    "vp_ddpmpp": ("songunet", {}, "scaled_noise", "vp_time"),
    "ve_ncsnpp": ("songunet", NCSNPP, "score", "log_half_sigma"),
    "edm_ddpmpp": ("songunet", {}, "edm", "quarter_log_sigma"),
    "edm_adm_cond": ("adm", {"conditions": conditions(10)}, "edm", "quarter_log_sigma"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "edm_adm_cond" else pytest.mark.slow) for n in ROWS]
)
def test_network_and_denoiser(name):
    kind, fields, prediction, time_input = ROWS[name]
    net, shape = Net(NETS[kind](nf=32, **fields)), (32, 32, 3)
    tensors = state_dict(TABLES[name]["seed"], TABLES[name]["table"])
    params = from_edm_names(tensors, net, shape)
    back = to_edm_names(params, net, shape)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)
    d = np.load(DATA / f"edm/{name}.npz")
    cond = {"label": jnp.asarray(d["label"])} if "label" in d else {}
    row = Precondition(PREDICTIONS[prediction](), TIME_INPUTS[time_input]())
    denoiser = Denoiser(params, EDM(), net, row, cond)
    x, t = jnp.moveaxis(d["x"], 1, -1), jnp.asarray(d["sigma"], jnp.float32)
    run = jax.jit(lambda d, x, t: d(x, t).x0).lower(denoiser, x, t)
    got = run.compile({"xla_backend_optimization_level": 0})(denoiser, x, t)
    got, x = (np.moveaxis(np.asarray(a), -1, 1) for a in (got, x))
    c_skip, c_out = (np.asarray(c).reshape(-1, 1, 1, 1) for c in row(EDM(), t).row[:2])
    raw = (got - c_skip * x) / c_out
    assert np.abs(got - d["D"]).max() < 1e-4 * np.abs(d["D"]).max()
    assert np.abs(raw - d["F"]).max() < 1e-3 * np.abs(d["F"]).max()


@pytest.mark.parametrize(
    ("kind", "fields", "side", "count"),
    [
        ("songunet", {"conditions": conditions(augment=9)}, 32, 55_733_891),
        pytest.param("songunet", {"conditions": conditions(10, 9)}, 32, 55_735_299, marks=pytest.mark.slow),
        # The frequencies are parameters here that are not trained.
        ("songunet", {"conditions": conditions(augment=9), **NCSNPP}, 32, 56_397_827 + 128),
        pytest.param("adm", {"conditions": conditions(1000)}, 64, 295_899_267, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(kind, fields, side, count):
    net = Net(NETS[kind](**fields))
    assert parameter_count(jax.eval_shape(lambda: net.init(jax.random.key(0), (side, side, 3)))) == count


@pytest.mark.parametrize("kind", ["songunet", "adm"])
def test_initial_laws(kind):
    """The released ones: Glorot's with silent ends, and for ADM uniform by fan-in with exact zeros."""
    sizes = {"nf": 64, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,)}
    net = Net(NETS[kind](**sizes, conditions=conditions(16, 9)))
    params = jax.jit(net.init, static_argnums=1)(jax.random.key(0), (8, 8, 3))
    block = params["up_0_block_0"]
    ends = [params["out_conv"], block["conv_1"], params["mid_attention"]["out"]]
    layers = {"stem": params["stem"], "conv": block["conv_0"], "time": block["time"]}
    layers |= {"shortcut": block["shortcut"], "dense": params["time_dense_1"]}
    layers |= {f"attention {name}": params["mid_attention"][name] for name in ("query", "key", "value")}
    for name, layer in layers.items():
        kernel, bias = np.asarray(layer["kernel"]), np.asarray(layer["bias"])
        fan_in, fan_out = (int(np.prod(kernel.shape[:-2])) * n for n in kernel.shape[-2:])
        if kind == "adm":
            bound = 1 / np.sqrt(fan_in)
            np.testing.assert_allclose(np.abs(bias).max(), bound, rtol=0.15, err_msg=name)
        else:  # query, key and value are drawn as one layer of three times the width, with sqrt(0.2)
            attention = name.startswith("attention")
            bound = np.sqrt(6 * (0.2 if attention else 1) / (fan_in + fan_out * (3 if attention else 1)))
            assert not bias.any()
        assert np.abs(kernel).max() <= bound * (1 + 1e-6)
        np.testing.assert_allclose(np.abs(kernel).max(), bound, rtol=0.02, err_msg=name)
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.1, err_msg=name)
    for layer in ends:
        kernel = np.asarray(layer["kernel"])
        fan = np.prod(kernel.shape[:-2]) * sum(kernel.shape[-2:])
        bound = 0 if kind == "adm" else 1e-5 * np.sqrt(6 / fan)
        np.testing.assert_allclose(np.abs(kernel).max(), bound, rtol=0.05)
        assert not np.asarray(layer["bias"]).any()
    if kind == "adm":
        assert not np.asarray(params["augment"]["kernel"]).any()
        np.testing.assert_allclose(np.asarray(params["label"]["kernel"]).std(), 1.0, rtol=0.05)


def test_options_that_a_network_does_not_have_are_refused():
    for option in ("fir", "progressive", "embedding_type", "skip_rescale", "noise_conditional"):
        with pytest.raises(TypeError, match=option):
            NETS["adm"](**{option: True})
    with pytest.raises(ValueError, match="noise_conditional=False: must be True"):
        Net(NETS["songunet"](noise_conditional=False)).shapes((32, 32, 3))
