"""The convolution for CPUs against XLA's own, in value and in every kind of derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import convolution, winograd


def arrays(width=13, channels=(4, 5)):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, 6, width, channels[0]))
    kernel = jax.random.normal(keys[1], (3, 3, *channels))
    dx, dkernel = (jax.random.normal(key, a.shape) for key, a in zip(keys[2:], (x, kernel), strict=True))
    return (x, kernel), (dx, dkernel)


def plain(x, kernel):
    return convolution.plain(x, kernel, 1, (1, 1))


def value(f):
    return lambda primals, tangents: f(*primals)


def gradient(f):
    return lambda primals, tangents: jax.grad(lambda p: jnp.sum(jnp.sin(f(*p))))(primals)


def tangent(f):
    return lambda primals, tangents: jax.jvp(f, primals, tangents)


def tangents_of_input(f):
    """As the likelihood takes them: several at once, the kernel constant."""
    return lambda primals, tangents: jax.vmap(
        lambda scale: jax.jvp(lambda x: f(x, primals[1]), primals[:1], (scale * tangents[0],))
    )(jnp.arange(3.0))


def second(f):
    return lambda primals, tangents: jax.jvp(gradient(f), (primals, tangents), (tangents, tangents))


CASES = [(value, 8), (value, 13), (gradient, 13), (tangent, 13), (tangents_of_input, 8), (second, 13)]


@pytest.mark.parametrize(("derivative", "width"), CASES)
def test_values_and_derivatives_are_those_of_the_plain_convolution(derivative, width):
    both = (winograd.convolve, plain)
    ours, theirs = (jax.tree.leaves(jax.jit(derivative(f))(*arrays(width))) for f in both)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


def test_half_the_multiplications():
    primals, _ = arrays(16, (64, 64))
    functions = (winograd.convolve, plain)
    flops = [jax.jit(f).lower(*primals).compile().cost_analysis()["flops"] for f in functions]
    assert flops[0] / flops[1] == pytest.approx(0.5, abs=0.1)


def test_the_matrices_are_those_of_a_filter_of_three_taps():
    rng = np.random.default_rng(0)
    inputs, taps = rng.normal(size=6), rng.normal(size=3)
    products = (winograd.OF_KERNEL @ taps) * (winograd.OF_INPUT @ inputs)
    np.testing.assert_allclose(winograd.FROM_PRODUCTS @ products, np.correlate(inputs, taps), atol=1e-13)


@pytest.mark.parametrize(
    ("side", "channels", "dtype", "count"),
    [
        (32, (64, 64), "float32", 6),
        (8, (256, 256), "float32", 6),
        (31, (64, 64), "float32", 1),
        (256, (16, 256), "float32", 1),
        (4, (1024, 1024), "float32", 1),
        (32, (128, 128), "bfloat16", 1),
    ],
)
def test_those_too_small_to_gain_and_bfloat16_are_left_to_xla(side, channels, dtype, count):
    x, kernel = (jax.ShapeDtypeStruct(s, dtype) for s in ((2, side, side, channels[0]), (3, 3, *channels)))

    def convolutions(stride, padding):
        program = jax.make_jaxpr(lambda x, k: convolution.convolve(x, k, stride, padding))(x, kernel)
        return str(program).count("conv_general_dilated[")

    assert convolutions(1, (1, 1)) == count
    assert convolutions(2, (1, 1)) == convolutions(1, (0, 1)) == 1
