"""The twisted diffusion sampler (Wu et al. 2023, arXiv:2306.17775): exact as the particles grow in number."""

from dataclasses import dataclass
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Parts, expand, sum_dims
from score_sde.conditions import Cond
from score_sde.denoiser import Bind, Denoise
from score_sde.inverse.base import Posterior, linearised
from score_sde.inverse.pigdm import solve_spread, spread_of
from score_sde.inverse.steps import Level, MeasuredSolver
from score_sde.sde import SDE
from score_sde.solvers import Affine, Noise, Plan, Solver
from score_sde.solvers.base import N, coefficients, make_plan, marginals, quiet
from score_sde.solvers.predictors import ancestral


@dataclass(frozen=True, kw_only=True)
class TDS(Posterior):
    """Particles that are led by an approximate likelihood, and weighed by what that gets wrong.

    The twist is ``log p~(y | x_t) = log N(y; A x0(x_t), r^2 A A^T + noise_std^2)`` with the ``r^2`` of
    ``pigdm``.  Its gradient shifts an ancestral step; a weight is the ratio of the two transitions, times
    that of the twists (eq. 9 to 11).  Particles are drawn anew, systematically, when fewer than half of them
    count.  Each sample has particles of its own, and is one of them, by weight.

    The steps are ancestral (DDPM), on the grid of the config: the solver of the config is not read.

    Attributes:
      particles: of each sample; the network sees as many states at once.
      sigma_data: standard deviation of the data, in the model's range.
      solve_steps: of conjugate gradients, where the eigenvalues of ``A A^T`` are not known.

    Raises:
      ValueError: fewer than one particle.
    """

    particles: int = 8
    sigma_data: float = 0.5
    solve_steps: int = 20

    def __post_init__(self) -> None:
        if self.particles < 1:
            raise ValueError(f"particles = {self.particles}: must be 1 or more")

    def __call__(self, bind: Bind) -> Bind:
        def bind_each(parts: Parts, cond: Cond) -> Denoise:
            rest = self.taken(cond)[1]
            return bind(
                parts, {name: jnp.repeat(value, self.particles, axis=0) for name, value in rest.items()}
            )

        return bind_each

    def steps(self, solver: Solver) -> Solver:
        return Particles(method=self, twist=self, denoise=solver.denoise)


class Row(NamedTuple, Generic[N]):
    """A step of the grid, or, at its end, the choice of a particle.

    Attributes:
      number: of the row.
      prior: standard deviation of the first particles.
      start: level of the particles.
      move: the ancestral step.
      last: whether a particle is chosen here.
    """

    number: N
    prior: N
    start: Level[N]
    move: Affine[N]
    last: N


class Cloud(NamedTuple):
    """Particles, and what is known of them.

    Attributes:
      x: ``(B, K, *D)``.
      twist: of the step before, ``(B, K)``.
      weight: logarithm, ``(B, K)``; the ratio of the transitions of the last move included.
    """

    x: Array
    twist: Array
    weight: Array


@dataclass(frozen=True, kw_only=True)
class Particles(MeasuredSolver):
    """The steps of ``TDS``.  The state is the first particle, then the chosen one."""

    twist: TDS

    @property
    def evaluations(self) -> int:
        return 1

    @quiet
    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        at, n = marginals(sde, times), len(times) - 1
        move = Affine(*(np.append(column, 0.0) for column in ancestral(sde, times[:-1], times[1:])))
        prior, start, move = coefficients(
            (np.full(n + 1, float(sde.prior_sigma)), Level(at.alpha, at.sigma), move._replace(t=at.t))
        )
        return make_plan(
            Row(np.arange(n + 1, dtype=np.int32), prior, start, move, np.arange(n + 1) == n), times
        )

    def init(self, x: Array, rows: Row) -> Cloud:
        count = self.twist.particles
        zero = jnp.zeros((x.shape[0], count), x.dtype)
        return Cloud(jnp.broadcast_to(x[:, None], (x.shape[0], count, *x.shape[1:])), zero, zero)

    def step(
        self, denoise: Denoise, x: Array, row: Row[Array], history: Cloud, noise: Noise
    ) -> tuple[Array, Cloud]:
        count = self.twist.particles
        first = count + row.number * (count + 1)  # numbers 0 to K - 1 are the priors of the particles
        uniform = jax.scipy.stats.norm.cdf(noise(first + count).reshape(x.shape[0], -1)[:, 0])
        particles = jax.lax.cond(
            row.number == 0, lambda: row.prior * _normals(noise, 0, count), lambda: history.x
        )
        estimate, push, twist = self._led(denoise, particles, row)
        weight = jax.nn.log_softmax(history.weight + twist - history.twist, axis=1)
        few = 0.5 * count * jnp.sum(jnp.exp(2.0 * weight), axis=1) > 1.0
        drawn = jnp.where(row.last, _one(weight, uniform), _systematic(weight, uniform))
        picked = jnp.where((few | row.last)[:, None], drawn, jnp.arange(count)[None])
        weight = jnp.where(few[:, None], 0.0, weight)

        def pick(value: Array) -> Array:
            return jax.vmap(lambda rows, places: rows[places])(value, picked)

        particles, push, x0, eps, twist = (pick(v) for v in (particles, push, *estimate, twist))
        gain, z = row.move.noise_gain, _normals(noise, first, count)
        move = row.move.of_x * particles + row.move.of_x0 * x0 + row.move.of_noise * eps
        ratio = jnp.where(gain > 0, push / jnp.where(gain > 0, gain, 1.0), 0.0)
        # Log of the model's transition over the one that was taken.
        weight = weight - 0.5 * jnp.sum(ratio * (ratio + 2.0 * z), axis=tuple(range(2, z.ndim)))
        moved = move + gain * (ratio + z)
        result = x0 if self.denoise else particles
        return jnp.where(row.last, result[:, 0], moved[:, 0]), Cloud(moved, twist, weight)

    def _led(
        self, denoise: Denoise, particles: Array, row: Row[Array]
    ) -> tuple[tuple[Array, Array], Array, Array]:
        """Estimates ``(B, K, *D)``, the move that the twist adds to a step, and the twist, ``(B, K)``."""
        (batch, count), method = particles.shape[:2], self.twist
        given = {name: jnp.repeat(value, count, axis=0) for name, value in self.measurement.items()}
        flat = particles.reshape(batch * count, *particles.shape[2:])
        estimate, pull = linearised(denoise, flat, jnp.broadcast_to(row.move.t, flat.shape[:1]))
        rest = method.residual(estimate.x0, given)
        alpha, sigma = (jnp.broadcast_to(value, flat.shape[:1]) for value in row.start)
        spread = spread_of(alpha, sigma, method.sigma_data)
        solved = solve_spread(method.operator, rest, spread, given, method.solve_steps)
        shift = expand(sigma**2 / alpha, flat) * pull(method.operator.adjoint(solved, given))
        shift = method.bounded(shift, rest, given)
        push = (row.move.of_x0 - row.move.of_noise * row.start.alpha / row.start.sigma) * shift

        def of_each(value: Array) -> Array:
            return value.reshape(batch, count, *value.shape[1:])

        return (
            (of_each(estimate.x0), of_each(estimate.noise)),
            of_each(push),
            of_each(-0.5 * sum_dims(rest * solved)),
        )


def _normals(noise: Noise, first: Array | int, count: int) -> Array:
    """Noise of numbers ``first .. first + count - 1``: ``(B, count, *D)``."""
    return jnp.moveaxis(jax.vmap(noise)(first + jnp.arange(count)), 0, 1)


def _systematic(weight: Array, uniform: Array) -> Array:
    """Places ``(B, K)`` of particles drawn by weight at equal distances; ``uniform``: ``(B,)``."""
    count = weight.shape[1]
    return _places(weight, (uniform[:, None] + jnp.arange(count)[None]) / count)


def _one(weight: Array, uniform: Array) -> Array:
    """The place of one particle drawn by weight, ``K`` times: ``(B, K)``."""
    return _places(weight, jnp.broadcast_to(uniform[:, None], weight.shape))


def _places(weight: Array, at: Array) -> Array:
    sums = jnp.cumsum(jnp.exp(weight), axis=1)
    found = jax.vmap(jnp.searchsorted)(sums, at * sums[:, -1:])
    return jnp.minimum(found, weight.shape[1] - 1)
