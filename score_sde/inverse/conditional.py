"""What is seen goes into a network that was trained to be given it."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts
from score_sde.conditions import Cond
from score_sde.data.known import KNOWN, known
from score_sde.denoiser import Bind, Denoise, Estimate, from_x0
from score_sde.inverse.base import MEASURED, Posterior
from score_sde.inverse.mask import MASK, Mask


@dataclass(frozen=True, kw_only=True)
class Conditional(Posterior):
    """The network is given the seen entries and estimates the others (arXiv:2107.03502); nothing is derived.

    It needs a model that the task of imputation has trained, and a mask.  What is seen counts as exact,
    whatever ``noise_std`` says.

    Raises (when it is bound):
      ValueError: another operator, or a network that was not trained to be given what is seen.
    """

    def __call__(self, bind: Bind) -> Bind:
        if not isinstance(self.operator, Mask):
            raise ValueError(f"method 'conditional' is for masks, not for {type(self.operator).__name__}")

        corrected = super().__call__

        def bind_measured(parts: Parts, cond: Cond) -> Denoise:
            def bind_known(parts: Parts, others: Cond) -> Denoise:
                denoise = bind(parts, {**others, KNOWN: known(cond[MEASURED], cond[MASK])})
                if KNOWN not in getattr(denoise, "cond", (KNOWN,)):
                    raise ValueError(
                        "method 'conditional' needs a network that was trained to be given what is seen: "
                        "config.task = 'imputation'"
                    )
                return denoise

            return corrected(bind_known)(parts, cond)

        return bind_measured

    def correct(self, denoise: Denoise, x: Array, t: Array, given: Cond) -> Estimate:
        estimate, seen = denoise(x, t), given[MASK] > 0
        exact = from_x0(self.sde, given[MEASURED], x, t)
        return Estimate(jnp.where(seen, exact.x0, estimate.x0), jnp.where(seen, exact.noise, estimate.noise))
