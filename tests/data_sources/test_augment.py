"""Augmentation: what the labels say is what happened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.data import AUGMENTED, augment
from score_sde.data.augment import _resample, _turn


@pytest.fixture(scope="module")
def smooth():
    """One image of a few waves that mirror at the border, ``(32, 32, 2)``."""
    row, column = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    waves = [np.cos(np.pi * (row + 0.5) / 32 * 2), np.cos(np.pi * (column + 0.5) / 32 * 3)]
    return jnp.asarray(np.stack([waves[0] + 0.5 * waves[1], waves[0] * waves[1]], -1), jnp.float32)


def inner(image):
    return np.asarray(image)[4:-4, 4:-4]


@pytest.mark.parametrize(
    ("inverse", "shift", "expected"),
    [
        (np.eye(2), (0, 0), lambda image: image),
        (_turn(jnp.pi / 2), (0, 0), lambda image: np.rot90(image, -1)),
        (np.diag([-1.0, 1.0]), (0, 0), lambda image: image[::-1]),
        (np.eye(2), (3, -2), lambda image: np.roll(image, (3, -2), (0, 1))),
    ],
    ids=["identity", "quarter turn", "mirror", "shift"],
)
def test_resampling_is_exact_where_pixels_meet_pixels(smooth, inverse, shift, expected):
    got = _resample(smooth, jnp.asarray(inverse, jnp.float32), jnp.asarray(shift, jnp.float32))
    wanted = inner(expected(np.asarray(smooth)))
    other = inner(expected(np.asarray(smooth)).transpose(1, 0, 2))
    assert np.abs(inner(got) - wanted).max() < 0.02 < np.abs(inner(got) - other).max()


def test_without_probability_only_flips_and_labels_that_say_so(smooth):
    x = jnp.broadcast_to(smooth, (64, *smooth.shape))
    images, labels = augment(x, jax.random.key(0), 0.0)
    assert labels.shape == (64, *AUGMENTED[0][1].shape)
    flipped = np.asarray(labels[:, 0]).astype(bool)
    assert 16 < flipped.sum() < 48
    np.testing.assert_array_equal(labels[:, 1:], 0)
    np.testing.assert_array_equal(images[~flipped], x[~flipped])
    np.testing.assert_array_equal(images[flipped], x[flipped][:, :, ::-1])


def test_each_transformation_acts_with_its_probability(smooth):
    labels_alone = jax.jit(lambda x, key: augment(x, key, 0.12)[1])  # the images would take a minute
    labels = labels_alone(jnp.broadcast_to(smooth[:4, :4], (4000, 4, 4, 2)), jax.random.key(1))
    groups = [[2], [3, 4], [5, 6], [7, 8]]
    share = [np.mean(np.any(np.asarray(labels)[:, g] != 0, axis=1)) for g in groups]
    np.testing.assert_allclose(share, 0.12, atol=5 * np.sqrt(0.12 * 0.88 / 4000))
    assert np.mean(labels[:, 1]) == pytest.approx(0.06, abs=0.02)
    scale = np.asarray(labels)[:, 2]
    assert np.std(scale[scale != 0]) == pytest.approx(1.0, abs=0.15)


def test_an_image_does_not_depend_on_its_neighbours(smooth):
    x = jnp.stack([smooth, smooth[::-1]])
    images, labels = augment(x, jax.random.key(2), 1.0)
    others, same = augment(jnp.stack([smooth, 0 * smooth]), jax.random.key(2), 1.0)
    np.testing.assert_array_equal(labels, same)
    np.testing.assert_allclose(images[0], others[0], atol=1e-6)
    assert float(jnp.abs(images[0] - smooth).max()) > 0.1


def test_transformations_act_independently_of_each_other(smooth):
    # y-flip, scale, rotation, anisotropy, translation: every pair acts with the square of the probability.
    count, probability = 4000, 0.4
    images = jnp.broadcast_to(smooth[:8, :8], (count, 8, 8, 2))
    _, label = jax.jit(augment, static_argnums=2)(images, jax.random.key(5), probability)
    label = np.asarray(label)
    acts = np.stack(
        [label[:, 2] != 0, *(np.any(label[:, i : i + 2] != 0, axis=1) for i in (3, 5, 7))]
    ).astype(float)
    both = acts @ acts.T / count
    want = np.where(np.eye(4) > 0, probability, probability**2)
    np.testing.assert_allclose(both, want, atol=4 * np.sqrt(0.25 / count))


def test_the_direction_of_the_stretch_is_not_the_angle_of_the_rotation(smooth):
    images = jnp.broadcast_to(smooth[:8, :8], (2000, 8, 8, 2))
    _, label = jax.jit(augment, static_argnums=2)(images, jax.random.key(6), 1.0)
    label = np.asarray(label, np.float64)
    angle = np.stack([label[:, 3] + 1.0, label[:, 4]])
    polar = label[:, 5:7].T / np.linalg.norm(label[:, 5:7], axis=1)
    for left in (angle, np.abs(angle)):
        for right in (polar, np.abs(polar)):
            assert np.abs(np.corrcoef(np.concatenate([left, right]))[:2, 2:]).max() < 4 / np.sqrt(2000)
