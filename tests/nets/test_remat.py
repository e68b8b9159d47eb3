"""Rematerialised blocks: the same parameters, values and gradients, and fewer things kept."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import nets
from score_sde.cpu import switch
from score_sde.nets import layers
from score_sde.nets.convolution import convolve
from score_sde.nets.initial import draw
from score_sde.nets.remat import POLICIES, rematerialised

SHAPE = (8, 8, 1)
SIZES = {"nf": 32, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (4,), "dropout": 0.1}


def loss(net, params, x):
    """Mean square output with dropout on."""
    return jnp.mean(net(params, x, jnp.linspace(0, 9, len(x)), key=jax.random.key(2)) ** 2)


def kept(net, params, x):
    """Bytes that the forward pass keeps for the backward pass."""
    backward = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(net, p, x), params)[1], params)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))


def test_values_and_gradients_are_those_of_the_plain_block():
    x, time = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 4, 4, 8), (2, 4)]))
    plain = layers.ResBlock(8, dropout=0.5, init_scale=1.0, name="block")
    params = draw(jax.random.key(3), plain.init(jax.random.key(0), x, time, False)["params"])

    def gradient(remat):
        block = rematerialised(layers.ResBlock, remat, static=(3,))
        block = block(8, dropout=0.5, init_scale=1.0, name="block")

        def loss(params):  # the masks of the dropout, too, must be those of the plain block
            return jnp.mean(
                block.apply({"params": params}, x, time, True, rngs={"dropout": jax.random.key(4)}) ** 3
            )

        return jax.jit(jax.value_and_grad(loss))(params)

    want = jax.tree.leaves(gradient("none"))
    for a, b in zip(jax.tree.leaves(gradient("full")), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_each_policy_keeps_less_than_the_one_before():
    sizes = SIZES | {"ch_mult": (1,), "attn_resolutions": ()}
    x, params = jnp.zeros((64, *SHAPE)), nets.Net(nets.NCSNpp(**sizes)).shapes(SHAPE)
    none, products, full = (
        kept(nets.Net(nets.NCSNpp(**sizes, remat=remat)), params, x) for remat in ("none", "products", "full")
    )
    assert full < 0.8 * products < 0.8 * 0.5 * none


@pytest.mark.parametrize(("switched", "convolution"), [("1", "winograd"), ("0", "conv_general_dilated")])
def test_products_keeps_what_a_convolution_returns_however_it_is_computed(switched, convolution, monkeypatch):
    monkeypatch.setenv(switch.SWITCH, switched)
    x, kernel = jnp.ones((1, 8, 8, 32)), jnp.ones((3, 3, 32, 32))

    def count(remat):
        wave = jax.checkpoint(lambda x: jnp.sin(convolve(x, kernel, 1, (1, 1))), policy=POLICIES[remat])
        program = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(wave(x))))(x)
        return len(re.findall(rf" = {convolution}\b", str(program)))

    assert count("products") == 2  # forward, and the gradient's own
    assert count("full") == 3


@pytest.mark.parametrize("name", ["ncsnpp_diffusers", "ddpm", "adm"])
def test_every_network_of_blocks_has_it_and_keeps_its_names(name):
    plain, full = (nets.Net(nets.NETS[name](**SIZES, remat=remat)) for remat in ("none", "full"))
    params = plain.shapes(SHAPE)
    nets.check_spec(full.shapes(SHAPE), params)
    program = jax.make_jaxpr(lambda p: full(p, jnp.zeros((1, *SHAPE)), 1.0))(params)
    repeated = [step for step in program.eqns if "prevent_cse" in step.params]
    assert len(repeated) >= 8  # blocks and attentions


@pytest.mark.slow
@pytest.mark.parametrize("remat", [name for name in POLICIES if name != "none"])
def test_gradients_of_a_network_are_those_of_the_plain_one(remat):
    x = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    plain, other = (nets.Net(nets.NCSNpp(**SIZES, remat=name)) for name in ("none", remat))
    params = plain.init(jax.random.key(0), SHAPE)
    # Branches start silent, which would hide a wrong gradient.
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(jax.random.key(a.size), a.shape), params)
    want, got = (jax.jit(jax.grad(lambda p, net=net: loss(net, p, x)))(params) for net in (plain, other))
    # Of the largest gradient: that of a key's bias in an attention is zero but for rounding.
    atol = 1e-5 * max(float(jnp.abs(b).max()) for b in jax.tree.leaves(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=atol)


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="remat='?some'?: must be one of"):
        nets.Net(nets.NCSNpp(remat="some")).shapes(SHAPE)
