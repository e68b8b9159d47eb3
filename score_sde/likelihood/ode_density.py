"""Exact log densities by the probability-flow ODE (arXiv:2011.13456, section 4.3 and appendix D.2).

    log p(x(t_min)) = log prior(x(t_max)) + int_{t_min}^{t_max} div velocity(x(t), t) dt

The divergence is exact, or Hutchinson's estimate ``probe . J probe`` with probes that stay the same along a
trajectory (Grathwohl et al. 2019, arXiv:1810.01367).

It does not feed back into the trajectory.  With ``lam = log(alpha / sigma)`` and ``n`` dimensions, Tweedie's
formula turns its integral into a known part and one of the denoiser's divergence,

    int div velocity dt = n log(sigma(t_max) / sigma(t_min)) - int alpha div D(x, t) d lam

whose integrand is between 0 and about n and smooth in ``lam``.  It changes where the noise is about as large
as the data's variation and is flat towards either end, so a Clenshaw-Curtis rule in ``u``, with
``lam = CENTRE + SCALE sinh u``, takes it at a few nodes along the trajectory, which itself costs network
evaluations without tangents.  Without nodes both are integrated together, as the official code does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand, fold_in_each, sum_dims
from score_sde.denoiser import Denoise, velocity_from
from score_sde.integrate import ode
from score_sde.integrate.fixed_steps import METHODS
from score_sde.names import nearest
from score_sde.sde import SDE

Function = Callable[[Array], Array]
State = tuple[Array, ...]
Field = Callable[[Array, State], State]

# Where the nodes are dense in lam, for data on about [-1, 1]: a choice of cost, not of result.
CENTRE, SCALE = 1.0, 2.0


def _u(sde: SDE, t: Array) -> Array:
    return jnp.arcsinh((0.5 * sde.log_snr(t) - CENTRE) / SCALE)


def _time(sde: SDE, u: Array, first: Array | float) -> Array:
    """Of ``u``, elementwise; not before ``first``."""
    return sde.time_of(2.0 * (CENTRE + SCALE * jnp.sinh(u)), first)  # type: ignore[arg-type]


def _slope(sde: SDE, u: Array, t: Array) -> Array:
    """``dt / du`` at a time and its ``u``."""
    _, by_time = jax.jvp(sde.log_snr, (t,), (jnp.ones_like(t),))
    return 2.0 * SCALE * jnp.cosh(u) / by_time


def _check_member(name: str, value: str, table: dict) -> None:
    if value not in table:
        raise ValueError(f"{name} = {value!r} is not one of: {', '.join(table)}{nearest(value, table)}")


def rademacher(key: Array, shape: tuple[int, ...]) -> Array:
    """Independent signs: the probe of least variance among those with independent entries."""
    return jax.random.rademacher(key, shape, jnp.float32)


PROBES = {"rademacher": rademacher, "gaussian": jax.random.normal}


@dataclass(frozen=True, kw_only=True)
class Hutchinson:
    """Unbiased divergence from ``probes`` random directions, each a tangent of the same primal.

    Attributes:
      probes: directions per example; the standard error falls with its square root.
      kind: ``rademacher`` or ``gaussian``.
    """

    probes: int = 1
    kind: str = "rademacher"

    def __post_init__(self) -> None:
        if self.kind not in PROBES or self.probes < 1:
            raise ValueError(
                f"need probes >= 1 and kind one of {', '.join(PROBES)}, got {self.probes} and {self.kind!r}"
            )

    def directions(self, keys: Array, shape: tuple[int, ...]) -> Array:
        """Probes ``(probes, B, *shape)`` from per-example keys ``(B,)``."""
        draw = PROBES[self.kind]
        return jax.vmap(lambda i: jax.vmap(lambda key: draw(key, shape))(fold_in_each(keys, i)))(
            jnp.arange(self.probes)
        )

    def __call__(self, function: Function, x: Array, directions: Array) -> tuple[Array, Array]:
        """``function(x): (B, *D)`` and each probe's estimate of its divergence, ``(B, probes)``."""
        value, tangents = _jvps(function, x, directions)
        return value, jax.vmap(lambda e, je: sum_dims(e * je), out_axes=1)(directions, tangents)


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The whole trace, one tangent per dimension, ``chunk`` of them at a time.

    Attributes:
      chunk: dimensions computed at a time.
    """

    chunk: int = 64

    def directions(self, keys: Array, shape: tuple[int, ...]) -> Array:
        return jnp.zeros((0, keys.shape[0], *shape))  # nothing is drawn

    def __call__(self, function: Function, x: Array, directions: Array) -> tuple[Array, Array]:
        """``function(x): (B, *D)`` and its divergence, ``(B, 1)``."""
        size, shape = math.prod(x.shape[1:]), x.shape[1:]

        def diagonal(i: Array) -> Array:
            unit = jax.nn.one_hot(i, size, dtype=x.dtype).reshape((1, *shape))
            tangent = jax.jvp(function, (x,), (jnp.broadcast_to(unit, x.shape),))[1]
            return sum_dims(tangent * unit)

        parts = jax.lax.map(diagonal, jnp.arange(size), batch_size=min(self.chunk, size))
        return function(x), jnp.sum(parts, axis=0)[:, None]


DIVERGENCES = {"hutchinson": Hutchinson, "exact": Exact}


Divergence = Hutchinson | Exact


class Integrator(Protocol):
    """How the trajectory is followed.  A state is its point and then what is summed along its way."""

    def solve(
        self, field: Field, y0: State, sde: SDE, times: Array, light: Field | None = None
    ) -> ode.Solution[State]:
        """From the first to the last of ``times: (T,)``, rising, with the path at all of them.

        Args:
          light: ``field`` with zeros for what is summed, for slopes of which only the path is made.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """An embedded Runge-Kutta method, with step sizes from its error estimate.

    Attributes:
      rtol, atol: tolerances on the root mean square over what shares a step size.
      method: ``dopri5``, ``tsit5``, ``bosh3``, ``dopri8`` or ``heun``.
      error_control: ``sample``: each example at its own pace; ``batch``: one step size for all, as the
        official code has it, so that an example's result depends on its batch.
      max_steps: accepted and rejected steps after which an example is given up as NaN.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    method: str = "dopri5"
    error_control: str = "sample"
    max_steps: int = 4096

    def __post_init__(self) -> None:
        _check_member("method", self.method, ode.METHODS)
        _check_member("error_control", self.error_control, ode.CONTROLS)
        if self.rtol <= 0 or self.atol <= 0 or self.max_steps < 1:
            raise ValueError(
                f"need rtol, atol > 0 and max_steps >= 1, got {self.rtol}, {self.atol} and {self.max_steps}"
            )

    def solve(
        self, field: Field, y0: State, sde: SDE, times: Array, light: Field | None = None
    ) -> ode.Solution[State]:
        accuracy = ode.Accuracy(self.rtol, self.atol, self.max_steps, self.method)
        return ode.CONTROLS[self.error_control](field, y0, times[0], times[-1], accuracy, times, light)


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Steps on a grid: the same work for every example, and no error estimate.

    The grid is even in ``u``, the variable of the quadrature above, and slopes are taken by it.  The point is
    followed in units of ``sqrt(alpha^2 + sigma^2)``, 1 for VP, so that it does not grow with the noise.

    Attributes:
      method: ``adams``, of order 4 by one evaluation a step (Adams-Bashforth), or the Runge-Kutta methods
        ``euler``, ``heun``, ``midpoint`` and ``rk4`` by one, two, two and four.
      steps: in all, evenly shared between the times at which the path is wanted and rounded up there.
    """

    method: str = "adams"
    steps: int = 128

    def __post_init__(self) -> None:
        _check_member("method", self.method, METHODS)
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: must be at least 1")

    def solve(
        self, field: Field, y0: State, sde: SDE, times: Array, light: Field | None = None
    ) -> ode.Solution[State]:
        intervals = times.shape[0] - 1
        every = -(-self.steps // intervals)
        ends = _u(sde, times)
        share = jnp.arange(every, dtype=times.dtype) / every
        grid = jnp.append((ends[:-1, None] + jnp.outer(jnp.diff(ends), share)).ravel(), ends[-1])
        by_u = METHODS[self.method](grid)
        t = _time(sde, by_u.points, times[0])
        weights = by_u.weights * _newest_first(_slope(sde, by_u.points, t), by_u.weights.shape[1])
        how = by_u._replace(points=t, weights=weights, interval=by_u.interval // every)

        def unit(t: Array) -> Array:
            return jnp.sqrt(sde.alpha(t) ** 2 + sde.sigma(t) ** 2)

        def scaled(t: Array, state: State) -> State:
            point, *rest = state
            size, growth = (expand(a, point) for a in jax.jvp(unit, (t,), (jnp.ones_like(t),)))
            velocity, *others = field(t, (size * point, *rest))
            return ((velocity - growth * point) / size, *others)

        point, *rest = y0
        found = ode.integrate_on(scaled, (point / unit(times[0]), *rest), how, intervals)
        (last, *sums), (path, *along) = found.y, found.path
        path = expand(unit(times), path) * path
        return found._replace(y=(unit(times[-1]) * last, *sums), path=(path, *along))


def _newest_first(values: Array, count: int) -> Array:
    """Each of ``(E,)`` and the ``count - 1`` before it, ``(E, count)``; before the first, that again."""
    return values[jnp.maximum(jnp.subtract.outer(jnp.arange(values.size), jnp.arange(count)), 0)]


INTEGRATORS = {"adaptive": Adaptive, "fixed": Fixed}


class LogProb(NamedTuple):
    """Result of ``log_prob``.

    Attributes:
      by_probe: log density of each example by each probe, ``(B, probes)``; NaN where the integration gave up.
      latent: the point of the prior that the example flows to, ``(B, *D)``.
      evaluations: network evaluations of each example, tangents not counted, ``(B,)``.
      quadrature_error: difference from the rule with half the nodes, ``(B, probes)``; zero without nodes.
    """

    by_probe: Array
    latent: Array
    evaluations: Array
    quadrature_error: Array

    @property
    def nats(self) -> Array:
        """Log density of each example, the mean over the probes, ``(B,)``."""
        return jnp.mean(self.by_probe, axis=1)


def log_prob(
    keys: Array,
    denoise: Denoise,
    sde: SDE,
    x: Array,
    *,
    divergence: Divergence,
    integrator: Integrator = Adaptive(),
    nodes: int = 0,
    t_min: float | None = None,
) -> LogProb:
    """Log density of ``x`` under the model, in nats, with respect to the units of ``x``.

    Args:
      keys: one per example, ``(B,)``; only Hutchinson draws from them.
      denoise: the model.
      x: ``(B, *D)``.  Integer data must be dequantised first, or the density is unbounded.
      nodes: intervals of the divergence's quadrature, an even number; 0: it is integrated with the ODE, and
        shares its error estimate.  With nodes the steps follow the path alone; ``quadrature_error`` is the
        rule's own and does not see the path's.
      t_min: the time at which the data are placed; ``sde.t_min`` when None.
    """
    directions = divergence.directions(keys, x.shape[1:]).astype(x.dtype)
    start = sde.t_min if t_min is None else t_min
    follow = _with_nodes if nodes else _together
    expansion, error, solution, latent = follow(
        denoise, sde, x, divergence, directions, integrator, start, nodes
    )
    by_probe = sde.prior_log_prob(latent)[:, None] + expansion
    return LogProb(by_probe, latent, solution.evaluations + (nodes + 1 if nodes else 0), error)


def _together(
    denoise: Denoise,
    sde: SDE,
    x: Array,
    divergence: Divergence,
    directions: Array,
    integrator: Integrator,
    start: float,
    nodes: int,
) -> tuple[Array, Array, ode.Solution[State], Array]:
    """Trajectory and divergence as one ODE: the integral, its known error, the solution, its end."""

    def field(t: Array, state: State) -> State:
        x, _ = state
        return divergence(lambda x: velocity_from(sde, denoise(x, t), t), x, directions)

    def light(t: Array, state: State) -> State:
        x, expansion = state
        return velocity_from(sde, denoise(x, t), t), jnp.zeros_like(expansion)

    probes = max(directions.shape[0], 1)
    y0 = (x, jnp.zeros((x.shape[0], probes), x.dtype))
    solution = integrator.solve(field, y0, sde, jnp.array([start, sde.t_max], x.dtype), light)
    latent, expansion = solution.y
    return expansion, jnp.zeros_like(expansion), solution, latent


def _with_nodes(
    denoise: Denoise,
    sde: SDE,
    x: Array,
    divergence: Divergence,
    directions: Array,
    integrator: Integrator,
    start: float,
    nodes: int,
) -> tuple[Array, Array, ode.Solution[State], Array]:
    """The trajectory, and then the divergence along it; returns what ``_together`` does."""

    def field(t: Array, state: State) -> State:
        (x,) = state
        return (velocity_from(sde, denoise(x, t), t),)

    ends = jnp.array([start, sde.t_max], x.dtype)
    points, weights, coarse = (jnp.asarray(a, x.dtype) for a in clenshaw_curtis(nodes))
    first, last = _u(sde, ends)
    u = first + (last - first) * points
    times = jnp.concatenate([ends[:1], _time(sde, u[1:-1], start), ends[1:]])
    solution = integrator.solve(field, (x,), sde, times)
    (latent,), (path,) = solution.y, solution.path

    def at(node: tuple[Array, Array]) -> Array:
        t, x = node
        t = jnp.broadcast_to(t, x.shape[:1])
        _, trace = divergence(lambda x: expand(sde.alpha(t), x) * denoise(x, t).x0, x, directions)
        return trace

    traces = jax.lax.map(at, (times, path))  # (nodes + 1, B, probes)
    measure = (first - last) * SCALE * jnp.cosh(u)  # d lam over d point
    fine, rough = (jnp.sum(expand(w * measure, traces) * traces, axis=0) for w in (weights, coarse))
    spread = math.prod(x.shape[1:]) * jnp.log(sde.sigma(ends[1]) / sde.sigma(ends[0]))
    return spread - fine, jnp.abs(fine - rough), solution, latent


def clenshaw_curtis(intervals: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on [0, 1] and weights of the rule, and the weights of that with half the intervals.

    ``(intervals + 1,)`` each, float64, with zeros in the coarser rule (Clenshaw & Curtis 1960).

    Raises:
      ValueError: ``intervals`` is not a positive multiple of 4.
    """
    if intervals < 4 or intervals % 4:
        raise ValueError(f"nodes = {intervals}: must be 0 or a positive multiple of 4")
    points = 0.5 - 0.5 * np.cos(np.pi * np.arange(intervals + 1) / intervals)
    coarse = np.zeros(intervals + 1)
    coarse[::2] = _rule(intervals // 2)
    return points, _rule(intervals), coarse


def _rule(intervals: int) -> np.ndarray:
    """Weights on [0, 1] for an even number of intervals: the cosine series is integrated term by term."""
    j, k = np.arange(intervals + 1), np.arange(1, intervals // 2 + 1)
    terms = np.where(k == intervals // 2, 1.0, 2.0) / (4.0 * k**2 - 1.0)
    series = 1.0 - np.cos(2.0 * np.pi * np.outer(j, k) / intervals) @ terms
    return np.where((j == 0) | (j == intervals), 0.5, 1.0) * series / intervals


def bits_per_dim(nats: Array, size: int, log_volume: float = 0.0) -> Array:
    """``-(nats + size log_volume) / (size log 2)``: bits per dimension of the data's own units.

    Args:
      nats: log density in the model's units, ``(B,)``.
      size: dimensions of one example.
      log_volume: log of the model-unit width of one unit of the data, in nats per dimension: of one level
        for integer data (``log(2 / 256)`` for bytes on [-1, 1], the "+7" of the official code).
    """
    return -(nats / size + log_volume) / math.log(2.0)


def _jvps(function: Function, x: Array, tangents: Array) -> tuple[Array, Array]:
    """Value and tangents ``(k, B, *D)`` with one shared primal evaluation."""
    return jax.vmap(lambda e: jax.jvp(function, (x,), (e,)), out_axes=(None, 0))(tangents)
