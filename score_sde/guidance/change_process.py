"""A model on the path of another process."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts, expand
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.base import Guidance
from score_sde.sde import SDE


def at_equal_log_snr(trained: SDE, sampled: SDE, x: Array, t: Array, levels: int = 0) -> tuple[Array, Array]:
    """The place, ``(B, *D)`` and time, of ``trained`` that belongs to ``x`` at ``t`` of ``sampled``.

    Beyond the trained range the level is the nearest one, the scale still that of ``x``.

    Args:
      levels: as of ``ChangeProcess``.
    """
    u = trained.time_of(sampled.log_snr(t), 0.0 if levels else trained.t_min)
    if levels:
        u = jnp.round(u * (levels - 1)) / (levels - 1)
    return x * expand(trained.alpha(u) / sampled.alpha(t), x), u


@dataclass(frozen=True, kw_only=True)
class ChangeProcess(Guidance):
    """A model trained under one process, for the solvers of another.

    ``x_t / alpha_t`` at one log-SNR has the same distribution under every Gaussian process, so that
    ``D_sampled(x, t) = D_trained(x alpha_trained(u) / alpha_sampled(t), u)`` where the log-SNRs of ``u`` and
    ``t`` agree (arXiv:2206.00364, appendix C), and the noise is the same.  A VP model runs on EDM's grid in
    that way, and back.

    Attributes:
      trained: the process of the model.
      sampled: the process that the solver is given.
      levels: round ``u`` to the levels ``0 ... levels - 1`` of a discrete model, as EDM does with released
        networks; 0: no rounding, the model is given a time between its levels.
    """

    trained: SDE
    sampled: SDE
    levels: int = 0

    def __call__(self, bind: Bind) -> Bind:
        trained, sampled, levels = self.trained, self.sampled, self.levels

        def bind_sampled(parts: Parts, cond: Cond) -> Denoise:
            denoise = bind(parts, cond)

            def denoise_sampled(x: Array, t: Array) -> Estimate:
                t = jnp.asarray(t, x.dtype)
                placed, u = at_equal_log_snr(trained, sampled, x, t, levels)
                x0, noise = denoise(placed, u)
                # What x has beside x0 is all noise of the level of t, also where the model saw another.
                ratio = jnp.exp(0.5 * (sampled.log_snr(t) - trained.log_snr(u)))
                return Estimate(x0, noise * expand(ratio, x))

            return denoise_sampled

        return bind_sampled
