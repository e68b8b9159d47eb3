"""The ways to a log density that ``config.likelihood.estimates`` names, each with what must be said of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params
from score_sde.codecs import Codec, Pixels
from score_sde.conditions import Cond
from score_sde.evaluate import Measured
from score_sde.evaluate.batches import Dequantise, Encoder
from score_sde.experiment.assemble import Experiment, density_of
from score_sde.experiment.fields import Choice
from score_sde.experiment.measure_sections import Likelihood
from score_sde.likelihood.bounds import Bound, Cells, Decoder, continuous_bound, discrete_bound
from score_sde.likelihood.ode_density import log_prob
from score_sde.names import ConfigError


class Middles:
    """Levels at their middles: without the noise that a decoder of levels does not want."""

    def __init__(self, codec: Codec):
        self._codec = codec

    def encode(self, params: Params, raw: Array, key: Array) -> Array:
        return self._codec.middle(params, raw)


@dataclass(frozen=True)
class Estimate:
    """One way to measure.

    Attributes:
      measure: of a batch.
      encoder: what it is measured on.
      log_volume: nats per dimension that turn the result into the data's units.
      draws: of the dequantisation noise, or of whatever else is drawn.
      conventions: what a reader must know to repeat the number, and to compare it.
      dequantise: a learned density of the noise; None for uniform noise, or none.
    """

    measure: Callable[[Any, Array, Array, Cond], Measured]
    encoder: Encoder
    log_volume: float
    draws: int
    conventions: dict[str, Any]
    dequantise: Dequantise | None = None


def of_ode(experiment: Experiment, config: Likelihood) -> Estimate:
    """The probability-flow ODE."""
    density = density_of(experiment)

    def measure(params: Any, keys: Array, x: Array, cond: Cond) -> Measured:
        out = log_prob(
            keys,
            experiment.bind(params, cond),
            experiment.sde,
            x,
            divergence=density.divergence,
            integrator=density.integrator,
            nodes=density.nodes,
            t_min=density.t_min,
        )
        return Measured(out.by_probe, out.evaluations, out.quadrature_error)

    codec = experiment.codec
    told = {
        "value": "log density at t_min, exact but for integration and divergence",
        "divergence": _told(density.divergence),
        "integrator": _told(density.integrator),
        "quadrature": f"Clenshaw-Curtis in log-SNR, {config.nodes} intervals"
        if config.nodes
        else "none: the divergence is integrated with the ODE",
        "noise left out at t_min": "not corrected for",
    }
    return Estimate(
        measure,
        codec,
        codec.log_volume(),
        config.draws,
        _common(experiment, config) | _dequantised(experiment.pixels) | told,
    )


def of_bound(experiment: Experiment, config: Likelihood) -> Estimate:
    """The bound in continuous time."""

    def bound(keys: Array, denoise: Any, x: Array, decoder: Decoder) -> Bound:
        return continuous_bound(
            keys, denoise, experiment.sde, x, decoder=decoder, draws=config.bound.times, t_min=config.t_min
        )

    told = {
        "value": "lower bound on the log density, continuous time (arXiv:2101.09258)",
        "times": f"{config.bound.times} an example, uniform in log-SNR, stratified",
    }
    return _bounded(experiment, config, config.bound.decoder, bound, told)


def of_vlb(experiment: Experiment, config: Likelihood) -> Estimate:
    """The bound of a chain: the process's own levels, or some of a continuous process."""
    times = chain_times(experiment, config)

    def bound(keys: Array, denoise: Any, x: Array, decoder: Decoder) -> Bound:
        return discrete_bound(
            keys,
            denoise,
            experiment.sde,
            x,
            times=times,
            decoder=decoder,
            variance=config.vlb.variance,
            draws=config.vlb.draws,
        )

    told = {
        "value": "lower bound on the log density, discrete time (arXiv:2006.11239, eq. 5)",
        "levels": f"{len(times)}, "
        + ("of the process" if hasattr(experiment.sde, "steps") else "equal in log-SNR"),
        "steps looked at": config.vlb.draws or len(times) - 1,
        "reverse variance": config.vlb.variance,
    }
    return _bounded(experiment, config, config.vlb.decoder, bound, told)


ESTIMATES: dict[str, Callable[[Experiment, Likelihood], Estimate]] = {
    "ode": of_ode,
    "bound": of_bound,
    "vlb": of_vlb,
}


def chain_times(experiment: Experiment, config: Likelihood) -> np.ndarray:
    """Noise levels of the chain, rising, float64."""
    sde: Any = experiment.sde
    if hasattr(sde, "steps"):
        return np.arange(sde.steps) / (sde.steps - 1)
    start = sde.t_min if config.t_min is None else config.t_min
    high, low = (float(sde.log_snr(jnp.float32(t))) for t in (start, sde.t_max))
    inner = np.asarray(sde.time_of(jnp.linspace(high, low, config.vlb.steps)[1:-1], start), np.float64)
    return np.concatenate([[start], inner, [sde.t_max]])


def _bounded(
    experiment: Experiment,
    config: Likelihood,
    choice: Choice[Decoder],
    bound: Callable[[Array, Any, Array, Decoder], Bound],
    told: dict[str, Any],
) -> Estimate:
    scaling, of_levels = experiment.scaling, choice.takes("cells")
    if of_levels and scaling.levels is None:
        raise ConfigError(f"config.{choice.field} = {choice.name!r}: continuous data have no levels")
    decoder = choice.build(**({"cells": cells_of(scaling)} if of_levels else {}))

    def measure(params: Any, keys: Array, x: Array, cond: Cond) -> Measured:
        out = bound(keys, experiment.bind(params, cond), x, decoder)
        nats = out.nats[:, None]
        return Measured(nats, out.evaluations, jnp.zeros_like(nats))

    if of_levels:
        encoder, volume = Middles(codec), 0.0
        data = {"dequantization": "none: the decoder gives probabilities of levels", "log_volume_nats": 0.0}
    else:
        encoder, volume, data = scaling, scaling.log_volume(), _dequantised(scaling)
    what = _common(experiment, config) | data | {"decoder at t_min": choice.name} | told
    return Estimate(measure, encoder, volume, config.draws, what)


def cells_of(pixels: Pixels) -> Cells:
    """Where ``pixels.middle`` puts the levels."""
    assert pixels.grey_levels is not None
    width = pixels.high - pixels.low
    if pixels.dequantize:
        step = width / pixels.grey_levels
        return Cells(pixels.low + 0.5 * step, step, pixels.grey_levels)
    return Cells(pixels.low, width / (pixels.grey_levels - 1), pixels.grey_levels)


def _common(experiment: Experiment, config: Likelihood) -> dict[str, Any]:
    sde = experiment.sde
    return {
        "process": repr(sde),
        "time range": [sde.t_min if config.t_min is None else config.t_min, sde.t_max],
        "prior": f"N(0, {sde.prior_sigma:g}^2)",
        "parameters": "moving average",
    }


def _dequantised(pixels: Pixels) -> dict[str, Any]:
    if pixels.grey_levels is None:
        how = "none: continuous data"
    elif pixels.dequantize:
        how = f"uniform, {pixels.grey_levels} equal cells on [{pixels.low:g}, {pixels.high:g}]"
    else:
        how = "none: integers are points, so the density has no upper limit"
    return {"dequantization": how, "log_volume_nats": pixels.log_volume()}


def _told(value: Any) -> dict[str, Any]:
    return {"name": type(value).__name__.lower(), **asdict(value)}
