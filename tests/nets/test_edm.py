"""SongUNet and ADM against the released EDM networks (see tests/data/README.md)."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.denoiser import LABELS, PREDICTIONS, Denoiser, Precondition
from score_sde.nets import NETS, Net, parameter_count
from score_sde.nets.edm_names import from_edm_names, to_edm_names
from score_sde.sde import EDM
from tests.conftest import DATA
from tests.recipe import state_dict

NCSNPP = {"fir": True, "embedding_type": "fourier", "progressive_input": "residual"}
TABLES = json.loads(gzip.decompress((DATA / "edm/recipes.json.gz").read_bytes()))
ROWS = {
    "vp_ddpmpp": ("songunet", {}, "scaled_noise", "vp_time"),
    "ve_ncsnpp": ("songunet", NCSNPP, "score", "log_half_sigma"),
    "edm_ddpmpp": ("songunet", {}, "edm", "quarter_log_sigma"),
    "edm_adm_cond": ("adm", {"num_classes": 10}, "edm", "quarter_log_sigma"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == "edm_adm_cond" else pytest.mark.slow) for n in ROWS]
)
def test_network_and_denoiser(name):
    kind, fields, prediction, label = ROWS[name]
    net, shape = Net(NETS[kind](nf=32, **fields)), (32, 32, 3)
    tensors = state_dict(TABLES[name]["seed"], TABLES[name]["table"])
    params = from_edm_names(tensors, net, shape)
    back = to_edm_names(params, net, shape)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)
    d = np.load(DATA / f"edm/{name}.npz")
    cond = {"label": jnp.asarray(d["label"])} if "label" in d else None
    row = Precondition(PREDICTIONS[prediction](), LABELS[label]())
    denoiser = Denoiser(params, EDM(), net, row, cond)
    x, t = jnp.moveaxis(d["x"], 1, -1), jnp.asarray(d["sigma"], jnp.float32)
    run = jax.jit(lambda d, x, t: d(x, t)).lower(denoiser, x, t)
    got = run.compile({"xla_backend_optimization_level": 0})(denoiser, x, t)
    got, x = (np.moveaxis(np.asarray(a), -1, 1) for a in (got, x))
    c_skip, c_out = (np.asarray(c).reshape(-1, 1, 1, 1) for c in row(EDM(), t)[:2])
    raw = (got - c_skip * x) / c_out
    assert np.abs(got - d["D"]).max() < 1e-4 * np.abs(d["D"]).max()
    assert np.abs(raw - d["F"]).max() < 1e-3 * np.abs(d["F"]).max()


@pytest.mark.parametrize(
    ("kind", "fields", "side", "count"),
    [
        ("songunet", {"augment_dim": 9}, 32, 55_733_891),
        ("songunet", {"augment_dim": 9, "num_classes": 10}, 32, 55_735_299),
        # The frequencies are parameters here that are not trained.
        ("songunet", {"augment_dim": 9, **NCSNPP}, 32, 56_397_827 + 128),
        pytest.param("adm", {"num_classes": 1000}, 64, 295_899_267, marks=pytest.mark.slow),
    ],
)
def test_published_sizes(kind, fields, side, count):
    net = Net(NETS[kind](**fields))
    assert parameter_count(jax.eval_shape(lambda: net.init(jax.random.key(0), (side, side, 3)))) == count
