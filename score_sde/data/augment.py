"""Mirrored images, and augmentations that do not leak, since what was done is a condition.

The latter are those of Karras et al. 2022 (arXiv:2206.00364, appendix F.2).  Each of six transformations acts
with a probability of its own; nine numbers describe them, all zero for an untouched image, which is what the
network is asked for when it samples.  Table 6 of the paper:

    x-flip, y-flip       a ~ {0, 1}
    scaling              by A^a, a ~ N(0, 1), A = 2^0.2
    rotation             by a ~ U(-pi, pi)
    anisotropic scaling  by A^a along a direction b ~ U(-pi, pi) and A^-a across it, a ~ N(0, 1), A = 2^0.2
    translation          by a, b ~ N(0, 1) times an eighth of the width

The x-flip alone acts whatever the probability: pictures of the world do not mind.  The paper resamples with
wavelet filters; here an image is enlarged twice by cubic interpolation and read off linearly, its border
mirrored.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates

from score_sde.conditions import Condition, Conditions

AUGMENTED: Conditions = (("augment", Condition("vector", (9,))),)
"""The condition that says how an image was augmented; null: not at all."""

_SCALE = 2.0**0.2
_SHIFT = 0.125


def random_flip(x: Array, key: Array) -> Array:
    """Mirror each image left to right with probability 1/2; ``(B, H, W, C)``, any dtype."""
    if x.ndim != 4:
        raise ValueError(f"data.random_flip needs images (B, H, W, C), got shape {x.shape}")
    flip = jax.random.bernoulli(key, 0.5, (x.shape[0], 1, 1, 1))
    return jnp.where(flip, x[:, :, ::-1, :], x)


def augment(x: Array, key: Array, probability: float) -> tuple[Array, Array]:
    """Augment each image on its own.

    Args:
      x: ``(B, H, W, C)`` float32, in any range.
      key: of the whole batch.
      probability: of every transformation but the x-flip.

    Returns:
      Images ``(B, H, W, C)``, and ``(B, 9)`` numbers that describe what was done: x-flip, y-flip, scale, cos
      and sin of the rotation (less those of none), anisotropy by two components, translation by two.
    """
    return jax.vmap(lambda image, k: _one(image, k, probability))(x, jax.random.split(key, len(x)))


def _one(image: Array, key: Array, probability: float) -> tuple[Array, Array]:
    keys = jax.random.split(key, 8)
    acts = jax.random.bernoulli(keys[0], probability, (5,)).astype(jnp.float32)
    flips = jax.random.bernoulli(keys[1], 0.5, (2,)).astype(jnp.float32)
    x_flip, y_flip = flips[0], flips[1] * acts[0]
    scale = jax.random.normal(keys[2]) * acts[1]
    angle = jax.random.uniform(keys[3], minval=-jnp.pi, maxval=jnp.pi) * acts[2]
    stretch = jax.random.normal(keys[4]) * acts[3]
    direction = jax.random.uniform(keys[5], minval=-jnp.pi, maxval=jnp.pi)
    shift = jax.random.normal(keys[6], (2,)) * acts[4]

    image = jnp.where(x_flip > 0, image[:, ::-1], image)
    image = jnp.where(y_flip > 0, image[::-1], image)
    across = jnp.diag(jnp.stack([_SCALE**-stretch, _SCALE**stretch]))
    inverse = _SCALE**-scale * _turn(angle) @ _turn(direction) @ across @ _turn(-direction)
    moved = _resample(image, inverse, shift * _SHIFT * image.shape[1])
    image = jnp.where(jnp.sum(acts[1:]) > 0, moved, image)
    polar = jnp.stack([jnp.cos(direction), jnp.sin(direction)]) * stretch
    turned = jnp.stack([jnp.cos(angle) - 1.0, jnp.sin(angle)])
    return image, jnp.concatenate([jnp.stack([x_flip, y_flip, scale]), turned, polar, shift])


def _turn(angle: Array) -> Array:
    """A rotation of ``(row, column)``: ``(2, 2)``."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def _resample(image: Array, inverse: Array, shift: Array) -> Array:
    """The image under an affine map about its centre: ``(H, W, C)``.

    Args:
      inverse: ``(2, 2)``, from places in the result to places in ``image``.
      shift: ``(2,)`` pixels by which the result is moved.
    """
    height, width, channels = image.shape
    fine = jax.image.resize(image, (2 * height, 2 * width, channels), "cubic")
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    away = grid - (centre + shift).reshape(1, 1, 2)
    places = jnp.einsum("ij,hwj->hwi", inverse, away) + centre.reshape(1, 1, 2)
    # Pixel p of the image has its centre between pixels 2p and 2p + 1 of the fine one.
    rows, columns = 2 * places[..., 0] + 0.5, 2 * places[..., 1] + 0.5
    read = [map_coordinates(fine[..., c], [rows, columns], order=1, mode="mirror") for c in range(channels)]
    return jnp.stack(read, axis=-1)
