"""From a config to a model without its parameters: codec, process, network, denoiser."""

from score_sde import nets
from score_sde.architecture import Architecture
from score_sde.codecs import Codec
from score_sde.conditions import Condition, Conditions
from score_sde.data import AUGMENTED, Spec
from score_sde.denoiser import Precondition
from score_sde.experiment.schema import Config
from score_sde.names import ConfigError
from score_sde.sde import SDE


def architecture_of(config: Config, spec: Spec) -> Architecture:
    """The model; every impossible value of its sections is found here, before anything is compiled.

    Args:
      spec: of the data.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    sde = config.sde.build()
    codec = config.codec.build(grey_levels=spec.grey_levels, columns=spec.columns)
    _check_process(config, sde, codec)
    conditions = _conditions(config, spec)
    return Architecture(
        spec=spec,
        codec=codec,
        conditions=conditions,
        sde=sde,
        net=_network(config, conditions, codec.state_shape(spec)),
        precondition=Precondition(config.denoiser.prediction.build(), config.denoiser.time_input.build()),
    )


def _check_process(config: Config, sde: SDE, codec: Codec) -> None:
    if sde.parts() and not codec.has_density:
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r}: integer data have no bounded density; it needs "
            "codec.dequantize = True"
        )
    if config.denoiser.time_input.name in ("index", "reverse_index") and not hasattr(sde, "steps"):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is continuous: denoiser.time_input = 'index' or "
            "'reverse_index' needs 'ddpm' or 'smld'"
        )


def _conditions(config: Config, spec: Spec) -> Conditions:
    """Those of the data that the model takes, in the config's order."""
    known, names = dict(spec.conditions), config.conditions.names
    for name in names:
        if name not in known:
            raise ConfigError(
                f"config.conditions.names = {names}: the data have no condition {name!r}; they have "
                f"{', '.join(known) or 'none'}"
            )
        if not config.model.takes("conditions"):
            raise ConfigError(f"config.model.name = {config.model.name!r}: takes no condition {name!r}")
    return tuple((name, known[name]) for name in names)


def _added_by_task(config: Config, shape: tuple[int, ...]) -> Conditions:
    """What the task gives the network beside the conditions of the data."""
    adds = getattr(config.task.make, "adds", None)
    if adds is None:
        return ()
    if not config.model.takes("conditions"):
        raise ConfigError(
            f"config.task.name = {config.task.name!r}: config.model.name = {config.model.name!r} "
            "takes no conditions, "
            "and the task gives it one"
        )
    return adds(shape)


def _network(config: Config, conditions: Conditions, shape: tuple[int, ...]) -> nets.Net:
    """The network, for the conditions that it gets and the shape of its input."""
    probability = config.data.augment_probability
    if (config.data.random_flip or probability) and len(shape) != 3:
        field = f"augment_probability = {probability}" if probability else "random_flip is on"
        raise ConfigError(f"config.data.{field}, but an example has shape {shape}: only for images")
    if probability and not config.model.takes("conditions"):
        raise ConfigError(
            f"config.data.augment_probability = {probability}: config.model.name = {config.model.name!r} "
            "takes no conditions, and would learn to make augmented images"
        )
    added: tuple[tuple[str, Condition], ...] = AUGMENTED if probability else ()
    added += _added_by_task(config, shape)
    net = nets.Net(config.model.build(conditions=(*conditions, *added)))
    try:
        net.check(shape)
    except ValueError as error:
        raise ConfigError(config.model.placed(str(error))) from error
    return net
