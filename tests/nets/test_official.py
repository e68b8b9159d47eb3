"""The network against recordings of the released one (see tests/data/nets/README.md)."""

import gzip
import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from score_sde.nets import NETS, Net, parameter_count
from score_sde.nets.official import from_torch_names, module_order

DATA = Path(__file__).parents[1] / "data/nets"
RECIPES = json.loads(gzip.decompress((DATA / "recipes.json.gz").read_bytes()))
CONFIGS = json.loads(gzip.decompress((DATA / "configs.json.gz").read_bytes()))
ON_RAW_SIGMA = "fourier"  # networks with this embedding take ln of the recorded label

# Largest deviation allowed, over the largest output.  The released float32 code itself deviates
# from its float64 run by 1e-6 (positional) to 2e-5 (Fourier: angles of several hundred radians).
TOLERANCE = {"positional": 1e-5, "fourier": 5e-5}
RECORDED = [
    "vp/cifar10_ddpmpp_continuous@nf32",
    "ve/cifar10_ncsnpp_continuous@nf32",
    pytest.param("ve/cifar10_ncsnpp@nf32", marks=pytest.mark.slow),
    "opt/ddpmblock_nofir@nf16",
    "opt/input_skip_output_skip@nf16",
    "opt/progressive_residual_fir@nf16",
    pytest.param("subvp/cifar10_ddpmpp_continuous@nf32", marks=pytest.mark.slow),
    pytest.param("vp/cifar10_ddpmpp_continuous@full", marks=pytest.mark.slow),
]


def network(recipe, **changes):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe["fields"].items()}
    return Net(NETS["ncsnpp"](**(fields | changes))), (recipe["size"], recipe["size"], 3)


def weights(recipe):
    """The recipe's tensors, by the rule that made the weights of the recording."""
    return {
        name: np.asarray(
            mean
            + std
            * np.random.Generator(
                np.random.PCG64([recipe["seed"], zlib.crc32(name.encode())])
            ).standard_normal(shape)
        ).astype(np.float32)
        for name, shape, mean, std in recipe["table"]
    }


def empty(recipe):
    """The recipe's names and shapes without the cost of values."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape, *_ in recipe["table"]}


@pytest.mark.parametrize("name", RECORDED)
def test_output(name):
    recipe = RECIPES[name]
    net, shape = network(recipe)
    params = from_torch_names(weights(recipe), net, shape)
    recording = np.load(DATA / f"{name.replace('/', '-')}.npz")
    embedding = recipe["fields"]["embedding_type"]
    labels = recording["labels"]
    c_noise = np.log(labels) if embedding == ON_RAW_SIGMA else labels
    x = np.moveaxis(recording["x"], 1, -1)
    # Little optimisation: the program runs once, so compiling it is all the time there is.
    run = jax.jit(net).lower(params, x, c_noise).compile({"xla_backend_optimization_level": 0})
    ours = np.moveaxis(np.asarray(run(params, x, c_noise)), -1, 1)
    ours = ours / recording["sigma"][:, None, None, None]
    # Per example: a large output at small noise must not hide an error at large noise.
    for got, want in zip(ours, recording["out"], strict=True):
        deviation = np.abs(got - want).max() / np.abs(want).max()
        assert deviation < TOLERANCE[embedding]


# The networks of the same structure at another size, or with another SDE, add nothing.
STRUCTURES = [name for name in RECIPES if name.endswith("@nf16") or "classes" in RECIPES[name]]


# One network for each way of resampling; the others mix the same parts.
MAIN = [
    "opt/ddpmblock_fir_conv@nf16",
    "opt/ddpmblock_noconvresamp@nf16",
    "opt/input_skip_cat@nf16",
    "opt/unconditional@nf16",
    "opt/nofir_progressive_residual@nf16",
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in MAIN else pytest.mark.slow) for n in STRUCTURES],
)
def test_names_of_every_option(name):
    """Every tensor of the released network has its place in ours, and the reverse."""
    recipe = RECIPES[name]
    net, shape = network(recipe)
    params = from_torch_names(empty(recipe), net, shape)  # checks paths, shapes and dtypes
    unused = sum(
        int(np.prod(tensor[1]))
        for tensor in recipe["table"]
        if ".Dense_0." in tensor[0] and not net.module.conditional
    )
    total = sum(int(np.prod(tensor[1])) for tensor in recipe["table"])
    assert parameter_count(params) == total - unused
    order = module_order(net, shape)
    assert [kind for _, kind in order] == recipe.get("classes", [kind for _, kind in order])
    # The released JAX code numbers per class, in the same order.
    numbered, count = {}, {}
    for i, (_, kind) in enumerate(order):
        kind = {"Linear": "Dense", "Conv2d": "Conv"}.get(kind, kind)
        numbered[str(i)] = f"{kind}_{count.setdefault(kind, 0)}"
        count[kind] += 1
    wanted = recipe.get("jax_names", {})  # holds only what has parameters
    assert {i: numbered[i] for i in wanted} == wanted


DISTINCT = {
    json.dumps([c["fields"] | {"dropout": 0, "input_range": 0}, c["size"]]): name
    for name, c in CONFIGS.items()
}


QUICK = (
    "vp/cifar10_ddpmpp_continuous",
    "vp/cifar10_ncsnpp_continuous",
    "ve/cifar10_ncsnpp_continuous",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in DISTINCT.values()],
)
def test_released_configurations(name):
    """At full size: the number of parameters and the class of every layer, in order."""
    config = CONFIGS[name]
    net, shape = network(config)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    assert parameter_count(shapes) == config["parameters"]
    assert [kind for _, kind in module_order(net, shape)] == config["classes"]


def test_published_sizes():
    assert CONFIGS["vp/cifar10_ddpmpp_continuous"]["parameters"] == 61_804_419
    assert CONFIGS["vp/cifar10_ncsnpp_continuous"]["parameters"] == 62_693_251
    assert CONFIGS["ve/cifar10_ncsnpp_continuous"]["parameters"] == 62_758_915


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("all_modules.4.Conv_0.bias"), r"Conv_0.bias: got nothing, want \[16\]"),
        (
            lambda w: w.update({"all_modules.4.Conv_9.bias": np.zeros(3)}),
            r"Conv_9.bias: got \[3\], want nothing: .* no such array",
        ),
        (lambda w: w.update({"all_modules.999.bias": np.zeros(3)}), r"999.bias: got \[3\], want nothing"),
        (lambda w: w.update({"other.bias": np.zeros(3)}), r"other.bias: got \[3\], want nothing"),
        (lambda w: w.update({"all_modules.2.bias": np.zeros(7)}), r"2.bias: got \[7\], want \[16\]"),
    ],
)
def test_refuses_other_state_dicts(change, message):
    recipe = RECIPES["opt/ddpmblock_nofir@nf16"]
    tensors = empty(recipe)
    tensors["module.sigmas"] = np.zeros(10)  # a buffer that released files carry
    net, shape = network(recipe)
    from_torch_names(tensors, net, shape)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        from_torch_names(tensors, net, shape)
