"""What a solver is: a plan and a step.

``plan(sde, times)`` runs on the host in float64 and returns rows of coefficients, a pytree whose arrays have
one leading axis.  ``step`` is pure and takes one row.  One ``lax.scan`` runs them all, so that a change of
coefficients (another grid, another predictor) does not recompile the network.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import fold_in_each, normal_per_sample
from score_sde.denoiser import Denoise
from score_sde.sde import SDE

Noise = Callable[[Array | int], Array]
Progress = Callable[[Any], None]


def noise_of(keys: Array, shape: tuple[int, ...]) -> Noise:
    """The noise of a batch: ``i -> (B, *shape)``, unit normal ``i`` of every sample.

    Noise i of sample b is ``normal(fold_in(key_b, i))``; it depends on nothing else in the batch.
    """
    return lambda i: normal_per_sample(fold_in_each(keys, i), shape)


class Affine(NamedTuple):
    """One affine move ``a x + b D(x, t) + c noise``: most one-step solvers are only this.

    Each entry is a scalar, or ``(n,)`` for the rows of ``n`` steps.
    """

    t: Any
    a: Any
    b: Any
    c: Any

    def mean(self, denoise: Denoise, x: Array) -> Array:
        """The move without its noise: ``(B, *D) -> (B, *D)``."""
        return self.a * x + self.b * denoise(x, self.t)


class Plan(NamedTuple):
    """Coefficients of a whole solve.

    Attributes:
      rows: one row a step, a pytree of arrays with a leading axis; None where steps are chosen on the way.
      start, end: first and last time, for solvers that need no more.
      finish: the last move, applied without noise when the solver denoises.
    """

    rows: Any
    start: Any
    end: Any
    finish: Affine


@dataclass(frozen=True, kw_only=True)
class Solver(abc.ABC):
    """A method that carries samples from ``times[0]`` to ``times[-1]``.

    Attributes:
      denoise: end with the expected clean sample, ``D(x, t_end)`` (Tweedie).  Without it the samples keep
        the noise of ``t_end``, which is invisible but costs much FID (arXiv:2011.13456, appendix G).
    """

    denoise: bool = True

    @property
    def couples_batch(self) -> bool:
        """Whether samples of one batch influence each other, as they do in the published Langevin step."""
        return False

    @abc.abstractmethod
    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        """Coefficients for the decreasing ``times`` ``(n + 1,)``, made in float64 on the host."""

    @abc.abstractmethod
    def run(
        self,
        denoise: Denoise,
        sde: SDE,
        x: Array,
        plan: Plan,
        noise: Noise,
        progress: Progress | None = None,
    ) -> Array:
        """Carry ``x`` ``(B, *D)`` along the plan, without the last move.

        Noise 0 is the prior's; a solver draws from 1 on.
        """

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        """The last move of a solver that denoises."""
        return plan.finish.mean(denoise, x) if self.denoise else x


@dataclass(frozen=True, kw_only=True)
class StepSolver(Solver):
    """A solver made of steps, run by one scan."""

    def init(self, x: Array) -> Any:
        """What the first step remembers; nothing, for one-step methods."""
        return ()

    @abc.abstractmethod
    def step(self, denoise: Denoise, x: Array, row: Any, history: Any, noise: Noise) -> tuple[Array, Any]:
        """One step from ``row``'s time to the next: returns the state and the history."""

    def run(
        self,
        denoise: Denoise,
        sde: SDE,
        x: Array,
        plan: Plan,
        noise: Noise,
        progress: Progress | None = None,
    ) -> Array:
        def body(carry: Any, indexed_row: Any) -> tuple[Any, None]:
            i, row = indexed_row
            if progress is not None:
                jax.debug.callback(progress, i)
            x, history = carry
            return self.step(denoise, x, row, history, noise), None

        count = jax.tree.leaves(plan.rows)[0].shape[0]
        (x, _), _ = jax.lax.scan(body, (x, self.init(x)), (jnp.arange(count), plan.rows))
        return x


def on_host(function: Callable[[Array], Array], times: np.ndarray) -> np.ndarray:
    """Evaluate a function of time in float64 on the CPU: ``(n,)`` to ``(n,)``."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(function(jnp.asarray(np.asarray(times, np.float64))))


class Marginals(NamedTuple):
    """A process at some times, float64 ``(n,)`` each."""

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray


def marginals(sde: SDE, times: np.ndarray) -> Marginals:
    """``alpha`` and ``sigma`` at ``times`` in float64."""
    times = np.asarray(times, np.float64)
    return Marginals(times, on_host(sde.alpha, times), on_host(sde.sigma, times))


# Coefficients that turn out infinite are refused by ``float32``, with a message instead of warnings.
quiet = np.errstate(divide="ignore", invalid="ignore")


def float32(tree: Any) -> Any:
    """Coefficients as the device takes them.

    Raises:
      ValueError: a coefficient is not finite.
    """

    def convert(array: Any) -> np.ndarray:
        result = np.asarray(array, np.float64).astype(np.float32)
        if not np.all(np.isfinite(result)):
            raise ValueError(
                "sampling: the solver's coefficients are not finite on this grid; start below the time "
                "where alpha is zero, end above the time where sigma is zero, or take more steps"
            )
        return result

    return jax.tree.map(convert, tree)


TWEEDIE = Affine(0.0, 0.0, 1.0, 0.0)  # the move to the expected clean sample, at whatever time


def make_plan(rows: Any, times: np.ndarray, finish: Affine = TWEEDIE) -> Plan:
    """A plan on a grid, whose last move is ``finish`` at the grid's end."""
    start, end = float32((times[0], times[-1]))
    return Plan(rows, start, end, float32(finish._replace(t=times[-1])))
