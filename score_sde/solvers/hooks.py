"""Functions that the loop calls: before and after steps, states to keep, an early end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Tree, expand


class Watch(NamedTuple):
    """What the loop carries for the hooks.

    Attributes:
      steps: steps done so far.
      stopped: samples that are done, ``(B,)``.
      kept: ``(keep, B, *D)``.
    """

    steps: Array
    stopped: Array
    kept: Array


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What happens around the steps of a solver.  A step may take several evaluations; hooks see whole steps.

    Attributes:
      before, after: ``(steps_done, x) -> x``, such as a projection; ``x`` is ``(B, *D)``.
      stop: ``(steps_done, x) -> (B,)`` booleans after a step; such samples stay as they are, without the
        last move too, and the network rests once no sample is left.
      keep_every_steps, keep: keep the states after so many steps, at most ``keep`` of them: that is all the
        memory it takes.  Places that the run does not reach stay NaN.
    """

    before: Callable[[Array, Array], Array] | None = None
    after: Callable[[Array, Array], Array] | None = None
    stop: Callable[[Array, Array], Array] | None = None
    keep_every_steps: int = 1
    keep: int = 0

    def __post_init__(self) -> None:
        if self.keep_every_steps < 1 or self.keep < 0:
            raise ValueError(
                f"need keep_every_steps >= 1 and keep >= 0, got {self.keep_every_steps} and {self.keep}"
            )

    def watch(self, x: Array) -> Watch:
        """The state of the hooks before the first step."""
        return Watch(
            jnp.zeros((), jnp.int32),
            jnp.zeros(x.shape[:1], bool),
            jnp.full((self.keep, *x.shape), jnp.nan, x.dtype),
        )

    def enter(self, x: Array, watch: Watch, opens: Array | bool) -> Array:
        """The state that a step starts from."""
        before = self.before
        if before is None:
            return x
        return jax.lax.cond(opens, lambda: before(watch.steps, x), lambda: x)

    def unless_stopped(self, move: Callable, x: Array, history: Tree, watch: Watch) -> tuple[Array, Tree]:
        """``move(x, history)``, or nothing if every sample is done."""
        if self.stop is None:
            return move(x, history)
        return jax.lax.cond(jnp.all(watch.stopped), lambda x, h: (x, h), move, x, history)

    def leave(self, x: Array, moved: Array, watch: Watch, closes: Array | bool) -> tuple[Array, Watch]:
        """The state after an evaluation, and what is remembered of it if it ends a step."""
        steps = watch.steps + jnp.asarray(closes, jnp.int32)
        after, stop, stopped = self.after, self.stop, watch.stopped
        if after is not None:
            moved = jax.lax.cond(closes, lambda: after(steps, moved), lambda: moved)
        if stop is not None:
            moved = jnp.where(expand(stopped, x), x, moved)
            stopped = jnp.where(closes, stopped | stop(steps, moved), stopped)
        kept = watch.kept
        if self.keep:
            due = jnp.asarray(closes) & (steps % self.keep_every_steps == 0)
            place = jnp.where(due, steps // self.keep_every_steps - 1, self.keep)
            kept = kept.at[place].set(moved, mode="drop")
        return moved, Watch(steps, stopped, kept)
