"""Optimizers, each one call; the learning rate warms up linearly and then stays."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from score_sde.arrays import Tree


def adam(
    *,
    batch_size: int = 1,
    learning_rate: float = 2e-4,
    warmup_steps: int = 5000,
    warmup_images: int = 0,
    clip_norm: float = 1.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    decay_steps: int = 0,
) -> optax.GradientTransformation:
    """Adam after clipping of the global norm (arXiv:2011.13456, appendix H.1).

    Args:
      batch_size: images an update.
      learning_rate: after warm-up.
      warmup_steps: the rate of update n (from 0) is ``learning_rate * min(n / warmup_steps, 1)``; the first
        update therefore changes nothing, as in the official code.
      warmup_images: the same counted in training images, in place of steps; 0: count steps.
      clip_norm: larger gradients are scaled down to this norm; 0 clips nothing.
      beta1, beta2: decay of the first and of the second moment.
      epsilon: added to the root of the second moment.
      weight_decay: decoupled (AdamW).
      decay_steps: a cosine takes the rate to zero at this update; 0 keeps it.

    Raises:
      ValueError: an impossible number.
    """
    for name, value in (("learning_rate", learning_rate), ("epsilon", epsilon)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} = {value}: must be positive and finite")
    for name, value in (
        ("warmup_steps", warmup_steps),
        ("warmup_images", warmup_images),
        ("clip_norm", clip_norm),
        ("weight_decay", weight_decay),
        ("decay_steps", decay_steps),
    ):
        if value < 0:
            raise ValueError(f"{name} = {value}: must not be negative")
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} = {value}: must be in [0, 1)")
    if warmup_images:
        warmup_steps = max(1, round(warmup_images / batch_size))
    warm = optax.linear_schedule(0.0, learning_rate, warmup_steps) if warmup_steps else None
    rate = warm or optax.constant_schedule(learning_rate)
    if decay_steps:
        if decay_steps <= warmup_steps:
            raise ValueError(f"decay_steps = {decay_steps}: must exceed warmup_steps = {warmup_steps}")
        rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, decay_steps)
    return optax.chain(
        _clip(clip_norm) if clip_norm else optax.identity(),
        optax.adamw(rate, beta1, beta2, epsilon, weight_decay=weight_decay)
        if weight_decay
        else optax.adam(rate, beta1, beta2, epsilon),
    )


def _clip(norm: float) -> optax.GradientTransformation:
    """Scale gradients down to a global norm, as ``optax.clip_by_global_norm``, by one factor for all.

    That one chooses for each array between what it was and what it would be, so that a pass over all of them
    is made and kept before the optimizer's own.
    """

    def scaled(updates: Tree, params: Tree) -> Tree:
        factor = jnp.minimum(1.0, norm / optax.tree.norm(updates))
        return jax.tree.map(lambda update: factor * update, updates)

    return optax.stateless(scaled)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"adam": adam}


def with_moments(state: Tree, count: int, first: Tree = None, second: Tree = None) -> Tree:
    """The optimizer's state after ``count`` updates, with the moments of Adam if they are known.

    Args:
      state: of one of ``OPTIMIZERS``.
      first, second: trees like the parameters, float32; None leaves them zero.
    """

    def adam_moments(node: Tree) -> Tree:
        if not isinstance(node, optax.ScaleByAdamState) or first is None:
            return node
        mu, nu = (jax.tree.map(jnp.asarray, tree) for tree in (first, second))
        return node._replace(mu=mu, nu=nu)

    state = jax.tree.map(adam_moments, state, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState))
    return optax.tree_utils.tree_set(state, count=jnp.asarray(count, jnp.int32))
