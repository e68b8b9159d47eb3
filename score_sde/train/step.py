"""One update as a pure function: ``(state, frozen, batch) -> (state, metrics)``."""

from collections.abc import Callable
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.arrays import Parts
from score_sde.cpu import loops
from score_sde.runtime.mesh import BATCH, replicated, state_shardings
from score_sde.tasks.base import Batch, Metrics, Task
from score_sde.train.ema import Decay
from score_sde.train.state import TrainState

Examples = TypeVar("Examples")
Step = Callable[[TrainState, Parts, Batch], tuple[TrainState, Metrics]]
Gradient = tuple[tuple[Array, Metrics], Parts]
MeanLoss = Callable[[Parts, Examples, Array], tuple[Array, Metrics]]


def make_step(
    task: Task[Examples],
    optimizer: optax.GradientTransformation,
    ema_decay: Decay,
    seed: int,
    accumulate: int = 1,
) -> Step:
    """The training step.

    Its randomness is ``fold_in(seed, state.step)`` and its data come from the caller, so that a state is all
    that resuming needs.  The metrics are ``loss``, ``loss_variance`` over the examples, ``grad_norm`` (before
    clipping), ``finite``, and what is scalar of the task's own.

    Args:
      accumulate: A > 1 computes the gradient in A shares of the batch, in about 1/A of the memory.  Data,
        times and noise are drawn for the whole batch, so that the result is that of one share up to the order
        of summation.  Only dropout, which is drawn inside the network, differs.
    """

    def step(state: TrainState, frozen: Parts, batch: Batch) -> tuple[TrainState, Metrics]:
        key_draw, key_loss = jax.random.split(jax.random.fold_in(jax.random.key(seed), state.step))
        examples = task.draw(frozen, batch, key_draw)

        def mean_loss(params: Parts, examples: Examples, key: Array) -> tuple[Array, Metrics]:
            per_example, aux = task.loss(params, frozen, state.ema, examples, key)
            scalars = {name: value for name, value in aux.items() if value.ndim == 0}
            return jnp.mean(per_example), {"square": jnp.mean(per_example**2), **scalars}

        if accumulate == 1:
            found = jax.value_and_grad(mean_loss, has_aux=True)(state.params, examples, key_loss)
        else:
            found = _in_shares(mean_loss, state.params, examples, key_loss, accumulate)
        return _update(state, found, optimizer, ema_decay)

    return step


def _update(
    state: TrainState, found: Gradient, optimizer: optax.GradientTransformation, ema_decay: Decay
) -> tuple[TrainState, Metrics]:
    """What the optimizer and the average make of a loss and its gradient."""
    (loss, scalars), grads = found
    norm = optax.tree.norm(grads)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = cast(Parts, optax.apply_updates(state.params, updates))
    weight = 1.0 - ema_decay(state.step)  # of the new parameters
    ema = jax.tree.map(lambda e, p: e + weight * (p - e), state.ema, params)
    metrics = {
        **{name: value for name, value in scalars.items() if name != "square"},
        "loss": loss,
        "loss_variance": scalars["square"] - loss**2,
        "grad_norm": norm,
        "finite": jnp.isfinite(loss) & jnp.isfinite(norm),
    }
    return TrainState(state.step + 1, params, ema, opt_state), metrics


def _in_shares(
    mean_loss: MeanLoss[Examples], params: Parts, examples: Examples, key: Array, shares: int
) -> Gradient:
    """Loss and gradient of a batch, one share of it after another, in the memory of one.

    Share i has rows i, i + shares, ...: every device keeps the rows it has, and every share has times from
    the whole range.
    """
    value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)

    def split(a: Array) -> Array:
        return jnp.moveaxis(a.reshape(-1, shares, *a.shape[1:]), 1, 0)

    def add(total: Gradient, share: tuple[Array, Examples]) -> tuple[Gradient, None]:
        key, examples = share
        found = value_and_grad(params, examples, key)
        return jax.tree.map(lambda a, b: a + b / shares, total, found), None

    split_examples = jax.tree.map(split, examples)
    keys = jax.random.split(key, shares)
    first = jax.tree.map(lambda a: a[0], split_examples)
    like = jax.eval_shape(value_and_grad, params, first, key)
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
    total, _ = jax.lax.scan(add, nothing, (keys, split_examples), unroll=loops.unroll(shares))
    return total


def compile_step(
    step: Step, mesh: Mesh, shapes: TrainState, frozen: Parts, steps_per_dispatch: int = 1
) -> Step:
    """``step`` jitted over ``mesh``: state and frozen parts sharded by rule, the state donated, the batch
    split over all devices.

    Args:
      shapes, frozen: the state and the frozen parts as ``jax.ShapeDtypeStruct``.
      steps_per_dispatch: K > 1 scans over a leading axis of K batches; metrics then have that axis too.
        On CPU this is slow: XLA runs convolution gradients inside loops without their fast path.
    """
    one = steps_per_dispatch == 1
    state, given, everywhere = state_shardings(mesh, shapes), state_shardings(mesh, frozen), replicated(mesh)
    batch = NamedSharding(mesh, PartitionSpec(BATCH) if one else PartitionSpec(None, BATCH))

    def steps(state: TrainState, frozen: Parts, batches: Batch) -> tuple[TrainState, Metrics]:
        if one:
            return step(state, frozen, batches)
        return jax.lax.scan(lambda state, batch: step(state, frozen, batch), state, batches)

    return jax.jit(
        steps, in_shardings=(state, given, batch), out_shardings=(state, everywhere), donate_argnums=0
    )


def init_state(
    task: Task[Examples], optimizer: optax.GradientTransformation, seed: int
) -> Callable[[Parts], TrainState]:
    """A function that makes the first state of the frozen parts; jit it with the shardings of its shapes."""

    def make(frozen: Parts) -> TrainState:
        # Training step n uses fold_in(seed, n); the parameters take the key that no step reaches.
        params = task.init(frozen, jax.random.fold_in(jax.random.key(seed), 2**32 - 1))
        # The average starts as a copy: a donated state may not hold one buffer twice.
        ema = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))

    return make
