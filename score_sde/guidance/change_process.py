"""A model on the path of another process."""

import jax.numpy as jnp
from jax import Array

from score_sde.arrays import expand
from score_sde.denoiser import Denoise
from score_sde.sde import SDE


def across(denoise: Denoise, trained: SDE, sampled: SDE, *, levels: int = 0) -> Denoise:
    """A model trained under one process, for the solvers of another.

    ``x_t / alpha_t`` at one log-SNR has the same law under every Gaussian process, so that
    ``D_sampled(x, t) = D_trained(x alpha_trained(u) / alpha_sampled(t), u)`` where the log-SNRs of ``u`` and
    ``t`` agree (arXiv:2206.00364, appendix C).  A VP model runs on EDM's grid in that way, and back.

    Args:
      trained: the process of ``denoise``.
      sampled: the process that the solver is given.
      levels: round ``u`` to the levels ``0 ... levels - 1`` of a discrete model, as EDM does with released
        networks; 0: no rounding, the model is told a time between its levels.
    """
    low = 0.0 if levels else trained.t_min

    def denoise_sampled(x: Array, t: Array) -> Array:
        t = jnp.asarray(t, x.dtype)
        u = trained.time_of(sampled.log_snr(t), low)
        if levels:
            u = jnp.round(u * (levels - 1)) / (levels - 1)
        # Beyond the trained range the level is the nearest one, the scale still that of x.
        return denoise(x * expand(trained.alpha(u) / sampled.alpha(t), x), u)

    return denoise_sampled
