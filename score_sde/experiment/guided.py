"""The guidance that a config describes."""

from typing import Any

import jax.numpy as jnp

from score_sde.data import Scaling
from score_sde.denoiser import Cond
from score_sde.guidance import GUIDANCES, THRESHOLDS, ChangeProcess, Guidance, compose
from score_sde.names import ConfigError, build, find, options
from score_sde.sde import SDE


def guidance_of(config: Any, sde: SDE, path: SDE, scaling: Scaling) -> Guidance:
    """From the model to what the sampler sees: guidance, then the other path, and then the threshold.

    Raises:
      ConfigError: a choice that the model or the data do not allow.
    """
    sampling = config.sampling
    make = find(GUIDANCES, sampling.guidance, "sampling.guidance")
    if "null" in options(make):
        if not config.training.conditional:
            raise ConfigError(
                f"config.sampling.guidance = {sampling.guidance!r}: needs training.conditional, and a model "
                "trained with training.label_dropout"
            )
        parts = [build(make, {"scale": sampling.guidance_scale}, "sampling", null=_no_label)]
    else:
        if sampling.guidance_scale != 1.0:
            raise ConfigError(
                f"config.sampling.guidance_scale = {sampling.guidance_scale}: has no meaning with "
                f"sampling.guidance = {sampling.guidance!r}"
            )
        parts = [build(make, {}, "sampling")]
    if sampling.levels and path is sde:
        raise ConfigError(
            f"config.sampling.levels = {sampling.levels}: must be 0 with config.path.name = 'trained'"
        )
    if path is not sde:
        parts.append(ChangeProcess(trained=sde, sampled=path, levels=sampling.levels))
    return compose(*parts, _threshold(sampling, path, scaling))


def _no_label(cond: Cond) -> Cond:
    return {"label": jnp.full_like(cond["label"], -1)}


def _threshold(sampling: Any, path: SDE, scaling: Scaling) -> Guidance:
    make = find(THRESHOLDS, sampling.threshold, "sampling.threshold")
    if "low" not in options(make):
        return build(make, sampling, "sampling")
    if scaling.levels is None:
        raise ConfigError(
            f"config.sampling.threshold = {sampling.threshold!r}: must be 'none', for continuous data "
            "have no range"
        )
    return build(make, sampling, "sampling", sde=path, low=scaling.low, high=scaling.high)
