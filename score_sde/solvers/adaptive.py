"""Probability-flow ODE with an error estimate (arXiv:2011.13456, section 4.3)."""

from dataclasses import dataclass

import numpy as np
from jax import Array

from score_sde.denoiser import Denoise, velocity_from
from score_sde.integrate import ode
from score_sde.names import nearest
from score_sde.sde import SDE
from score_sde.solvers.base import Noise, Plan, Solver, make_plan


@dataclass(frozen=True, kw_only=True)
class AdaptiveODE(Solver):
    """Deterministic samples by an embedded Runge-Kutta method.  The grid gives the first and last time only.

    Attributes:
      rtol, atol: tolerances on the root mean square over the dimensions that share a step size.
      method: ``dopri5``, ``tsit5``, ``bosh3``, ``dopri8`` or ``heun``.
      error_control: ``sample``: each sample at its own pace; ``batch``: one step size for all, as in the
        official code, so that a sample depends on its batch.
      max_steps: after so many steps a sample is given up as NaN.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    method: str = "dopri5"
    error_control: str = "sample"
    max_steps: int = 4096

    def __post_init__(self) -> None:
        for name, table in (("method", ode.METHODS), ("error_control", ode.CONTROLS)):
            value = getattr(self, name)
            if value not in table:
                raise ValueError(
                    f"{name} = {value!r} is not one of: {', '.join(table)}{nearest(value, table)}"
                )
        if self.rtol <= 0 or self.atol <= 0 or self.max_steps < 1:
            raise ValueError(
                f"need rtol, atol > 0 and max_steps >= 1, got {self.rtol}, {self.atol}, {self.max_steps}"
            )

    @property
    def couples_batch(self) -> bool:
        return self.error_control == "batch"

    def plan(self, sde: SDE, times: np.ndarray) -> Plan:
        return make_plan(None, times)

    def run(
        self,
        denoise: Denoise,
        sde: SDE,
        x: Array,
        plan: Plan,
        noise: Noise,
    ) -> Array:
        def field(t: Array, x: Array) -> Array:
            return velocity_from(sde, denoise(x, t), t)

        accuracy = ode.Accuracy(self.rtol, self.atol, self.max_steps, self.method)
        return ode.CONTROLS[self.error_control](field, x, plan.start, plan.end, accuracy).y
