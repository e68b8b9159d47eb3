"""What a solver is: a plan and a step.

``plan(sde, times)`` runs on the host in float64 and returns rows of coefficients, a pytree whose arrays have
one leading axis.  ``step`` is pure and takes one row.  One loop runs them all, so that a change of
coefficients (another grid, another predictor) does not recompile the network.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Tree, fold_in_each, normal_per_sample
from score_sde.conditions import Cond
from score_sde.denoiser import Denoise
from score_sde.sde import SDE
from score_sde.solvers.hooks import Hooks, Watch

Noise = Callable[[Array | int], Array]
# Of coefficients: NumPy arrays or numbers while a plan is made, arrays of the device in a step.
N = TypeVar("N", covariant=True)


def noise_of(keys: Array, shape: tuple[int, ...]) -> Noise:
    """The noise of a batch: ``i -> (B, *shape)``, unit normal ``i`` of every sample.

    Noise i of sample b is ``normal(fold_in(key_b, i))``; it depends on nothing else in the batch.
    """
    return lambda i: normal_per_sample(fold_in_each(keys, i), shape)


class Affine(NamedTuple, Generic[N]):
    """One affine move ``of_x x + of_x0 x0 + of_noise noise + noise_gain z``.

    Most one-step solvers are only this.  ``x0`` and ``noise`` are what the model expects behind ``x`` at
    ``t``, ``z`` is drawn.  Each entry is a scalar, or ``(n,)`` for the rows of ``n`` steps.
    """

    t: N
    of_x: N
    of_x0: N
    of_noise: N
    noise_gain: N

    def mean(self: "Affine[Array]", denoise: Denoise, x: Array) -> Array:
        """The move without its noise: ``(B, *D) -> (B, *D)``."""
        return self.of_x * x + denoise(x, self.t).mix(self.of_x0, self.of_noise)


class Plan(NamedTuple):
    """Coefficients of a whole solve.

    Attributes:
      rows: one row a step, a pytree of arrays with a leading axis; None where steps are chosen on the way.
      start, end: first and last time, for solvers that need no more.
      finish: the last move, applied without noise when the solver denoises.
    """

    rows: Tree
    start: Array
    end: Array
    finish: Affine[Array]


@dataclass(frozen=True, kw_only=True)
class Solver(abc.ABC):
    """A method that carries samples from ``times[0]`` to ``times[-1]``.

    Attributes:
      denoise: end with the expected clean sample, ``D(x, t_end)`` (Tweedie).  Without it the samples keep
        the noise of ``t_end``, which is invisible but costs much FID (arXiv:2011.13456, appendix G).
    """

    denoise: bool = True

    @property
    def accuracy(self) -> float:
        """Order of convergence as the grid is refined; weak, for a stochastic solver.  Tests measure it."""
        return 1

    @property
    def evaluations(self) -> int:
        """Network evaluations a step; 0 where they are chosen on the way."""
        return 0

    @property
    def program(self) -> "Solver":
        """What a compiled sampler needs to know beside the plan; equal programs share one compilation."""
        return self

    @property
    def couples_batch(self) -> bool:
        """Whether samples of one batch influence each other, as they do in the published Langevin step."""
        return False

    @property
    def has_steps(self) -> bool:
        """Whether it takes the steps of the grid, so that a caller can look between them."""
        return False

    def given(self, cond: Cond) -> "Solver":
        """The solver of a batch with these conditions; one whose steps read none is the same for all."""
        return self

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
    ) -> Array:
        """Carry ``x`` ``(B, *D)`` along the plan, without the last move.

        Noise 0 is the prior's; a solver draws from 1 on.
        """

    def finish(self, denoise: Denoise, x: Array, plan: Plan) -> Array:
        """The last move of a solver that denoises."""
        return plan.finish.mean(denoise, x) if self.denoise else x


class Carry(NamedTuple):
    """What goes from one step to the next.

    Attributes:
      x: ``(B, *D)``.
      history: of ``StepSolver.init``.
      watch: what hooks remember.
    """

    x: Array
    history: Tree
    watch: Watch


@dataclass(frozen=True, kw_only=True)
class StepSolver(Solver):
    """A solver made of steps, run by one loop, whole or in parts."""

    @property
    def has_steps(self) -> bool:
        return True

    def given(self, cond: Cond) -> "StepSolver":
        return self

    def init(self, x: Array, rows: Tree) -> Tree:
        """What the first of ``rows`` remembers, arrays ``(B, ...)``; nothing, for one-step methods."""
        return ()

    @abc.abstractmethod
    def step(self, denoise: Denoise, x: Array, row: Tree, history: Tree, noise: Noise) -> tuple[Array, Tree]:
        """One step from ``row``'s time to the next: returns the state and the history."""

    def begin(self, x: Array, plan: Plan, noise: Noise) -> Array:
        """A move before the first step."""
        return x

    def rows(self, plan: Plan) -> Tree:
        """The rows to take, one after the other."""
        return plan.rows

    def count(self, plan: Plan) -> int:
        """How many rows there are to take."""
        return jax.tree.leaves(self.rows(plan))[0].shape[0]

    def bounds(self, row: Tree) -> tuple[Array | bool, Array | bool]:
        """Whether a step begins, and ends, with this row."""
        return True, True

    def steps(self, plan: Plan) -> int:
        """Whole steps of a plan, as hooks count them: a last move that is a row is one too."""
        closes = np.asarray(self.bounds(self.rows(plan))[1])
        return int(np.sum(np.broadcast_to(closes, (self.count(plan),))))

    def run(
        self,
        denoise: Denoise,
        sde: SDE,
        x: Array,
        plan: Plan,
        noise: Noise,
    ) -> Array:
        return self.trace(denoise, x, plan, noise, Hooks())[0]

    def trace(
        self,
        denoise: Denoise,
        x: Array,
        plan: Plan,
        noise: Noise,
        hooks: Hooks,
    ) -> tuple[Array, Array]:
        """``run`` with hooks: the last state and the states that were kept, ``(hooks.keep, B, *D)``."""
        carry = self.prepare(x, plan, noise, hooks)
        carry = self.advance(denoise, carry, plan, noise, hooks, 0, self.count(plan))
        return carry.x, carry.watch.kept

    def prepare(self, x: Array, plan: Plan, noise: Noise, hooks: Hooks) -> Carry:
        """What is there before the first row."""
        x = self.begin(x, plan, noise)
        return Carry(x, self.init(x, self.rows(plan)), hooks.watch(x))

    def advance(
        self,
        denoise: Denoise,
        carry: Carry,
        plan: Plan,
        noise: Noise,
        hooks: Hooks,
        first: Array | int,
        last: Array | int,
    ) -> Carry:
        """Rows ``first .. last - 1`` of the plan; one program does for any of them."""
        rows = jax.tree.map(jnp.asarray, self.rows(plan))

        def body(i: Array, carry: Carry) -> Carry:
            x, history, watch = carry
            row = jax.tree.map(lambda column: column[i], rows)
            opens, closes = self.bounds(row)
            x = hooks.enter(x, watch, opens)

            def move(x: Array, history: Tree) -> tuple[Array, Tree]:
                return self.step(denoise, x, row, history, noise)

            moved, history = hooks.unless_stopped(move, x, history, watch)
            moved, watch = hooks.leave(x, moved, watch, closes)
            return Carry(moved, history, watch)

        return jax.lax.fori_loop(first, last, body, carry)


def on_host(function: Callable[[Array], Array], times: np.ndarray) -> np.ndarray:
    """Evaluate a function of time in float64 on the CPU: ``(n,)`` to ``(n,)``."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(function(jnp.asarray(np.asarray(times, np.float64))))


# Coefficients that turn out infinite are refused by ``coefficients``, with a message instead of warnings.
quiet = np.errstate(divide="ignore", invalid="ignore")


Index = int | slice | np.ndarray | tuple[slice | int, ...]


class Marginals(NamedTuple):
    """A process at some times, float64 ``(n,)`` each."""

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray

    @property
    def lam(self) -> np.ndarray:
        """``log(alpha / sigma)``, half the log-SNR; infinite where one of them is zero."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha) - np.log(self.sigma)

    @property
    def rho(self) -> np.ndarray:
        """``sigma / alpha``, the noise level of ``x / alpha``; infinite where ``alpha`` is zero."""
        with np.errstate(divide="ignore"):
            return np.asarray(self.sigma / self.alpha)

    def pick(self, i: Index) -> "Marginals":
        """The process at the times with index ``i``."""
        return Marginals(*(column[i] for column in self))


def marginals(sde: SDE, times: np.ndarray) -> Marginals:
    """``alpha`` and ``sigma`` at ``times`` in float64."""
    times = np.asarray(times, np.float64)
    return Marginals(times, on_host(sde.alpha, times), on_host(sde.sigma, times))


def coefficients(tree: Tree) -> Tree:
    """Coefficients as the device takes them: float32, or float64 where jax has that switched on.

    Raises:
      ValueError: a coefficient is not finite.
    """

    def convert(array: np.ndarray | float) -> np.ndarray:
        result = np.asarray(array, np.float64).astype(jax.dtypes.canonicalize_dtype(np.float64))
        if not np.all(np.isfinite(result)):
            raise ValueError(
                "sampling: the solver's coefficients are not finite on this grid; start below the time "
                "where alpha is zero, end above the time where sigma is zero, or take more steps"
            )
        return result

    return jax.tree.map(convert, tree)


def times_at(sde: SDE, lam: np.ndarray, low: float, high: float) -> np.ndarray:
    """Times in ``[low, high]`` where ``log(alpha / sigma)`` is ``lam``: ``(n,) -> (n,)``, by bisection."""
    near, far = np.full(np.shape(lam), low, np.float64), np.full(np.shape(lam), high, np.float64)
    for _ in range(64):  # the last bits of the interval
        middle = 0.5 * (near + far)
        above = marginals(sde, middle).lam > lam
        near, far = np.where(above, middle, near), np.where(above, far, middle)
    return 0.5 * (near + far)


TWEEDIE = Affine(0.0, 0.0, 1.0, 0.0, 0.0)  # the move to the expected clean sample, at whatever time


def make_plan(rows: Tree, times: np.ndarray, finish: Affine[np.ndarray | float] = TWEEDIE) -> Plan:
    """A plan on a grid, whose last move is ``finish`` at the grid's end."""
    start, end = coefficients((times[0], times[-1]))
    return Plan(rows, start, end, coefficients(finish._replace(t=times[-1])))
