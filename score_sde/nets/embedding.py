"""How conditions enter a network: classes and vectors through the noise embedding, images as channels.

Every condition has a submodule under its own name.
"""

import functools
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Cond, Condition, Conditions
from score_sde.nets import layers
from score_sde.nets.initial import Law, averaged

Embed = Callable[[Array], Array]  # values ``(B, *shape)`` to ``(B, features)``
Embedding = Callable[[Condition, int, str], Embed]  # (condition, features, name), of a submodule of that name
IMAGE = "image"


def one_hot(
    condition: Condition, features: int, name: str, *, dtype: str, law: Law = averaged
) -> Callable[[Array], Array]:
    """A class as a row of a table; none adds nothing."""
    return layers.ClassEmbedding(features, condition.classes, dtype, law, name=name)


def linear(
    condition: Condition, features: int, name: str, *, dtype: str, law: Law = averaged
) -> Callable[[Array], Array]:
    """A vector times a matrix; without a bias, so that zeros add nothing."""
    return layers.Dense(features, bias=False, dtype=dtype, law=law, name=name)


def add(h: Array, conditions: Conditions, cond: Cond, kinds: Mapping[str, Embedding]) -> Array:
    """``h``, ``(B, features)``, plus the embedding of each condition whose kind is in the table.

    Called while a module is being set up, whose submodules the embeddings become.
    """
    for name, condition in conditions:
        if condition.kind in kinds:
            h = h + kinds[condition.kind](condition, h.shape[-1], name)(cond[name])
    return h


def added(dtype: str) -> dict[str, Embedding]:
    """What the networks of Song et al. and Ho et al. add to the embedded noise level."""
    return {
        "class": functools.partial(one_hot, dtype=dtype),
        "vector": functools.partial(linear, dtype=dtype),
    }


def with_images(x: Array, conditions: Conditions, cond: Cond) -> Array:
    """``x``, ``(B, *S, C)``, with the channels of every image behind its own."""
    images = [cond[name].astype(x.dtype) for name, condition in conditions if condition.kind == IMAGE]
    return jnp.concatenate([x, *images], axis=-1) if images else x
