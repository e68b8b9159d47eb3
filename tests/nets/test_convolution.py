"""Networks on a CPU give the same numbers with and without the convolution that exists for CPUs only."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import nets
from score_sde.cpu import switch
from score_sde.nets import convolution


@pytest.fixture
def both(monkeypatch):
    """What a function returns and the text of its program, with the switch on and off."""

    def run(function: Callable, *args) -> list[tuple]:
        found = []
        for value in ("1", "0"):
            monkeypatch.setenv(switch.SWITCH, value)
            traced = jax.jit(lambda *args: function(*args)).trace(*args)  # a new function, so traced anew
            found.append((traced.lower().compile()(*args), str(traced.jaxpr)))
        return found

    return run


def assert_both_ways(found, tolerance):
    (ours, with_it), (plain, without) = found
    assert "winograd" in with_it
    assert "winograd" not in without
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance(b))


def test_a_convolution(both):
    x, kernel = (jax.random.normal(jax.random.key(0), shape) for shape in ((2, 8, 9, 32), (3, 3, 32, 40)))
    found = both(lambda x, k: convolution.convolve(x, k, 1, (1, 1)), x, kernel)
    assert_both_ways(found, lambda b: 2e-5 * np.abs(b).max())


@pytest.mark.slow
def test_a_network_and_its_gradient(both):
    sizes = {"nf": 32, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": ()}
    net, shape = nets.Net(nets.NCSNpp(**sizes)), (8, 8, 1)
    draw = np.random.default_rng(0).normal  # branches of a new network are silent, which would hide a mistake
    params = jax.tree.map(lambda a: np.float32(0.1 * draw(size=a.shape)), net.shapes(shape))
    x = np.float32(draw(size=(2, *shape)))

    def loss(params, x):
        y = net(params, x, jnp.linspace(0, 9, len(x)))
        return jnp.mean(y**2), y

    found = both(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), params, x)
    largest = max(float(np.abs(b).max()) for b in jax.tree.leaves(found[1][0][1]))
    assert_both_ways(found, lambda b: 2e-5 * max(largest, float(np.abs(b).max())))
