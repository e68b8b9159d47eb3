"""From a config to what is trained, and how."""

import math

import jax.numpy as jnp
import optax

from score_sde.architecture import Architecture
from score_sde.evaluate.extractors import Extractor
from score_sde.experiment.others import Open, none_open
from score_sde.experiment.sampler import sampler_of
from score_sde.experiment.schema import Config
from score_sde.losses import DenoisingLoss, VariationalLoss
from score_sde.names import ConfigError
from score_sde.sde import SDE
from score_sde.tasks.base import Task
from score_sde.tasks.measures import Monitor
from score_sde.tasks.preparation import Preparation
from score_sde.train.ema import Decay

_OF_TIME = ("time_999", "index", "reverse_index")  # time inputs that say the time and not the noise level


def task_of(
    config: Config, architecture: Architecture, extractor: Extractor, open_run: Open = none_open
) -> Task:
    """The task that ``config.task`` names; it gets what its constructor asks for of the following.

    Args:
      extractor: features in which samples are compared with data.
      open_run: opens the runs that the guidance of samples names.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    task = config.task
    given: dict[str, object] = {"architecture": architecture}
    if task.takes("preparation"):
        given["preparation"] = preparation_of(config, architecture)
    if task.takes("objective"):
        given["objective"] = loss_of(config, architecture)
    if task.takes("monitor"):
        given["monitor"] = monitor_of(config, architecture, extractor, open_run)
    return task.build(**given)


def preparation_of(config: Config, architecture: Architecture) -> Preparation:
    """What happens to a batch before the loss."""
    data = config.data
    return Preparation(architecture, config.conditions.dropout, data.random_flip, data.augment_probability)


def monitor_of(
    config: Config, architecture: Architecture, extractor: Extractor, open_run: Open = none_open
) -> Monitor:
    """What is measured during training.

    Raises:
      ConfigError: sampling that is impossible, or a ``training.best_metric`` that training does not know.
    """
    training = config.training
    sampler_of(
        config, architecture, open_run=open_run
    )  # what is wrong with it is said now, not after the last step
    monitor = Monitor(
        eval_every_steps=training.eval_every_steps,
        eval_examples=training.held_out_examples,
        eval_batch_size=min(config.evaluate.batch_size, training.batch_size),
        sample_every_steps=training.sample_every_steps,
        sample_count=training.sample_count,
        sample_batch_size=config.sampling.batch_size,
        sampler=lambda frozen: sampler_of(config, frozen, open_run=open_run),
        extractor=extractor,
    )
    name = training.best_metric
    if name and name not in monitor.metrics:
        known = ", ".join(monitor.metrics)
        raise ConfigError(
            f"config.training.best_metric = {name!r}: must be one of {known}, or '' to keep none"
        )
    return monitor


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """The optimizer; it may count in images."""
    return config.optimizer.build(batch_size=config.training.batch_size)


def average_of(config: Config) -> Decay:
    """The moving average of the parameters; it may count in images."""
    return config.ema.build(batch_size=config.training.batch_size)


def loss_of(config: Config, architecture: Architecture) -> DenoisingLoss | VariationalLoss:
    """The loss: a weighted square error, or the variational bound of a learned process.

    Raises:
      ConfigError: a loss that does not suit the process.
    """
    section, sde = config.loss, architecture.sde
    weight, times = section.weight.build(), section.times.build()
    if section.times.name == "levels" and not hasattr(sde, "steps"):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is continuous: loss.times = 'levels' needs "
            "'ddpm' or 'smld'"
        )
    if section.times.name == "importance":
        _check_finite_ends(config, sde)
    if not sde.parts():
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
