"""Images as points of the prior, and back: the probability-flow ODE as an invertible map.

    latent = x(t_max) / prior_sigma,     dx/dt = velocity(x, t),     x(t_min) = the example

Under a well-trained model latents of data are unit normal (Song et al. 2021, arXiv:2011.13456, section 4.3
and appendix D.3): they can be interpolated on the sphere, scaled, compared, and carried back to images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand, mean_dims
from score_sde.denoiser import Denoise, velocity_from
from score_sde.integrate import ode
from score_sde.sde import SDE
from score_sde.solvers import Plan, Solver
from score_sde.solvers.table import TableSolver

Grid = Callable[[float, float, int], np.ndarray]


class Carried(NamedTuple):
    """Where examples have got to.

    Attributes:
      x: ``(B, *D)``; NaN for an example whose integration gave up.
      evaluations: network evaluations of each example, ``(B,)``.
    """

    x: Array
    evaluations: Array


Transport = Callable[[Denoise, SDE, Array, float, float], Carried]  # (denoise, sde, x, start, end)

_SHARE = 0.1  # of the tolerance, that one step may spend: errors add up, and the estimate is blind at times
_FINEST = 1e-6  # a step's tolerance that float32 still resolves


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Along the ODE with an error estimate for every example.

    The variable is the log signal-to-noise ratio, in which the path is smooth where data begin; in time, for
    VP, it starts there like a square root.

    The integrator bounds the error of single steps, which add up and grow along the path, and which its
    estimate misses now and then where there are few dimensions: it is asked for a tenth of the tolerances,
    though for no less than 1e-6 unless they themselves are less.

    Attributes:
      rtol, atol: tolerances on the root mean square over the dimensions of one example.
      method: one of ``ode.METHODS``.
      max_steps: after so many steps an example is given up as NaN.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    method: str = "dopri5"
    max_steps: int = 4096

    def __post_init__(self) -> None:
        if self.method not in ode.METHODS:
            raise ValueError(f"method = {self.method!r} is not one of: {', '.join(ode.METHODS)}")
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps >= 1):
            raise ValueError(
                f"need rtol, atol > 0 and max_steps >= 1, got {self.rtol}, {self.atol}, {self.max_steps}"
            )

    def __call__(self, denoise: Denoise, sde: SDE, x: Array, start: float, end: float) -> Carried:
        def field(log_snr: Array, x: Array) -> Array:
            t = sde.time_of(log_snr, min(start, end))
            slope = jax.jvp(sde.log_snr, (t,), (jnp.ones_like(t),))[1]
            return velocity_from(sde, denoise(x, t), t) / expand(slope, x)

        rtol, atol = (max(_SHARE * bound, min(bound, _FINEST)) for bound in (self.rtol, self.atol))
        accuracy = ode.Accuracy(rtol, atol, self.max_steps, self.method)
        ends = sde.log_snr(jnp.asarray([start, end], x.dtype))
        solution = ode.integrate_each(field, x, ends[0], ends[1], accuracy)
        return Carried(solution.y, solution.evaluations)


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """Along the ODE by a deterministic solver on a fixed grid: cheap, and less exact.

    Towards the prior the grid is walked backwards (for DDIM: its inversion, arXiv:2010.02502, section 5.4).

    Attributes:
      solver: one that makes tables and draws no noise.
      grid: of ``config.sampling.grid``.
    """

    solver: TableSolver
    grid: Grid
    steps: int = 100

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: must be at least 1")

    def plan(self, sde: SDE, start: float, end: float) -> Plan:
        """The plan from ``start`` to ``end``, either of which may be the larger.

        Raises:
          ValueError: the solver draws noise, or the grid does not suit it.
        """
        with jax.ensure_compile_time_eval():  # on the host, also while a caller is being traced
            times = self.grid(max(start, end), min(start, end), self.steps)
            plan = self.solver.plan(sde, times)
            # Asked of the way to the data: walked backwards, a noise of negative variance is no number.
            if np.any(plan.rows.rows.noise_gain != 0) or plan.rows.start.noise_gain != 0:
                raise ValueError("the solver draws noise; a latent needs a deterministic one, such as 'ddim'")
            return plan if start > end else self.solver.plan(sde, times[::-1])

    def __call__(self, denoise: Denoise, sde: SDE, x: Array, start: float, end: float) -> Carried:
        plan = self.plan(sde, start, end)
        x = self.solver.run(denoise, sde, x, plan, _no_noise)
        return Carried(x, jnp.full(x.shape[:1], len(plan.rows.rows.t)))


def _no_noise(number: Array | int) -> Array:
    return jnp.zeros(())  # traced in a branch that a table without noise never takes


def stepped(solver: Solver, grid: Grid, steps: int) -> Stepped:
    """``Stepped``, if the solver can be walked both ways.

    Raises:
      ValueError: it cannot.
    """
    if not isinstance(solver, TableSolver):
        raise ValueError("the solver makes no table, so it cannot be walked backwards; try 'ddim' or 'ode'")
    return Stepped(solver=solver, grid=grid, steps=steps)


def encode(
    denoise: Denoise, sde: SDE, x: Array, transport: Transport, *, t_min: float | None = None
) -> Carried:
    """Latents of examples: ``(B, *D)`` in the model's range to ``(B, *D)``, of unit variance under the model.

    Args:
      t_min: the time at which the examples are placed; ``sde.t_min`` when None.
    """
    out = transport(denoise, sde, x, sde.t_min if t_min is None else t_min, sde.t_max)
    return Carried(out.x / sde.prior_sigma, out.evaluations)


def decode(
    denoise: Denoise, sde: SDE, latent: Array, transport: Transport, *, t_min: float | None = None
) -> Carried:
    """Examples of latents, the inverse of ``encode``: ``(B, *D)`` to ``(B, *D)`` in the model's range."""
    start, end = sde.t_max, sde.t_min if t_min is None else t_min
    return transport(denoise, sde, sde.prior_sigma * latent, start, end)


class RoundTrip(NamedTuple):
    """Examples, encoded and decoded again.

    Attributes:
      latent: ``(B, *D)``.
      back: the decoded latents, ``(B, *D)``.
      rms, largest: root mean square and largest difference to the example over its dimensions, in units of
        the model's range, ``(B,)``.
      evaluations: of the network, both ways, ``(B,)``.
    """

    latent: Array
    back: Array
    rms: Array
    largest: Array
    evaluations: Array


def round_trip(
    denoise: Denoise, sde: SDE, x: Array, transport: Transport, *, t_min: float | None = None
) -> RoundTrip:
    """Encode ``(B, *D)``, decode, and compare."""
    out = encode(denoise, sde, x, transport, t_min=t_min)
    back = decode(denoise, sde, out.x, transport, t_min=t_min)
    difference = jnp.abs(back.x - x)
    return RoundTrip(
        out.x,
        back.x,
        jnp.sqrt(mean_dims(difference**2)),
        jnp.max(difference.reshape(x.shape[0], -1), axis=1),
        out.evaluations + back.evaluations,
    )


def slerp(a: Array, b: Array, weight: Array) -> Array:
    """Between latents along the great circle (Shoemake 1985; White 2016, arXiv:1609.04468).

    Directions turn at constant speed and lengths go over linearly, so that latents of one length stay on
    their sphere; a straight line would leave it.  Nearly parallel latents are joined by the line.  Opposite
    latents have no shortest way: the result is of their length, in a direction that rounding chooses.

    Args:
      a, b: ``(B, *D)``.
      weight: ``()`` or ``(B,)``; 0 gives ``a`` and 1 gives ``b``.
    """
    flat_a, flat_b = (x.reshape(x.shape[0], -1) for x in (a, b))
    w = expand(weight, flat_a)
    lengths = [jnp.linalg.norm(x, axis=1, keepdims=True) for x in (flat_a, flat_b)]
    unit_a, unit_b = (x / jnp.maximum(n, 1e-30) for x, n in zip((flat_a, flat_b), lengths, strict=True))
    # Half the angle by its tangent keeps its digits for all angles; an arc cosine does not near 0 and pi.
    chord, bow = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (unit_a - unit_b, unit_a + unit_b))
    angle = 2.0 * jnp.arctan2(chord, bow)
    ratio = [_sine_ratio(part, angle) for part in (1.0 - w, w)]
    direction = ratio[0] * unit_a + ratio[1] * unit_b
    length = (1.0 - w) * lengths[0] + w * lengths[1]
    unit = direction / jnp.maximum(jnp.linalg.norm(direction, axis=1, keepdims=True), 1e-30)
    return (length * unit).reshape(a.shape)


def _sine_ratio(part: Array, angle: Array) -> Array:
    """``sin(part angle) / sin(angle)``, which is ``part`` where the angle is zero."""
    small = angle < 1e-4
    safe = jnp.where(small, 1.0, angle)
    return jnp.where(small, part, jnp.sin(part * safe) / jnp.sin(safe))


def interpolate(a: Array, b: Array, frames: int) -> Array:
    """Latents on the way from ``a`` to ``b``, ends included: ``(B, *D)`` twice to ``(B, frames, *D)``.

    Raises:
      ValueError: fewer than two frames.
    """
    if frames < 2:
        raise ValueError(f"frames = {frames}: must be at least 2, the two ends")
    weights = jnp.linspace(0.0, 1.0, frames)
    return jax.vmap(lambda w: slerp(a, b, w), out_axes=1)(weights)


def temper(latent: Array, temperature: Array | float) -> Array:
    """Latents of a cooler (below 1) or hotter prior: scaled by ``temperature`` (arXiv:2011.13456, D.3).

    Of normal data it is the spread that is scaled; at 0 all latents of a class decode to one example.

    Args:
      temperature: ``()`` or ``(B,)``, the factor on the standard deviation.
    """
    return expand(temperature, latent) * latent
