"""The ways to a log density that ``config.likelihood.estimates`` names, each with its conventions."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.architecture import Architecture
from score_sde.arrays import Params, Parts
from score_sde.codecs import Codec
from score_sde.conditions import Cond, Json
from score_sde.data import Source
from score_sde.denoiser import Denoise
from score_sde.evaluate import Density, Measured, measure_density
from score_sde.evaluate.batches import Dequantise, Encoder
from score_sde.evaluate.cache import NO_CACHE, Cache
from score_sde.experiment.assemble import density_of
from score_sde.experiment.fields import Choice, member
from score_sde.experiment.measure_sections import Likelihood
from score_sde.experiment.schema import Config
from score_sde.likelihood.bounds import Bound, Decoder, continuous_bound, discrete_bound
from score_sde.likelihood.ode_density import log_prob
from score_sde.names import ConfigError
from score_sde.runs.dequantiser import with_dequantiser

if TYPE_CHECKING:
    from score_sde.runs.model import Model


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

    measure: Callable[[Parts, Array, Array, Cond], Measured]
    encoder: Encoder
    log_volume: float
    draws: int
    conventions: dict[str, Json]
    dequantise: Dequantise | None = None


def of_ode(config: Config, architecture: Architecture) -> Estimate:
    """The probability-flow ODE."""
    density, section = density_of(config, architecture), config.likelihood
    codec = architecture.codec

    def measure(params: Parts, keys: Array, x: Array, cond: Cond) -> Measured:
        out = log_prob(
            keys,
            architecture.bind(params, cond),
            architecture.sde,
            x,
            divergence=density.divergence,
            integrator=density.integrator,
            nodes=density.nodes,
            t_min=density.t_min,
        )
        return Measured(out.by_probe, out.evaluations, out.quadrature_error)

    conventions: dict[str, Json] = {
        "value": "log density at t_min, exact but for integration and divergence",
        "divergence": _described(density.divergence),
        "integrator": _described(density.integrator),
        "quadrature": f"Clenshaw-Curtis in log-SNR, {section.nodes} intervals"
        if section.nodes
        else "none: the divergence is integrated with the ODE",
        "noise left out at t_min": "not corrected for",
    }
    return Estimate(
        measure,
        codec,
        codec.log_volume(),
        section.draws,
        _common(architecture, section) | codec.conventions() | conventions,
    )


def of_bound(config: Config, architecture: Architecture) -> Estimate:
    """The bound in continuous time."""
    section = config.likelihood

    def bound(keys: Array, denoise: Denoise, x: Array, decoder: Decoder) -> Bound:
        sde, times = architecture.sde, section.bound.times
        return continuous_bound(keys, denoise, sde, x, decoder=decoder, draws=times, t_min=section.t_min)

    conventions: dict[str, Json] = {
        "value": "lower bound on the log density, continuous time (arXiv:2101.09258)",
        "times": f"{section.bound.times} an example, uniform in log-SNR, stratified",
    }
    return _bounded(architecture, section, section.bound.decoder, bound, conventions)


def of_vlb(config: Config, architecture: Architecture) -> Estimate:
    """The bound of a chain: the process's own levels, or some of a continuous process."""
    section = config.likelihood
    times = chain_times(architecture, section)

    def bound(keys: Array, denoise: Denoise, x: Array, decoder: Decoder) -> Bound:
        return discrete_bound(
            keys,
            denoise,
            architecture.sde,
            x,
            times=times,
            decoder=decoder,
            variance=section.vlb.variance,
            draws=section.vlb.draws,
        )

    conventions: dict[str, Json] = {
        "value": "lower bound on the log density, discrete time (arXiv:2006.11239, eq. 5)",
        "levels": f"{len(times)}, "
        + ("of the process" if hasattr(architecture.sde, "steps") else "equal in log-SNR"),
        "steps looked at": section.vlb.draws or len(times) - 1,
        "reverse variance": section.vlb.variance,
    }
    return _bounded(architecture, section, section.vlb.decoder, bound, conventions)


ESTIMATES: dict[str, Callable[[Config, Architecture], Estimate]] = {
    "ode": of_ode,
    "bound": of_bound,
    "vlb": of_vlb,
}


def chain_times(architecture: Architecture, section: Likelihood) -> np.ndarray:
    """Noise levels of the chain, rising, float64."""
    sde: Any = architecture.sde
    if hasattr(sde, "steps"):
        return np.arange(sde.steps) / (sde.steps - 1)
    start = sde.t_min if section.t_min is None else section.t_min
    high, low = (float(sde.log_snr(jnp.float32(t))) for t in (start, sde.t_max))
    inner = np.asarray(sde.time_of(jnp.linspace(high, low, section.vlb.steps)[1:-1], start), np.float64)
    return np.concatenate([[start], inner, [sde.t_max]])


def _bounded(
    architecture: Architecture,
    section: Likelihood,
    choice: Choice[Decoder],
    bound: Callable[[Array, Denoise, Array, Decoder], Bound],
    conventions: dict[str, Json],
) -> Estimate:
    codec, of_levels = architecture.codec, choice.takes("cells")
    if of_levels and codec.levels is None:
        raise ConfigError(f"config.{choice.field} = {choice.name!r}: continuous data have no levels")
    decoder = choice.build(**({"cells": codec.levels.cells} if codec.levels else {}))

    def measure(params: Parts, keys: Array, x: Array, cond: Cond) -> Measured:
        out = bound(keys, architecture.bind(params, cond), x, decoder)
        nats = out.nats[:, None]
        return Measured(nats, out.evaluations, jnp.zeros_like(nats))

    if of_levels:
        encoder, volume = Middles(codec), 0.0
        data = {"dequantization": "none: the decoder gives probabilities of levels", "log_volume_nats": 0.0}
    else:
        encoder, volume, data = codec, codec.log_volume(), codec.conventions()
    what = _common(architecture, section) | data | {"decoder at t_min": choice.name} | conventions
    return Estimate(measure, encoder, volume, section.draws, what)


def _common(architecture: Architecture, section: Likelihood) -> dict[str, Json]:
    sde = architecture.sde
    return {
        "process": repr(sde),
        "time range": [sde.t_min if section.t_min is None else section.t_min, sde.t_max],
        "prior": f"N(0, {sde.prior_sigma:g}^2)",
        "parameters": "moving average",
    }


def _described(value: Any) -> dict[str, Json]:
    return {"name": type(value).__name__.lower(), **asdict(value)}


def make_estimate(model: "Model", name: str) -> Estimate:
    """The estimate of that name for a model, with the dequantisation noise that its config names.

    Raises:
      ConfigError: no such estimate, or one that these data do not have.
      FileNotFoundError: a learned dequantiser that has not been trained.
    """
    estimate = member(ESTIMATES, name, "likelihood.estimates")(model.config, model.architecture)
    asked = model.config.likelihood.dequantiser == "learned"
    learned = asked and estimate.encoder is model.architecture.codec
    return with_dequantiser(estimate, model) if learned else estimate


def measure(
    estimate: Estimate,
    model: "Model",
    source: Source,
    *,
    seed: int | None = None,
    cache: Cache = NO_CACHE,
    note: Callable[[int, float], None] | None = None,
) -> Density:
    """The estimate for every example of a source.

    Raises:
      FloatingPointError: an example could not be integrated.
    """
    return measure_density(
        estimate.measure,
        model.parts,
        source,
        estimate.encoder,
        model.mesh,
        batch_size=model.config.likelihood.batch_size,
        seed=model.config.seed if seed is None else seed,
        log_volume=estimate.log_volume,
        draws=estimate.draws,
        dequantise=estimate.dequantise,
        cache=cache,
        note=note,
    )
