"""One update as a pure function: ``(state, batch) -> (state, metrics)``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.denoiser import Cond
from score_sde.mesh import BATCH, replicated, state_shardings
from score_sde.train.ema import Decay
from score_sde.train.state import TrainState

Batch = dict[str, Array]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class Objective:
    """What a step minimises, in functions.

    Attributes:
      prepare: ``(batch, key) -> (x0, cond)``: the raw batch flipped, dequantised and scaled, and what the
        network is told about it.
      bind: ``(params, cond) -> denoiser``, or whatever else the loss is about.
      loss: ``(denoiser, x0, key) -> (B,), aux``; what is scalar in ``aux`` is logged.
    """

    prepare: Callable[[Batch, Array], tuple[Array, Cond]]
    bind: Callable[[Any, Cond], Any]
    loss: Callable[[Any, Array, Array], tuple[Array, dict[str, Array]]]

    def __call__(self, params: Any, batch: Batch, key: Array) -> tuple[Array, Metrics]:
        """Mean loss of a raw batch, ``()``, and its variance over the examples with other scalars."""
        key_data, key_loss = jax.random.split(key)
        x0, cond = self.prepare(batch, key_data)
        denoiser = self.bind(params, cond)
        per_example, aux = self.loss(denoiser, x0, key_loss)
        scalars = {name: value for name, value in aux.items() if value.ndim == 0}
        return jnp.mean(per_example), {"loss_variance": jnp.var(per_example), **scalars}


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decay: Decay,
    seed: int,
) -> Step:
    """The training step.

    Its randomness is ``fold_in(seed, state.step)`` and its data come from the caller, so that a state is all
    that resuming needs.  The metrics are ``loss``, ``grad_norm`` (before clipping) and ``finite``.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        (loss, scalars), grads = jax.value_and_grad(objective, has_aux=True)(state.params, batch, key)
        norm = optax.global_norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = ema_decay(state.step)
        ema = jax.tree.map(lambda e, p: e + (1.0 - keep) * (p - e), state.ema, params)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        metrics = {"loss": loss, **scalars, "grad_norm": norm, "finite": finite}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return step


def compile_step(step: Step, mesh: Mesh, shapes: TrainState, steps_per_dispatch: int = 1) -> Step:
    """``step`` jitted over ``mesh``: state sharded by rule and donated, batch split over all devices.

    Args:
      shapes: the state as ``jax.ShapeDtypeStruct``.
      steps_per_dispatch: K > 1 scans over a leading axis of K batches; metrics then have that axis too.
        On CPU this is slow: XLA runs convolution gradients inside loops without their fast path.
    """

    def several(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(step, state, batches)

    one = steps_per_dispatch == 1
    spec = PartitionSpec(BATCH) if one else PartitionSpec(None, BATCH)
    state = state_shardings(mesh, shapes)
    return jax.jit(
        step if one else several,
        in_shardings=(state, NamedSharding(mesh, spec)),
        out_shardings=(state, replicated(mesh)),
        donate_argnums=0,
    )


def init_state(
    init: Callable[[Array], Any],
    optimizer: optax.GradientTransformation,
    seed: int,
) -> Callable[[], TrainState]:
    """A function that makes the first state; jit it with the shardings of its shapes.

    Args:
      init: ``key -> params``.
    """

    def make() -> TrainState:
        # Training step n uses fold_in(seed, n); the parameters take the key that no step reaches.
        params = init(jax.random.fold_in(jax.random.key(seed), 2**32 - 1))
        # The average starts as a copy: a donated state may not hold one buffer twice.
        ema = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))

    return make
