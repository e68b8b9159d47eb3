"""The networks against recordings of the released ones (see tests/data/nets/README.md)."""

import functools
import gzip
import json
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from score_sde.nets import CLASSIFIERS, NETS, Net, parameter_count
from score_sde.nets.official import (
    from_flax_names,
    from_torch_names,
    module_order,
    to_flax_names,
    to_torch_names,
)
from score_sde.nets.official.rows import flatten
from tests.conditioned import conditions, with_conditions

DATA = Path(__file__).parents[1] / "data/nets"
RECIPES, RELEASED, FLAX = (
    json.loads(gzip.decompress((DATA / f"{name}.json.gz").read_bytes()))
    for name in ("recipes", "released", "flax")
)
ON_RAW_SIGMA = "fourier"  # networks with this embedding take ln of the recorded label

# Largest deviation allowed, over the largest output.  The released float32 code itself deviates
# from its float64 run by 1e-6 (positional) to 2e-5 (Fourier: angles of several hundred radians).
TOLERANCE = {"positional": 1e-5, "fourier": 5e-5}
RECORDED = [
    # The first two are compared in convert/test_score_sde.py as well, from a file to the score.
    pytest.param("vp/cifar10_ddpmpp_continuous@nf32", marks=pytest.mark.slow),
    pytest.param("ve/cifar10_ncsnpp_continuous@nf32", marks=pytest.mark.slow),
    pytest.param("ve/cifar10_ncsnpp@nf32", marks=pytest.mark.slow),
    pytest.param("opt/ddpmblock_nofir@nf16", marks=pytest.mark.slow),
    pytest.param("opt/input_skip_output_skip@nf16", marks=pytest.mark.slow),
    # Its parts are those of ve/cifar10_ncsnpp_continuous, which convert/test_score_sde.py compares.
    pytest.param("opt/progressive_residual_fir@nf16", marks=pytest.mark.slow),
    "vp/ddpm/cifar10@nf32",
    pytest.param("ve/ncsn/cifar10@nf32", marks=pytest.mark.slow),
    "ve/ncsnv2/cifar10@nf32",
    pytest.param("subvp/cifar10_ddpmpp_continuous@nf32", marks=pytest.mark.slow),
    pytest.param("vp/cifar10_ddpmpp_continuous@full", marks=pytest.mark.slow),
]


def network(recipe, **changes):
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe["fields"].items()}
    kind = NETS[recipe.get("model", "ncsnpp")]
    return Net(kind(**(with_conditions(fields) | changes))), (recipe["size"], recipe["size"], 3)


def skeleton(recipe, **changes):
    """Without what no tensor depends on, so that recipes share the work."""
    fields = {k: v for k, v in recipe["fields"].items() if k not in ("dropout", "input_range")}
    return network(recipe | {"fields": fields}, **changes)


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


def empty(table):
    """Names and shapes without the cost of values."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape, *_ in table}


def shapes(tensors):
    return {name: list(array.shape) for name, array in tensors.items()}


@pytest.mark.parametrize("name", RECORDED)
def test_output(name):
    recipe = RECIPES[name]
    net, shape = network(recipe)
    tensors = weights(recipe)
    params = from_torch_names(tensors, net, shape)
    back = to_torch_names(params, net, shape)
    assert all(np.array_equal(back.pop(name), array) for name, array in tensors.items())
    assert not back
    recording = np.load(DATA / f"{name.replace('/', '-')}.npz")
    embedding = recipe["fields"].get("embedding_type", "positional")
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
STRUCTURES = [n for n in RECIPES if n.startswith("opt/") or n.endswith("px") or "classes" in RECIPES[n]]


# One network for each way of resampling; the others mix the same parts.
MAIN = [
    "opt/ddpmblock_fir_conv@nf16",
    "opt/ddpmblock_noconvresamp@nf16",
    "opt/input_skip_cat@nf16",
    "opt/unconditional@nf16",
    "opt/nofir_progressive_residual@nf16",
    "opt/ddpm_noconvresamp@nf32",
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in MAIN else pytest.mark.slow) for n in STRUCTURES],
)
def test_names_of_every_option(name):
    """Every tensor of the released network has its place in ours, and the reverse."""
    recipe = RECIPES[name]
    net, shape = skeleton(recipe)
    params = from_torch_names(empty(recipe["table"]), net, shape)  # checks paths, shapes and dtypes
    unused = sum(
        int(np.prod(tensor[1]))
        for tensor in recipe["table"]
        if ".Dense_0." in tensor[0] and not net.module.noise_conditional
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


@functools.cache
def sizes(net, shape, structure):
    """The number of parameters of a network at full size, every tensor of which has its place."""
    if structure is None:  # the released code cannot build it
        return parameter_count(net.shapes(shape))
    recorded = RELEASED["structures"][structure]
    params = from_torch_names(empty(recorded["tensors"]), net, shape)
    assert shapes(to_torch_names(params, net, shape)) == dict(recorded["tensors"])
    if "classes" in recorded:
        assert [kind for _, kind in module_order(net, shape)] == recorded["classes"]
    return parameter_count(params)


# One of each family by default; the others differ in sizes.
FAMILIES = (
    "vp/cifar10_ddpmpp_continuous",
    "vp/ddpm/church",
    "ve/cifar10_ncsnpp_deep_continuous",
    "ve/ncsn/cifar10",
    "ve/ncsnv2/celeba",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in FAMILIES else pytest.mark.slow) for n in RELEASED["recipes"]],
)
def test_released_configurations(name):
    """At full size: the number of parameters, every tensor's name and shape, every layer's class."""
    recipe = RELEASED["recipes"][name]
    count = sizes(*skeleton(recipe), recipe.get("structure"))
    assert count == recipe.get("parameters", 32_329_347)


def test_published_sizes():
    counts = {name: recipe.get("parameters") for name, recipe in RELEASED["recipes"].items()}
    assert len(counts) == 39
    assert counts["vp/cifar10_ddpmpp_continuous"] == 61_804_419
    assert counts["vp/cifar10_ncsnpp_continuous"] == 62_693_251
    assert counts["ve/cifar10_ncsnpp_continuous"] == 62_758_915
    assert counts["ve/ffhq_256_ncsnpp_continuous"] == 65_574_549
    assert counts["ve/ffhq_ncsnpp_continuous"] == 105_785_896
    assert counts["vp/ddpm/cifar10"] == 35_218_947
    assert counts["vp/ddpm/church"] == 111_569_923


JAX_NCSNV2 = {"refine_mult": (1, 2, 2, 2), "unbiased": False, "interpolation": "half_pixel"}


@pytest.mark.parametrize("name", FLAX)
def test_trees_of_the_released_jax_code(name):
    recipe = RECIPES.get(name) or RELEASED["recipes"][name]
    net, shape = skeleton(recipe, **(JAX_NCSNV2 if recipe.get("model") == "ncsnv2_64" else {}))
    params = from_flax_names(empty(FLAX[name].items()), net, shape)
    back = to_flax_names(params, net, shape)
    assert shapes(flatten(back, "/")) == FLAX[name]
    assert parameter_count(from_flax_names(back, net, shape)) == parameter_count(params)  # nested, too


def test_the_two_codes_differ_in_layout_only():
    """Values, not only shapes: PyTorch is output-first, JAX output-last, attention alike."""
    recipe = RECIPES["opt/ddpmblock_fir_conv@nf16"]
    net, shape = network(recipe)
    torch = weights(recipe)
    flax = flatten(to_flax_names(from_torch_names(torch, net, shape), net, shape), "/")
    for ours, theirs, axes in [
        ("all_modules.0.weight", "Dense_0/kernel", (1, 0)),
        ("all_modules.2.weight", "Conv_0/kernel", (2, 3, 1, 0)),
        ("all_modules.7.Conv2d_0.weight", "Downsample_0/Conv2d_0/weight", (2, 3, 1, 0)),
        ("all_modules.8.NIN_0.W", "ResnetBlockDDPMpp_4/NIN_0/W", (0, 1)),
        ("all_modules.9.NIN_1.W", "AttnBlockpp_0/NIN_1/W", (0, 1)),
        ("all_modules.9.GroupNorm_0.weight", "AttnBlockpp_0/GroupNorm_0/scale", (0,)),
    ]:
        np.testing.assert_array_equal(flax[theirs], torch[ours].transpose(axes))


def test_an_embedding_that_nothing_uses():
    """The released code makes it even for unconditional networks, and counts it."""
    recipe = RECIPES["opt/unconditional@nf16"]
    net, shape = network(recipe, embedding_type="fourier")
    tensors = {
        f"all_modules.{int(name.split('.')[1]) + 1}.{name.split('.', 2)[2]}": array
        for name, array in empty(recipe["table"]).items()
    }
    tensors["all_modules.0.W"] = np.zeros(16)
    plain, _ = network(recipe)
    assert parameter_count(from_torch_names(tensors, net, shape)) == parameter_count(plain.shapes(shape))


def test_the_largest_refinenet_is_named_as_its_levels_were():
    """Released without a configuration: its sixth level is called 31 and lies between 3 and 4."""
    net, shape = Net(NETS["ncsnv2_256"](nf=4)), (16, 16, 3)
    params = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), net.shapes(shape))
    got = shapes(to_torch_names(params, net, shape))
    assert got["res31.0.conv2.conv.weight"] == [8, 8, 3, 3]
    assert got["res4.0.conv2.weight"] == [16, 8, 3, 3]
    inputs = ["res5.1.conv2", "refine1.output_convs.1_1_conv", "refine2.msf.convs.1"]
    assert [got[f"{name}.weight"][1] for name in inputs] == [16, 16, 16]
    steps = {"1": 16, "2": 8, "31": 8, "3": 8, "4": 4, "5": 4}
    assert {n: got[f"refine{n}.output_convs.1_1_conv.weight"][0] for n in steps} == steps
    assert "refine5.output_convs.3_2_conv.weight" in got
    assert "refine1.msf.convs.0.weight" not in got


@pytest.mark.parametrize(
    ("net", "convert", "message"),
    [
        (NETS["ncsn"](), from_flax_names, "NCSN: no such network was released"),
        (
            NETS["ncsnpp"](nf=8, conditions=conditions(2)),
            from_torch_names,
            "label: the released network has no such",
        ),
        (CLASSIFIERS["wideresnet"](), from_torch_names, "WideResNet: no such network was released"),
        (NETS["ncsnv2_64"](nf=8, normalization="InstanceNorm"), from_flax_names, "normalization='InstanceN"),
        (NETS["ncsnv2_64"](nf=8, normalization="GroupNorm"), from_torch_names, "normalization='GroupNorm'"),
        (NETS["ncsn"](nf=8, normalization="VarianceNorm"), from_torch_names, "normalization='VarianceNorm'"),
    ],
)
def test_refuses_networks_that_were_not_released(net, convert, message):
    with pytest.raises(ValueError, match=message):
        convert({}, Net(net), (32, 32, 3))


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
    tensors = empty(recipe["table"])
    tensors["module.sigmas"] = np.zeros(10)  # a buffer that released files carry
    net, shape = network(recipe)
    from_torch_names(tensors, net, shape)
    change(tensors)
    with pytest.raises(ValueError, match=message):
        from_torch_names(tensors, net, shape)
