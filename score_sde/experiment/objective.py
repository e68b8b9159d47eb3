"""From a config to what training minimises, and how."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from score_sde.data import augment, random_flip
from score_sde.denoiser import Cond
from score_sde.experiment.model import Experiment
from score_sde.experiment.schema import Config
from score_sde.losses import DenoisingLoss, Trained, VariationalLoss
from score_sde.names import ConfigError
from score_sde.sde import SDE
from score_sde.train import Objective
from score_sde.train.ema import Decay

_OF_TIME = ("time_999", "index", "reverse_index")  # time inputs that say the time and not the noise level


def objective_of(experiment: Experiment) -> Objective:
    """What a training step minimises.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    loss = loss_of(experiment)

    def prepare(batch: dict[str, Array], key: Array) -> tuple[Array, Cond]:
        return prepared(experiment, batch, key)

    if not experiment.learns:
        return Objective(prepare, experiment.bind, loss)

    def bind(params: Any, cond: Cond) -> Trained:
        return Trained(experiment.bind(experiment.network(params), cond), params["schedule"])

    return Objective(prepare, bind, loss)


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """The optimizer; it may count in images."""
    return config.optimizer.build(batch_size=config.training.batch_size)


def average_of(config: Config) -> Decay:
    """The moving average of the parameters; it may count in images."""
    return config.ema.build(batch_size=config.training.batch_size)


def prepared(experiment: Experiment, batch: dict[str, Array], key: Array) -> tuple[Array, Cond]:
    """A raw training batch as the model sees it, flipped, scaled and augmented; and its conditions."""
    data, conditions = experiment.config.data, experiment.config.conditions
    key_flip, key_noise, key_drop, key_augment = jax.random.split(key, 4)
    raw = random_flip(batch["x"], key_flip) if data.random_flip else batch["x"]
    x0, cond = experiment.scaling.encode(raw, key_noise), {}
    if "label" in conditions.names:
        label = batch["label"]
        if conditions.dropout:
            drop = jax.random.bernoulli(key_drop, conditions.dropout, label.shape)
            label = jnp.where(drop, -1, label)
        cond["label"] = label
    if data.augment_probability:
        x0, cond["augment"] = augment(x0, key_augment, data.augment_probability)
    return x0, cond or None


def loss_of(experiment: Experiment) -> DenoisingLoss | VariationalLoss:
    """The loss: a weighted square error, or the variational bound of a learned process.

    Raises:
      ConfigError: a loss that does not suit the process.
    """
    config, sde = experiment.config, experiment.sde
    section = config.loss
    weight, times = section.weight.build(), section.times.build()
    if section.times.name == "levels" and not hasattr(sde, "steps"):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is continuous: loss.times = 'levels' needs "
            "'ddpm' or 'smld'"
        )
    if section.times.name == "importance":
        _check_finite_ends(config, sde)
    if not experiment.learns:
        return DenoisingLoss(sde, weight, times, section.half_sum)
    if (section.weight.name, section.times.name, section.half_sum) != ("likelihood", "importance", False):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is trained on the variational bound: it needs "
            "loss.weight = 'likelihood', loss.times = 'importance' and loss.half_sum = False"
        )
    time_input, prediction = config.denoiser.time_input.name, config.denoiser.prediction.name
    if time_input in _OF_TIME or prediction == "velocity":
        raise ConfigError(
            f"config.denoiser: time_input = {time_input!r}, prediction = {prediction!r}: a learned process "
            f"needs a time_input other than {', '.join(_OF_TIME)} and a prediction other than 'velocity', "
            "which change with the schedule"
        )
    return VariationalLoss(section.times.options["spread"])


def _check_finite_ends(config: Config, sde: SDE) -> None:
    ends = [float(sde.log_snr(jnp.float32(t))) for t in (sde.t_min, sde.t_max)]
    if not all(math.isfinite(end) for end in ends):
        raise ConfigError(
            f"config.loss.times = 'importance': the log-SNR of sde.name = {config.sde.name!r} is infinite "
            f"at t_min = {sde.t_min} or t_max = {sde.t_max}; move that time"
        )
