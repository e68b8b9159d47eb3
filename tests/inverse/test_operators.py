"""Operators of measurements: what they do, their adjoints, and what is known of their eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from score_sde.inverse import (
    FREQUENCIES,
    MASK,
    BicubicDown,
    Blur,
    BoxDown,
    ChannelMean,
    Fourier,
    Function,
    LinearOperator,
    Mask,
    Radon,
    check_adjoint,
)

SHAPE, COUNT = (6, 4, 3), 5
SEEN = (np.random.default_rng(0).random((COUNT, *SHAPE)) < 0.5).astype(np.float32)
LINES = (np.random.default_rng(2).random((COUNT, 6, 4, 1)) < 0.6).astype(np.float32)  # not symmetric
GIVEN = {MASK: jnp.asarray(SEEN), FREQUENCIES: jnp.asarray(LINES)}


def mean_of_rows(x):
    return x.mean(axis=0)


OPERATORS = {
    "mask": Mask(),
    "channel_mean": ChannelMean(channels=3),
    "box_down": BoxDown(factor=2),
    "bicubic_down": BicubicDown(factor=2),
    "blur": Blur(blur_sigma=0.7),
    "fourier": Fourier(),
    "radon": Radon(size=(6, 4), angles=5),
    "function": Function(function=mean_of_rows, shape=SHAPE),
}
KNOWN = [name for name in OPERATORS if name not in ("function", "radon")]


def states(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(COUNT, *SHAPE)), jnp.float32)


def matrix(operator, sample=0):
    """``A`` of one sample: ``(M, D)``."""
    units = np.eye(int(np.prod(SHAPE)), dtype=np.float32).reshape(-1, *SHAPE)
    given = {
        name: jnp.broadcast_to(value[sample], (len(units), *value.shape[1:])) for name, value in GIVEN.items()
    }
    return np.asarray(operator.apply(jnp.asarray(units), given)).reshape(len(units), -1).T


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_is_the_transpose(name):
    operator = OPERATORS[name]
    x, y = states(), operator.apply(states(1), GIVEN)
    back = operator.adjoint(y, GIVEN)
    assert back.shape == x.shape
    for i in range(COUNT):
        want = matrix(operator, i).T @ np.asarray(y[i]).ravel()
        np.testing.assert_allclose(np.asarray(back[i]).ravel(), want, atol=1e-5)
    check_adjoint(operator, SHAPE, {name: value[:1] for name, value in GIVEN.items()}, jax.random.key(0))


@pytest.mark.parametrize("name", KNOWN)
def test_functions_of_the_gram_matrix_and_the_pseudo_inverse_are_those_of_the_matrix(name):
    operator = OPERATORS[name]
    y = jnp.asarray(np.random.default_rng(3).normal(size=operator.apply(states(), GIVEN).shape), jnp.float32)
    scale = jnp.arange(1.0, COUNT + 1)[:, None, None, None]  # a number for each sample
    got = operator.of_gram(lambda eigenvalues: 1.0 / (scale * eigenvalues + 0.3), y, GIVEN)
    inverse = operator.pseudo_inverse(y, GIVEN)
    for i in range(COUNT):
        a = matrix(operator, i)
        v = np.asarray(y[i]).ravel()
        want = np.linalg.solve((i + 1) * a @ a.T + 0.3 * np.eye(len(a)), v)
        np.testing.assert_allclose(np.asarray(got[i]).ravel(), want, rtol=1e-4, atol=1e-5)
        if name in ("blur", "bicubic_down"):
            assert np.linalg.cond(a) < 1e3  # whose inverse float32 resolves
        want = np.linalg.pinv(a) @ v
        np.testing.assert_allclose(np.asarray(inverse[i]).ravel(), want, rtol=1e-3, atol=1e-3)


def test_what_they_measure():
    x = states()
    np.testing.assert_array_equal(OPERATORS["mask"].apply(x, GIVEN), SEEN * np.asarray(x))
    np.testing.assert_allclose(OPERATORS["channel_mean"].apply(x, {})[..., 0], np.mean(x, axis=-1), atol=1e-6)
    boxes = np.asarray(x).reshape(COUNT, 3, 2, 2, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(OPERATORS["box_down"].apply(x, {}), boxes, atol=1e-6)
    flat = jnp.ones((1, 8, 8, 1))
    np.testing.assert_allclose(OPERATORS["blur"].apply(flat, {}), flat, atol=1e-6)  # of sum one
    point = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
    spread = np.asarray(Blur(blur_sigma=1.0).apply(point, {}))[0, :, :, 0]
    place = np.arange(9) - 4
    np.testing.assert_allclose(spread.sum(axis=0) @ place**2, 1.0, rtol=0.01)  # its variance
    series = jnp.arange(8.0).reshape(1, 8, 1)
    np.testing.assert_allclose(BoxDown(factor=4).apply(series, {})[0, :, 0], [1.5, 5.5])


def test_bicubic_interpolation_is_that_of_pillow():
    x = np.random.default_rng(0).random((40, 24)).astype(np.float32)
    for factor in (2, 4):
        got = np.asarray(BicubicDown(factor=factor).apply(jnp.asarray(x)[None, ..., None], {}))[0, ..., 0]
        size = (24 // factor, 40 // factor)
        want = np.asarray(Image.fromarray(x, mode="F").resize(size, Image.Resampling.BICUBIC))
        inner = np.s_[2:-2, 2:-2]  # which no border reaches
        np.testing.assert_allclose(got[inner], want[inner], atol=1e-6)
        flat = jnp.full((1, 40, 24, 1), 0.7)
        np.testing.assert_allclose(BicubicDown(factor=factor).apply(flat, {}), 0.7, atol=1e-6)
    mirrored = jnp.asarray(np.concatenate([x[::-1], x, x[::-1]]))[None, ..., None]
    long = BicubicDown(factor=4).apply(mirrored, {})[:, 10:20]
    np.testing.assert_allclose(BicubicDown(factor=4).apply(mirrored[:, 40:80], {}), long, atol=1e-6)


def test_frequencies_are_those_of_the_orthonormal_transform():
    x, y = states(), Fourier().apply(states(), GIVEN)
    want = LINES * np.fft.fft2(np.asarray(x), axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(y[..., :3] + 1j * y[..., 3:], want, atol=1e-6)
    everything = {FREQUENCIES: jnp.ones((COUNT, 6, 4, 1))}
    back = Fourier().adjoint(Fourier().apply(x, everything), everything)
    np.testing.assert_allclose(back, x, atol=1e-6)


def test_rays_keep_the_mass_and_meet_the_detector_where_they_should():
    operator = Radon(size=(6, 4), angles=2)  # along columns, and along rows
    x = states()
    y = np.asarray(operator.apply(x, {})) * 6
    middle = (operator.detectors - 1) / 2
    np.testing.assert_allclose(y.sum(axis=2), np.sum(x, axis=(1, 2))[:, None].repeat(2, axis=1), atol=1e-5)
    for view, axis, size in ((0, 1, 4), (1, 2, 6)):
        sums, first = np.sum(x, axis=axis), middle - (size - 1) / 2
        spread = np.zeros_like(y[:, view])
        for i in range(size):
            low = int(np.floor(first + i))
            spread[:, low] += (1 - (first + i - low)) * sums[:, i]
            spread[:, low + 1] += (first + i - low) * sums[:, i]
        np.testing.assert_allclose(y[:, view], spread, atol=1e-5)
    turned = Radon(size=(9, 9), angles=4).apply(jnp.zeros((1, 9, 9, 1)).at[0, 0, 0, 0].set(1.0), {})
    detectors = np.arange(turned.shape[2]) - (turned.shape[2] - 1) / 2
    center = np.asarray(turned)[0, ..., 0] @ detectors * 9
    angle = np.arange(4) * np.pi / 4
    np.testing.assert_allclose(center, -4 * np.cos(angle) - 4 * np.sin(angle), atol=1e-5)


class Wrong(LinearOperator):
    def apply(self, x, given):
        return 2.0 * x

    def adjoint(self, y, given):
        return y


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"Wrong: its adjoint is not its adjoint: <A x, y> = "):
        check_adjoint(Wrong(), SHAPE, {}, jax.random.key(0))
    with pytest.raises(ValueError, match=r"factor = 4: must divide the sizes \(6, 4\)"):
        BoxDown(factor=4).apply(states(), {})
    with pytest.raises(ValueError, match=r"factor = 4: must divide the sizes \(6, 4\)"):
        BicubicDown(factor=4).apply(states(), {})
    with pytest.raises(ValueError, match=r"size = \(4, 4\): must be that of the states, \(6, 4\)"):
        Radon(size=(4, 4)).apply(states(), {})
    with pytest.raises(ValueError, match="angles = 0: must be positive"):
        Radon(size=(4, 4), angles=0)
    with pytest.raises(ValueError, match="blur_sigma = 0: must be positive"):
        Blur(blur_sigma=0)
    with pytest.raises(ValueError, match="Function: its singular values are not known"):
        OPERATORS["function"].pseudo_inverse(states(), {})
