"""Operators of measurements: what they do, their adjoints, and what is known of their eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.inverse import MASK, Blur, BoxDown, ChannelMean, Function, LinearOperator, Mask, check_adjoint

SHAPE, COUNT = (6, 4, 3), 5
SEEN = (np.random.default_rng(0).random((COUNT, *SHAPE)) < 0.5).astype(np.float32)
GIVEN = {MASK: jnp.asarray(SEEN)}


def mean_of_rows(x):
    return x.mean(axis=0)


OPERATORS = {
    "mask": Mask(),
    "channel_mean": ChannelMean(channels=3),
    "box_down": BoxDown(factor=2),
    "blur": Blur(blur_sigma=0.7),
    "function": Function(function=mean_of_rows, shape=SHAPE),
}
KNOWN = [name for name in OPERATORS if name != "function"]


def states(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(COUNT, *SHAPE)), jnp.float32)


def matrix(operator, sample=0):
    """``A`` of one sample: ``(M, D)``."""
    units = np.eye(int(np.prod(SHAPE)), dtype=np.float32).reshape(-1, *SHAPE)
    given = {MASK: jnp.broadcast_to(GIVEN[MASK][sample], units.shape)}
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
    check_adjoint(operator, SHAPE, {MASK: GIVEN[MASK][:1]}, jax.random.key(0))


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
        if name == "blur":
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
    with pytest.raises(ValueError, match="blur_sigma = 0: must be positive"):
        Blur(blur_sigma=0)
    with pytest.raises(ValueError, match="Function: its singular values are not known"):
        OPERATORS["function"].pseudo_inverse(states(), {})
