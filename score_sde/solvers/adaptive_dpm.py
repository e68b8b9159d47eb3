"""DPM-Solver with an error estimate (Lu et al. 2022, arXiv:2206.00927, appendix C)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import expand, mean_dims
from score_sde.denoiser import Denoise
from score_sde.names import nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Noise, Plan, Solver, make_plan, marginals

# How errors ``(B,)`` become those that decide: each its own, one for all, or the largest for all.
CONTROLS: dict[str, Callable[[Array], Array]] = {
    "sample": lambda error: error,
    "batch": lambda error: jnp.broadcast_to(jnp.sqrt(jnp.mean(error**2)), error.shape),
    "largest": lambda error: jnp.broadcast_to(jnp.max(error), error.shape),
}


def plain(ratio: Array, planned: Array, taken: Array) -> tuple[Array, Array]:
    """The paper's: a step is kept if its error is at most 1; the next is 0.9 times what it suggests."""
    return ratio >= 1.0, 0.9 * ratio * taken


def limited(ratio: Array, planned: Array, taken: Array) -> tuple[Array, Array]:
    """A smooth limit on the change (Soderlind & Wang 2006, eq. 25); steps that shrink a little are kept."""
    factor = 1.0 + jnp.arctan(ratio - 1.0)
    return factor >= 0.81, factor * planned


# ``(error^(-1 / order), step planned, step taken) -> (whether it is kept, the next)``: the last step is taken
# shorter than planned.
Controller = Callable[[Array, Array, Array], tuple[Array, Array]]
CONTROLLERS: dict[str, Controller] = {"plain": plain, "limited": limited}


class _State(NamedTuple):
    """The loop's: ``x``, the last lower estimate, half log-SNR, next step and tries of each sample."""

    x: Array
    previous: Array
    lam: Array
    h: Array
    tries: Array


@dataclass(frozen=True, kw_only=True)
class AdaptiveDPM(Solver):
    """DPM-Solver-12 and -23: a singlestep method and the one of an order less within it.

    Steps are in half log-SNR.  The grid gives the first and last time only; both need noise and signal.

    Attributes:
      order: 2 or 3.
      prediction: ``noise`` (DPM-Solver) or ``x0`` (DPM-Solver++).
      dpm_rtol, dpm_atol: tolerances.
      dpm_first: first step.
      dpm_control: the error that decides: of each ``sample``, of the whole ``batch``, or the ``largest`` in
        it (the published way); with the last two a sample depends on its batch.
      controller: ``plain``, as published, or ``limited``.
      max_steps: after so many tries a sample is given up as NaN.
    """

    order: int = 3
    prediction: str = "noise"
    dpm_rtol: float = 0.05
    dpm_atol: float = 0.0078
    dpm_first: float = 0.05
    dpm_control: str = "sample"
    controller: str = "plain"
    max_steps: int = 4096

    def __post_init__(self) -> None:
        for name, allowed in (
            ("order", (2, 3)),
            ("prediction", ("noise", "x0")),
            ("dpm_control", CONTROLS),
            ("controller", CONTROLLERS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"{name} = {value!r} is not one of: {', '.join(map(str, allowed))}"
                    f"{nearest(str(value), map(str, allowed))}"
                )
        if min(self.dpm_rtol, self.dpm_atol, self.dpm_first) <= 0 or self.max_steps < 1:
            raise ValueError(
                "need dpm_rtol, dpm_atol and dpm_first > 0 and max_steps >= 1, got "
                f"{self.dpm_rtol}, {self.dpm_atol}, {self.dpm_first} and {self.max_steps}"
            )

    @property
    def accuracy(self) -> float:
        return self.order

    @property
    def couples_batch(self) -> bool:
        return self.dpm_control != "sample"

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        if not np.all(np.isfinite(marginals(sde, np.asarray(times)[[0, -1]]).lam)):
            raise ValueError("adaptive_dpm starts where alpha > 0, and ends where sigma > 0")
        return make_plan(None, times)

    def run(
        self,
        denoise: Denoise,
        sde: SDE,
        x: Array,
        plan: Plan,
        noise: Noise,
    ) -> Array:
        return self.solve(denoise, sde, x, plan)[0]

    def solve(self, denoise: Denoise, sde: SDE, x: Array, plan: Plan) -> tuple[Array, Array]:
        """The samples, and how many steps were tried for each ``(B,)``; a try takes ``order`` evaluations."""
        start, end = (jnp.asarray(0.5 * sde.log_snr(jnp.asarray(t, x.dtype))) for t in (plan.start, plan.end))

        def active(state: _State) -> Array:
            return (state.lam < end) & (state.tries < self.max_steps)

        def attempt(state: _State) -> _State:
            going = active(state)
            h = jnp.minimum(state.h, end - state.lam)
            low, high = self._pair(denoise, sde, state.x, state.lam, h)
            scale = jnp.maximum(
                self.dpm_atol, self.dpm_rtol * jnp.maximum(jnp.abs(low), jnp.abs(state.previous))
            )
            error = CONTROLS[self.dpm_control](jnp.sqrt(mean_dims(((high - low) / scale) ** 2)))
            ratio = jnp.maximum(error, 1e-8) ** (-1.0 / self.order)
            keep, following = CONTROLLERS[self.controller](ratio, state.h, h)
            keep, wide = going & keep, expand(going & keep, x)
            return _State(
                jnp.where(wide, high, state.x),
                jnp.where(wide, low, state.previous),
                jnp.where(keep, jnp.where(h >= end - state.lam, end, state.lam + h), state.lam),
                jnp.where(going, jnp.where(jnp.isfinite(error), following, 0.5 * h), state.h),
                state.tries + going,
            )

        size = x.shape[:1]
        state = _State(
            x,
            x,
            jnp.full(size, start, x.dtype),
            jnp.full(size, self.dpm_first, x.dtype),
            jnp.zeros(size, jnp.int32),
        )
        state = jax.lax.while_loop(lambda state: jnp.any(active(state)), attempt, state)
        return jnp.where(expand(state.lam >= end, x), state.x, jnp.nan), state.tries

    def _pair(self, denoise: Denoise, sde: SDE, x: Array, lam: Array, h: Array) -> tuple[Array, Array]:
        """The step of ``h`` by the method of an order less, and by the method (algorithms 1 and 2)."""

        def at(share: float) -> tuple[Array, Array, Array]:
            t = sde.time_of(2.0 * (lam + share * h), 0.0)
            return t, expand(sde.alpha(t), x), expand(sde.sigma(t), x)

        _, alpha, sigma = at(0.0)
        z = expand(h if self.prediction == "noise" else -h, x)

        def predict(x: Array, share: float) -> Array:
            estimate = denoise(x, at(share)[0])
            return estimate.noise if self.prediction == "noise" else estimate.x0

        def move(share: float, first: Array, slope: Array | float) -> Array:
            """To ``share`` of the step: the prediction at its start, and what its change adds."""
            _, a, s = at(share)
            gain, scale = (a / alpha, s) if self.prediction == "noise" else (s / sigma, a)
            return gain * x - scale * (jnp.expm1(share * z) * first + slope)

        def curved(share: float) -> Array:
            return jnp.expm1(share * z) / (share * z) - 1.0

        m0, flat = predict(x, 0.0), 0.0
        if self.order == 2:
            m1 = predict(move(0.5, m0, flat), 0.5)
            return move(1.0, m0, flat), move(1.0, m0, jnp.expm1(z) * (m1 - m0))
        m1 = predict(move(1 / 3, m0, flat), 1 / 3)
        m2 = predict(move(2 / 3, m0, 2.0 * curved(2 / 3) * (m1 - m0)), 2 / 3)
        return move(1.0, m0, 1.5 * jnp.expm1(z) * (m1 - m0)), move(1.0, m0, 1.5 * curved(1.0) * (m2 - m0))
