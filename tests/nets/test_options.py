"""Options that no released file has, against the original code (see tests/data/nets/README.md)."""

import gzip
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import CLASSIFIERS, NETS, Net
from score_sde.nets.diffusers_names import from_diffusers_names, to_diffusers_names
from score_sde.nets.edm_names import from_edm_names, to_edm_names
from score_sde.nets.official import from_flax_names, from_torch_names, to_flax_names, to_torch_names
from score_sde.nets.official.rows import flatten
from tests.conditioned import with_conditions
from tests.conftest import DATA
from tests.recipe import state_dict

CASES = json.loads(gzip.decompress((DATA / "nets/options.json.gz").read_bytes()))
CONVERT = {
    "torch": (from_torch_names, to_torch_names),
    "flax": (from_flax_names, to_flax_names),
    "edm": (from_edm_names, to_edm_names),
    "diffusers": (from_diffusers_names, to_diffusers_names),
}
QUICK = ("edm_skip", "diffusers_labels", "diffusers_skip_labels")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_output(name):
    case, shape = CASES[name], (CASES[name]["size"], CASES[name]["size"], 3)
    with np.load(DATA / "nets/options.npz") as file:
        recorded = {key.removeprefix(f"{name}/"): a for key, a in file.items() if key.startswith(f"{name}/")}
    fields = case["fields"] if case["model"] in CLASSIFIERS else with_conditions(case["fields"])
    net = Net((NETS | CLASSIFIERS)[case["model"]](**fields))
    tensors = state_dict(case["seed"], case["table"])
    read, write = CONVERT[case["names"]]
    params = read(tensors, net, shape)
    back = {
        name.removeprefix("model."): array for name, array in flatten(write(params, net, shape), "/").items()
    }
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)

    x = jnp.moveaxis(jnp.asarray(recorded["x"]), 1, -1)
    cond = {key: jnp.asarray(recorded[key]) for key in ("label", "augment") if key in recorded}
    run = jax.jit(lambda params, x, c_noise: net(params, x, c_noise, cond))
    args = (params, x, jnp.asarray(recorded["c_noise"]))
    got = np.asarray(run.lower(*args).compile({"xla_backend_optimization_level": 0})(*args))
    got = np.moveaxis(got, -1, 1) if got.ndim == 4 else got
    for one, want in zip(got, recorded["out"], strict=True):
        assert np.abs(one - want).max() < 5e-5 * np.abs(want).max()
