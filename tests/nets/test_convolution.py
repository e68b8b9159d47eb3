"""The convolution for CPUs against XLA's own, in value and in every kind of derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.nets import convolution


def arrays(padding, channels=(64, 5)):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, 6, 5, channels[0]))
    kernel = jax.random.normal(keys[1], (3, 3, *channels))
    dx, dkernel = (jax.random.normal(key, a.shape) for key, a in zip(keys[2:], (x, kernel), strict=True))
    return (x, kernel), (dx, dkernel)


def cpu(x, kernel, padding):
    return convolution.convolve(x, kernel, 1, padding)


def plain(x, kernel, padding):
    return convolution.plain(x, kernel, 1, padding)


def both(padding, derivative):
    """Something of both convolutions, to be equal."""
    for function in (cpu, plain):
        yield jax.tree.leaves(
            jax.jit(derivative(lambda x, k, f=function: f(x, k, padding)))(*arrays(padding))
        )


def gradient(f):
    return lambda primals, tangents: jax.grad(lambda p: jnp.sum(jnp.sin(f(*p))))(primals)


def of_kernel(f):
    return lambda primals, tangents: jax.grad(lambda k: jnp.sum(jnp.sin(f(primals[0], k))))(primals[1])


def tangent(f):
    return lambda primals, tangents: jax.jvp(f, primals, tangents)


def tangents_of_input(f):
    """As the likelihood takes them: several at once, the kernel constant."""
    return lambda primals, tangents: jax.vmap(
        lambda scale: jax.jvp(lambda x: f(x, primals[1]), primals[:1], (scale * tangents[0],))
    )(jnp.arange(3.0))


def second(f):
    return lambda primals, tangents: jax.jvp(gradient(f), (primals, tangents), (tangents, tangents))


CASES = [
    (gradient, (1, 1)),
    (gradient, (0, 1)),
    (tangent, (1, 1)),
    (tangents_of_input, (0, 0)),
    (second, (1, 1)),
]


@pytest.mark.parametrize(("derivative", "padding"), CASES)
def test_derivatives_are_those_of_the_plain_convolution(derivative, padding):
    ours, theirs = both(padding, derivative)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_the_kernel_gradient_has_the_rows_of_all_images_as_one_axis():
    primals, _ = arrays((1, 1))
    program = str(jax.make_jaxpr(of_kernel(lambda x, k: cpu(x, k, (1, 1))))(primals, None))
    assert program.count("conv_general_dilated") == 1 + 3  # the forward pass, and a row of the kernel each
    assert "12,5,64]" in program  # 2 images of 6 rows
