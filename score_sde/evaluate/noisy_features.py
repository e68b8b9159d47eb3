"""Features of a denoising network: what its layers make of an example with some noise.

A denoiser learns representations at middling noise, too strong to copy and too weak to forget (Baranchuk et
al. 2022, arXiv:2112.03126; Xiang et al. 2023, arXiv:2303.09769).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand
from score_sde.denoiser import Denoiser


def layer_shapes(denoiser: Denoiser, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of one example's feature maps, by layer in the order in which they are made.

    Args:
      shape: of one example.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look(x: Array) -> None:  # a pytree would come back with its names sorted
        maps = denoiser.features(x, jnp.asarray(denoiser.sde.t_max, x.dtype))
        shapes.update({layer: value.shape[1:] for layer, value in maps.items()})

    jax.eval_shape(look, jnp.zeros((1, *shape)))
    return shapes


def choose_layer(shapes: dict[str, tuple[int, ...]], name: str = "") -> str:
    """The layer that is named, or of those before the output the last with the fewest positions: where a
    U-Net turns up again.

    Args:
      shapes: as of ``layer_shapes``.

    Raises:
      ValueError: there is no such layer.
    """
    if name and name not in shapes:
        raise ValueError(f"layer = {name!r} is not one of: {', '.join(shapes)}")
    if name:
        return name
    positions = {layer: math.prod(shapes[layer][:-1]) for layer in list(shapes)[:-1]}
    return [layer for layer in positions if positions[layer] == min(positions.values())][-1]


def noisy_features(
    denoiser: Denoiser, x0: Array, log_snr: Array | float, layer: str, *, seed: int = 0, draws: int = 1
) -> Array:
    """Feature map of a layer at one noise level, ``(B, *D)`` to ``(B, *S', C')``, averaged over noise.

    All examples meet the same noise, so that features are functions of the example alone and equal examples
    have equal ones.

    Args:
      log_snr: the noise level; one that the process does not have gives its nearest.
      layer: one of ``layer_shapes``.
      draws: of the noise; 0 shows the network the mean ``alpha x0`` instead.
    """
    t = denoiser.sde.time_of(jnp.asarray(log_snr, x0.dtype))
    alpha, sigma = expand(denoiser.sde.alpha(t), x0), expand(denoiser.sde.sigma(t), x0)
    if draws == 0:
        return denoiser.features(alpha * x0, t)[layer]

    def one(key: Array) -> Array:
        noise = jax.random.normal(key, (1, *x0.shape[1:]), x0.dtype)
        return denoiser.features(alpha * x0 + sigma * noise, t)[layer]

    return jnp.mean(jax.lax.map(one, jax.random.split(jax.random.key(seed), draws)), axis=0)


def pooled(x: Array, cells: int) -> Array:
    """Means over ``cells`` equal parts of every spatial axis: ``(B, *S, C)`` to ``(B, cells^n C)``.

    Parts share a position where the size is no multiple; an axis of fewer positions is left as it is.
    """
    for axis in range(1, x.ndim - 1):
        matrix = jnp.asarray(_averaging(x.shape[axis], min(cells, x.shape[axis])), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(x, matrix, axes=(axis, 1)), -1, axis)
    return x.reshape(x.shape[0], -1)


def _averaging(size: int, cells: int) -> np.ndarray:
    matrix = np.zeros((cells, size))
    for i in range(cells):
        matrix[i, i * size // cells : -(-(i + 1) * size // cells)] = 1.0
    return matrix / matrix.sum(axis=1, keepdims=True)
