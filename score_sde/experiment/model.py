"""From a config to the model: process, network, denoiser, codec."""

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax import Array

from score_sde import nets
from score_sde.data import AUGMENT_DIM, Scaling, Spec
from score_sde.denoiser import Cond, Denoiser, Precondition
from score_sde.experiment.schema import Config
from score_sde.names import ConfigError
from score_sde.sde import SDE


@dataclass(frozen=True)
class Experiment:
    """A model, and the config that made it and says what becomes of it.

    Attributes:
      spec: what one example of the data is.
      scaling: raw data to the model's range and back.
      learns: whether the process is learned; its schedule is then among the parameters, and everything but
        training sees what ``settle`` gives.
    """

    config: Config
    spec: Spec
    sde: SDE
    net: nets.Net
    precondition: Precondition
    scaling: Scaling
    learns: bool = False

    def init(self, key: Array) -> Any:
        """Fresh parameters: the network's, or ``{"network", "schedule"}`` where the process is learned."""
        network = self.net.init(key, self.spec.shape)
        return {"network": network, "schedule": self.sde.learnt()} if self.learns else network

    def network(self, params: Any) -> Any:
        """The network's part of the parameters, for ``bind``."""
        return params["network"] if self.learns else params

    def settle(self, params: Any) -> "Experiment":
        """The experiment with the process that training has come to, given from now on, also in the config.

        Itself, where the process is given anyway.
        """
        if not self.learns:
            return self
        learned = asdict(self.sde.settled(jax.device_get(params["schedule"])))
        return assemble(dataclasses.replace(self.config, sde=self.config.sde.but(**learned)), self.spec)

    def bind(self, params: Any, cond: Cond = None) -> Denoiser:
        """The denoiser of the network's parameters under some conditions; one without labels ignores them."""
        if cond is not None:
            names = (*self.config.conditions.names, "augment")
            cond = {name: value for name, value in cond.items() if name in names} or None
        return Denoiser(params, self.sde, self.net, self.precondition, cond)

    @property
    def labelled(self) -> bool:
        """Whether the model takes labels."""
        return "label" in self.config.conditions.names

    @property
    def extra(self) -> dict[str, Any]:
        """What a workdir must remember beside the config."""
        return {"spec": asdict(self.spec)}


def assemble(config: Config, spec: Spec) -> Experiment:
    """Build the model; every impossible value of its sections is found here, before anything is compiled.

    Args:
      spec: of the data.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    sde = config.sde.build()
    scaling = config.codec.build(levels=spec.levels)
    if sde.learnt() is not None and scaling.levels is not None and not scaling.dequantize:
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r}: integer data have no bounded density; it needs "
            "codec.dequantize = True"
        )
    if config.denoiser.time_input.name in ("index", "reverse_index") and not hasattr(sde, "steps"):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is continuous: denoiser.time_input = 'index' or "
            "'reverse_index' needs 'ddpm' or 'smld'"
        )
    return Experiment(
        config=config,
        spec=spec,
        sde=sde,
        net=_network(config, spec),
        precondition=Precondition(config.denoiser.prediction.build(), config.denoiser.time_input.build()),
        scaling=scaling,
        learns=sde.learnt() is not None,
    )


def _network(config: Config, spec: Spec) -> nets.Net:
    """The network, for the conditions that it gets and the shape of the data."""
    _check_conditions(config, spec)
    module = config.model.build(
        num_classes=spec.num_classes if "label" in config.conditions.names else 0,
        augment_dim=AUGMENT_DIM if config.data.augment_probability else 0,
    )
    net = nets.Net(module)
    try:
        net.shapes(spec.shape)
    except ValueError as error:
        raise ConfigError(config.model.placed(str(error))) from error
    return net


def _check_conditions(config: Config, spec: Spec) -> None:
    known = ("label",) if spec.num_classes else ()
    for name in config.conditions.names:
        if name not in known:
            raise ConfigError(
                f"config.conditions.names = {config.conditions.names}: the data have no condition {name!r}; "
                f"they have {', '.join(known) or 'none'}"
            )
        if not config.model.takes("num_classes"):
            raise ConfigError(f"config.model.name = {config.model.name!r}: takes no condition {name!r}")
    probability = config.data.augment_probability
    if (config.data.random_flip or probability) and len(spec.shape) != 3:
        field = f"augment_probability = {probability}" if probability else "random_flip is on"
        raise ConfigError(f"config.data.{field}, but an example has shape {spec.shape}: only for images")
    if probability and not config.model.takes("augment_dim"):
        raise ConfigError(
            f"config.data.augment_probability = {probability}: config.model.name = {config.model.name!r} "
            "cannot be told how an image was augmented, and would learn to make such images"
        )
