"""The convolution for CPUs against XLA's own, in value and in every kind of derivative."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.cpu import winograd
from score_sde.nets import convolution


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


def of_each_example(f):
    """Gradients of each example by itself, for kernels of their own too."""

    def both(primals, tangents):
        x, kernel = primals
        loss = lambda x, kernel: jnp.sum(jnp.sin(f(x[None], kernel)))  # noqa: E731
        kernels = jnp.stack([kernel, -2.0 * kernel])
        alone = jax.vmap(jax.grad(loss, (0, 1)), (0, None))(x, kernel)
        return alone, jax.vmap(jax.grad(loss, (0, 1)))(x, kernels)

    return both


def of_many_kernels(f):
    """The gradient through a map over kernels."""
    return lambda primals, tangents: jax.grad(
        lambda kernels: jnp.sum(jnp.sin(jax.vmap(lambda k: f(primals[0], k))(kernels)))
    )(jnp.stack([primals[1], tangents[1]]))


def second(f):
    return lambda primals, tangents: jax.jvp(gradient(f), (primals, tangents), (tangents, tangents))


def second_in_reverse(f):
    def slope(primals):
        first = gradient(f)(primals, None)
        return sum(jnp.sum(a**2) for a in jax.tree.leaves(first))

    return lambda primals, tangents: jax.grad(slope)(primals)


CASES = [
    (value, 8),
    (value, 13),
    (gradient, 13),
    (tangent, 13),
    (tangents_of_input, 8),
    (of_each_example, 13),
    (of_many_kernels, 8),
    (second, 13),
    (second_in_reverse, 13),
]


@pytest.mark.parametrize(("derivative", "width"), CASES)
def test_values_and_derivatives_are_those_of_the_plain_convolution(derivative, width):
    both = (winograd.convolve, plain)
    ours, theirs = (jax.tree.leaves(jax.jit(derivative(f))(*arrays(width))) for f in both)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


def test_operations_are_those_of_the_products_and_sums_and_less_than_a_third_of_the_plain_ones():
    channels, tiles = 256, 8 * 8 * 8
    x, kernel = (jax.ShapeDtypeStruct(s, "float32") for s in ((8, 32, 32, 256), (3, 3, 256, 256)))
    ours, theirs = (jax.jit(f).lower(x, kernel).cost_analysis()["flops"] for f in (winograd.convolve, plain))
    products = 2 * 36 * channels**2 * (tiles + 9)
    to_points, from_points = 22, 16  # sums and multiples, of six numbers; images have 34 columns for 8 tiles
    sums = channels * tiles * ((34 / 8 + 6) * to_points + (6 + 4) * from_points)
    assert ours == pytest.approx(products + sums, rel=1e-4)
    assert ours < theirs / 3.5


@pytest.mark.parametrize("points", [winograd.POINTS, (0.0, 1.0, -1.0, 2.0, -2.0)])
def test_the_matrices_are_those_of_a_filter_of_three_taps(points):
    rng = np.random.default_rng(0)
    inputs, taps = rng.normal(size=6), rng.normal(size=3)
    from_products, of_kernel, of_input = winograd.matrices(points)
    outputs = from_products @ ((of_kernel @ taps) * (of_input @ inputs))
    np.testing.assert_allclose(outputs, np.correlate(inputs, taps), atol=1e-13)


def test_rounding():
    """With points 0, 1, -1, 2 and -2 it is 1e-5."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(4, 8, 8, 256)), rng.normal(size=(3, 3, 256, 256))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(padded[:, i : i + 8, j : j + 8] @ kernel[i, j] for i in range(3) for j in range(3))
    error = np.abs(winograd.convolve(np.float32(x), np.float32(kernel)) - exact).max()
    assert error < 6e-6 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("side", "channels", "dtype", "taken"),
    [
        (32, (64, 64), "float32", True),
        (8, (256, 256), "float32", True),
        (31, (64, 64), "float32", True),
        (4, (1024, 1024), "float32", False),  # one tile
        (17, (64, 64), "float32", False),  # half of its tiles outside
        (256, (16, 256), "float32", False),
        (32, (128, 128), "bfloat16", False),
    ],
)
def test_those_too_small_to_gain_and_bfloat16_are_left_to_xla(side, channels, dtype, taken):
    x, kernel = (jax.ShapeDtypeStruct(s, dtype) for s in ((2, side, side, channels[0]), (3, 3, *channels)))

    def by_xla(stride, padding):
        program = jax.make_jaxpr(lambda x, k: convolution.convolve(x, k, stride, padding))(x, kernel)
        return "conv_general_dilated[" in str(program)

    assert by_xla(1, (1, 1)) == (not taken)
    assert by_xla(2, (1, 1)) and by_xla(1, (0, 1))


@pytest.mark.parametrize("side", [4, 8])
def test_the_choice_does_not_depend_on_the_batch(side):
    kernel = jax.ShapeDtypeStruct((3, 3, 64, 64), "float32")
    chosen = {winograd.pays(jax.ShapeDtypeStruct((n, side, side, 64), "float32"), kernel) for n in (1, 2, 64)}
    assert len(chosen) == 1


@pytest.mark.parametrize("check", [True, False])
def test_gradients_are_summed_over_the_devices_where_jax_would(check):
    """A checked ``shard_map`` sums the gradient of what all devices share; an unchecked one leaves that."""
    mesh = jax.sharding.Mesh(jax.devices()[:2], "data")
    x, kernel = (jax.random.normal(jax.random.key(0), s) for s in ((4, 8, 8, 32), (3, 3, 32, 32)))

    def by(convolve):
        def slope(x, kernel):
            g = jax.grad(lambda k: jnp.sum(jnp.sin(convolve(x, k, 1, (1, 1)))))(kernel)
            return g if check else jax.lax.psum(g, "data")

        data, every = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
        whole = jax.shard_map(slope, mesh=mesh, in_specs=(data, every), out_specs=every, check_vma=check)
        return jax.jit(whole)(x, kernel), str(jax.make_jaxpr(whole)(x, kernel))

    (ours, program), (theirs, _) = by(convolution.convolve), by(convolution.plain)
    assert ("winograd" in program) == (not check)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_over_devices_only_the_gradient_itself_is_summed():
    """No device is given what others have of the examples, or their 36 products in place of nine taps."""
    mesh = jax.sharding.Mesh(jax.devices()[:4], "data")
    split, every = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (["data"], [])
    )
    x, kernel = (jax.random.normal(jax.random.key(0), s) for s in ((8, 8, 8, 32), (3, 3, 32, 48)))

    def slope(x, kernel):
        return jax.grad(lambda k: jnp.sum(jnp.sin(convolution.convolve(x, k, 1, (1, 1)))))(kernel)

    program = jax.jit(slope, in_shardings=(split, every), out_shardings=every).lower(x, kernel).compile()
    exchanged = re.findall(r" = (\S+) (all-\w+|collective-permute|reduce-scatter)\(", program.as_text())
    assert {kind for _, kind in exchanged} == {"all-reduce"}
    sizes = [
        np.prod([int(n) for n in re.findall(r"\d+", shape.split("[")[1].split("]")[0])])
        for shape, _ in exchanged
    ]
    assert sum(sizes) == kernel.size
    alone = slope(x, kernel)
    np.testing.assert_allclose(program(x, kernel), alone, rtol=0, atol=2e-5 * np.abs(alone).max())


def test_examples_that_devices_cannot_share_evenly():
    """Three on four devices, whose tiles are no multiple of four: the gradient is that of one device."""
    mesh = jax.sharding.Mesh(jax.devices()[:4], "data")
    every = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    x, y = (jax.random.normal(jax.random.key(i), (3, 12, 12, 32)) for i in range(2))
    over = jax.jit(winograd.CORRELATION.bind, in_shardings=(every, every))
    alone = winograd.CORRELATION.bind(x, y)
    np.testing.assert_allclose(over(x, y), alone, rtol=0, atol=2e-5 * np.abs(alone).max())
