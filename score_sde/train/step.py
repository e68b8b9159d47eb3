"""One update as a pure function: ``(state, batch) -> (state, metrics)``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.conditions import Cond
from score_sde.runtime.mesh import BATCH, replicated, state_shardings
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
      loss: ``(denoiser, x0, key) -> (B,), aux``; what is scalar in ``aux`` is logged.  To be accumulated, it
        draws and evaluates separately, as ``DenoisingLoss`` does.
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
        return jnp.mean(per_example), {"loss_variance": jnp.var(per_example), **_scalars(aux)}

    def in_shares(
        self, params: Any, batch: Batch, key: Array, shares: int
    ) -> tuple[tuple[Array, Metrics], Any]:
        """What a call returns, and its gradient, one share of the batch after another, in the memory of one.

        Data, times and noise are drawn for the whole batch as in a call, so the result is that of a call up
        to the order of summation.  Only dropout, which is drawn inside the network, differs.
        """
        key_data, key_loss = jax.random.split(key)
        x0, cond = self.prepare(batch, key_data)
        loss: Any = self.loss
        drawn = loss.draw(x0, key_loss)

        def mean_loss(params: Any, examples: Any, key: Array) -> tuple[Array, Metrics]:
            x0, cond, t, noise = examples
            per_example, aux = loss.at(self.bind(params, cond), x0, drawn._replace(t=t, noise=noise, key=key))
            return jnp.mean(per_example), {"square": jnp.mean(per_example**2), **_scalars(aux)}

        def one(total: Any, share: tuple[Array, Any]) -> tuple[Any, None]:
            i, examples = share
            key = jax.random.fold_in(drawn.key, i)
            found = jax.value_and_grad(mean_loss, has_aux=True)(params, examples, key)
            return jax.tree.map(lambda a, b: a + b / shares, total, found), None

        # Share i has rows i, i + shares, ...: every device keeps the rows it has, and every share has times
        # from the whole range.
        def split(a: Array) -> Array:
            return jnp.moveaxis(a.reshape(-1, shares, *a.shape[1:]), 1, 0)

        examples = jax.tree.map(split, (x0, cond, drawn.t, drawn.noise))
        first = jax.tree.map(lambda a: a[0], examples)
        like = jax.eval_shape(jax.value_and_grad(mean_loss, has_aux=True), params, first, drawn.key)
        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like)
        # XLA for CPUs runs the gradients of convolutions in loops without their fast path.
        unroll = shares if jax.default_backend() == "cpu" else 1
        shared = (jnp.arange(shares), examples)
        ((loss_mean, scalars), grads), _ = jax.lax.scan(one, nothing, shared, unroll=unroll)
        variance = scalars.pop("square") - loss_mean**2
        return (loss_mean, {"loss_variance": variance, **scalars}), grads


def _scalars(aux: dict[str, Array]) -> Metrics:
    return {name: value for name, value in aux.items() if value.ndim == 0}


@dataclass(frozen=True)
class TrainStep:
    """One update, ``(state, batch) -> (state, metrics)``, and the two halves that it consists of.

    Attributes:
      gradient: ``(params, step, batch) -> (grads, metrics)``.
      update: ``(state, grads, metrics) -> (state, metrics)``: what the optimizer and the average make of it.
    """

    gradient: Callable[[Any, Array, Batch], tuple[Any, Metrics]]
    update: Callable[[TrainState, Any, Metrics], tuple[TrainState, Metrics]]

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return self.update(state, *self.gradient(state.params, state.step, batch))


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    ema_decay: Decay,
    seed: int,
    accumulate: int = 1,
) -> TrainStep:
    """The training step.

    Its randomness is ``fold_in(seed, state.step)`` and its data come from the caller, so that a state is all
    that resuming needs.  The metrics are ``loss``, ``grad_norm`` (before clipping) and ``finite``.

    Args:
      accumulate: A > 1 computes the gradient in A shares of the batch, in about 1/A of the memory.
    """

    def gradient(params: Any, step: Array, batch: Batch) -> tuple[Any, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), step)
        if accumulate == 1:
            (loss, scalars), grads = jax.value_and_grad(objective, has_aux=True)(params, batch, key)
        else:
            (loss, scalars), grads = objective.in_shares(params, batch, key, accumulate)
        return grads, {"loss": loss, **scalars}

    def update(state: TrainState, grads: Any, metrics: Metrics) -> tuple[TrainState, Metrics]:
        norm = optax.tree.norm(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        weight = 1.0 - ema_decay(state.step)  # of the new parameters
        ema = jax.tree.map(lambda e, p: e + weight * (p - e), state.ema, params)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        metrics = {**metrics, "grad_norm": norm, "finite": finite}
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    return TrainStep(gradient, update)


PROGRAMS = ("gradient", "update", "steps")
"""Names of the programs that ``compile_step`` may make, in the order in which they are called."""

_LONG = 400  # arrays of parameters


def compile_step(step: TrainStep, mesh: Mesh, shapes: TrainState, steps_per_dispatch: int = 1) -> Step:
    """``step`` jitted over ``mesh``: state sharded by rule and donated, batch split over all devices.

    On CPUs the halves of a long one are two programs, which XLA reads back in a third of the time: for each
    part of a program it searches the whole.  The second call costs milliseconds, which short steps feel, and
    one program can put gradients where activations were.

    Args:
      shapes: the state as ``jax.ShapeDtypeStruct``.
      steps_per_dispatch: K > 1 scans over a leading axis of K batches; metrics then have that axis too.
        On CPU this is slow: XLA runs convolution gradients inside loops without their fast path.
    """
    one = steps_per_dispatch == 1
    state, everywhere = state_shardings(mesh, shapes), replicated(mesh)
    batch = NamedSharding(mesh, PartitionSpec(BATCH) if one else PartitionSpec(None, BATCH))
    is_long = len(jax.tree.leaves(shapes.params)) >= _LONG
    if one and is_long and mesh.devices.flat[0].platform == "cpu":
        return TrainStep(
            jax.jit(
                step.gradient,
                in_shardings=(state.params, state.step, batch),
                out_shardings=(state.params, everywhere),
            ),
            jax.jit(
                step.update,
                in_shardings=(state, state.params, everywhere),
                out_shardings=(state, everywhere),
                donate_argnums=0,
            ),
        )

    def steps(state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        return step(state, batches) if one else jax.lax.scan(step, state, batches)

    return jax.jit(steps, in_shardings=(state, batch), out_shardings=(state, everywhere), donate_argnums=0)


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
