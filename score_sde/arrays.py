"""Per-example scalars against a batch, and what a tree of parameters is.  Nothing else lives here."""

from collections.abc import Mapping
from typing import Any, Union

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Arrays by name, nested.
Params = Mapping[str, Union["Params", Array]]
# Parameters by part: ``net``, and where there is one ``sde``, ``codec``, ``teacher``, ...
Parts = Mapping[str, Params]
HostParams = Mapping[str, Union["HostParams", np.ndarray]]  # the same on the host
Tree = Any  # a pytree of arrays, whose structure only its owner knows


def expand(t: Array | float, x: Array) -> Array:
    """Append unit axes to ``t`` so that it broadcasts against ``x``.

    Args:
      t: ``()`` or ``(B,)``.
      x: ``(B, *D)``.

    Returns:
      ``t`` with shape ``(1, ..., 1)`` or ``(B, 1, ..., 1)``, as many axes as ``x``.

    Raises:
      ValueError: ``t`` is neither a scalar nor one value per example.
    """
    t = jnp.asarray(t)
    if t.ndim == 0:
        return t.reshape((1,) * x.ndim)
    if t.ndim != 1 or t.shape[0] != x.shape[0]:
        raise ValueError(f"expected t of shape () or ({x.shape[0]},), got {t.shape}")
    return t.reshape(t.shape + (1,) * (x.ndim - 1))


def sum_dims(x: Array) -> Array:
    """Sum over all axes but the first: ``(B, *D)`` to ``(B,)``."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def mean_dims(x: Array) -> Array:
    """Mean over all axes but the first: ``(B, *D)`` to ``(B,)``."""
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def normal_per_sample(keys: Array, shape: tuple[int, ...]) -> Array:
    """Independent unit normals, one key per sample: ``(B,)`` keys to ``(B, *shape)`` float32.

    A sample's draw depends on its own key only, hence neither on the batch size nor on the
    number of devices.
    """
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def fold_in_each(keys: Array, data: Array | int) -> Array:
    """``jax.random.fold_in`` of one integer into every key of a ``(B,)`` key array."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, data)
