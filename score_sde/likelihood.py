"""Exact log densities by the probability-flow ODE (arXiv:2011.13456, section 4.3 and appendix D.2).

    log p(x(t_min)) = log prior(x(t_max)) + int_{t_min}^{t_max} div velocity(x(t), t) dt

The divergence is exact, or Hutchinson's estimate ``probe . J probe`` with probes that stay the same along a
trajectory (Grathwohl et al. 2019, arXiv:1810.01367).  Velocity and divergence come from one forward pass,
so an evaluation costs one network evaluation and its tangent, not two networks and a reverse pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from score_sde import ode
from score_sde.arrays import fold_in_each, sum_dims
from score_sde.denoiser import Denoise, velocity_from
from score_sde.sde import SDE

Velocity = Callable[[Array], Array]


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

    def __call__(self, velocity: Velocity, x: Array, directions: Array) -> tuple[Array, Array]:
        """Velocity ``(B, *D)`` and divergence ``(B,)`` at ``x``."""
        slope, tangents = _jvps(velocity, x, directions)
        return slope, jnp.mean(jax.vmap(lambda e, je: sum_dims(e * je))(directions, tangents), 0)


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The whole trace, one tangent per dimension, ``chunk`` of them at a time."""

    chunk: int = 64

    def directions(self, keys: Array, shape: tuple[int, ...]) -> Array:
        return jnp.zeros((0, keys.shape[0], *shape))  # nothing is drawn

    def __call__(self, velocity: Velocity, x: Array, directions: Array) -> tuple[Array, Array]:
        """Velocity ``(B, *D)`` and divergence ``(B,)`` at ``x``."""
        size, shape = math.prod(x.shape[1:]), x.shape[1:]

        def diagonal(i: Array) -> Array:
            unit = jax.nn.one_hot(i, size, dtype=x.dtype).reshape((1, *shape))
            tangent = jax.jvp(velocity, (x,), (jnp.broadcast_to(unit, x.shape),))[1]
            return sum_dims(tangent * unit)

        parts = jax.lax.map(diagonal, jnp.arange(size), batch_size=min(self.chunk, size))
        return velocity(x), jnp.sum(parts, axis=0)


DIVERGENCES = {"hutchinson": Hutchinson, "exact": Exact}


class LogProb(NamedTuple):
    """Result of ``log_prob``.

    Attributes:
      nats: log density of each example, ``(B,)``; NaN where the integration gave up.
      latent: the point of the prior that the example flows to, ``(B, *D)``.
      evaluations: evaluations of the velocity and its divergence, ``(B,)``.
    """

    nats: Array
    latent: Array
    evaluations: Array


def log_prob(
    keys: Array,
    denoise: Denoise,
    sde: SDE,
    x: Array,
    *,
    divergence: Hutchinson | Exact,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_min: float | None = None,
    method: str = "dopri5",
    max_steps: int = 4096,
) -> LogProb:
    """Log density of ``x`` under the model, in nats, with respect to the units of ``x``.

    Args:
      keys: one per example, ``(B,)``; only Hutchinson draws from them.
      denoise: the model.
      x: ``(B, *D)``.  Integer data must be dequantised first, or the density is unbounded.
      rtol, atol: tolerances of the integration, over ``x`` and the log density together.
      t_min: where the data are taken to lie; ``sde.t_min`` when None.
    """
    directions = divergence.directions(keys, x.shape[1:]).astype(x.dtype)

    def field(t: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        x, _ = state
        return divergence(lambda x: velocity_from(sde, denoise(x, t), x, t), x, directions)

    solution = ode.integrate(
        field,
        (x, jnp.zeros(x.shape[0], x.dtype)),
        sde.t_min if t_min is None else t_min,
        sde.t_max,
        rtol=rtol,
        atol=atol,
        method=method,
        max_steps=max_steps,
    )
    latent, expansion = solution.y
    return LogProb(sde.prior_log_prob(latent) + expansion, latent, solution.evaluations)


def bits_per_dim(nats: Array, size: int, log_volume: float = 0.0) -> Array:
    """``-(nats + size log_volume) / (size log 2)``: bits per dimension of the data's own units.

    Args:
      nats: log density in the model's units, ``(B,)``.
      size: dimensions of one example.
      log_volume: log of the model-unit width of one unit of the data, in nats per dimension: of one level
        for integer data (``log(2 / 256)`` for bytes on [-1, 1], the "+7" of the official code).
    """
    return -(nats / size + log_volume) / math.log(2.0)


def _jvps(function: Velocity, x: Array, tangents: Array) -> tuple[Array, Array]:
    """Value and tangents ``(k, B, *D)`` with one shared primal evaluation."""
    return jax.vmap(lambda e: jax.jvp(function, (x,), (e,)), out_axes=(None, 0))(tangents)
