"""From a config to how log densities, and the latents that belong to them, are computed."""

from dataclasses import dataclass

from score_sde.architecture import Architecture
from score_sde.experiment.schema import Config
from score_sde.inversion.latents import Stepped, Transport
from score_sde.likelihood.ode_density import Divergence, Integrator, clenshaw_curtis
from score_sde.names import ConfigError
from score_sde.sde import SDE


@dataclass(frozen=True)
class DensityODE:
    """How the probability-flow ODE is followed.

    Attributes:
      nodes: intervals of the divergence's quadrature; 0: part of the ODE.
      t_min: the time at which the data are placed.
    """

    divergence: Divergence
    integrator: Integrator
    nodes: int
    t_min: float


def density_of(config: Config, architecture: Architecture) -> DensityODE:
    """What ``config.likelihood`` describes.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    section = config.likelihood
    t_min = _start(architecture.sde, "likelihood", section.t_min)
    if section.nodes:
        try:
            clenshaw_curtis(section.nodes)
        except ValueError as error:
            raise ConfigError(f"config.likelihood.{error}") from error
    return DensityODE(section.divergence.build(), section.integrator.build(), section.nodes, t_min)


def inversion_of(config: Config, architecture: Architecture) -> tuple[Transport, float]:
    """The way between examples and latents, and the time at which examples are placed.

    Raises:
      ConfigError: an impossible value, or a solver that cannot be walked both ways.
    """
    section, sde = config.inversion, architecture.sde
    t_min = _start(sde, "inversion", section.t_min)
    transport = section.transport.build(sde=sde)
    if isinstance(transport, Stepped):
        try:
            transport.plan(sde, t_min, sde.t_max)
        except ValueError as error:
            raise ConfigError(f"config.inversion.transport: {error}") from error
    return transport, t_min


def _start(sde: SDE, section: str, t_min: float | None) -> float:
    if t_min is not None and not 0 < t_min < sde.t_max:
        raise ConfigError(f"config.{section}.t_min = {t_min}: must be in (0, {sde.t_max})")
    return sde.t_min if t_min is None else t_min
