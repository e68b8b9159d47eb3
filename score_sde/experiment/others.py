"""Other runs that take part in the guidance of a model: what of them is needed, and whether they fit."""

from collections.abc import Callable
from typing import NamedTuple

from score_sde.architecture import Architecture
from score_sde.arrays import Parts
from score_sde.conditions import Condition
from score_sde.experiment.schema import Config
from score_sde.guidance import Guide, NoisyClassifier
from score_sde.names import ConfigError
from score_sde.tasks import TASKS
from score_sde.tasks.noisy_classifier import NoisyClassifier as Model

_FIELD = "config.sampling.guidance.workdir"


class Run(NamedTuple):
    """A trained run: its config, its architecture with the process as training has left it, and its parts."""

    config: Config
    architecture: Architecture
    parts: Parts


Open = Callable[[str, int | None], Run]  # (workdir, step); none: the newest checkpoint


def none_open(workdir: str, step: int | None) -> Run:
    """Where no other run can be opened.

    Raises:
      ConfigError: always.
    """
    raise ConfigError(f"{_FIELD} = {workdir!r}: other runs are not opened here")


def guide_for(architecture: Architecture, open_run: Open) -> Callable[[str, int | None], Guide]:
    """``(workdir, step)`` to a weaker model; raises ConfigError for one that does not fit."""

    def open_guide(workdir: str, step: int | None) -> Guide:
        run = _opened(open_run, workdir, step)
        if not _denoises(run.config):
            raise ConfigError(
                f"{_FIELD} = {workdir!r}: is a run of config.task = {run.config.task.name!r}; must be one of "
                "a score model"
            )
        _check_states(workdir, run.architecture, architecture)
        known = dict(architecture.conditions)
        for name, one in run.architecture.conditions:
            _check_condition(workdir, name, one, known.get(name, one))
        return Guide(run.architecture.sde, run.architecture.bind, run.parts)

    return open_guide


def classifier_for(
    architecture: Architecture, open_run: Open
) -> Callable[[str, int | None], NoisyClassifier]:
    """``(workdir, step)`` to a classifier of noisy examples; raises ConfigError for one that does not fit."""

    def open_classifier(workdir: str, step: int | None) -> NoisyClassifier:
        run = _opened(open_run, workdir, step)
        model = classifier_of(run.config, run.architecture)
        if model is None:
            able = " or ".join(name for name, task in TASKS.items() if hasattr(task, "classifier"))
            raise ConfigError(
                f"{_FIELD} = {workdir!r}: is a run of config.task = {run.config.task.name!r}; must be one of "
                f"--mode=train --config.task={able}"
            )
        _check_states(workdir, run.architecture, architecture)
        name, one = model.condition
        _check_condition(workdir, name, one, dict(architecture.conditions).get(name, one))
        return NoisyClassifier(run.architecture.sde, model.log_prob, run.parts, (name, one))

    return open_classifier


def classifier_of(config: Config, architecture: Architecture) -> Model | None:
    """The classifier of noisy examples that the task of a run trains; None, where it trains another thing."""
    make = getattr(config.task.make, "classifier", None)
    return None if make is None else make(architecture, **config.task.options)


def _denoises(config: Config) -> bool:
    return getattr(config.task.make, "denoises", True)


def _opened(open_run: Open, workdir: str, step: int | None) -> Run:
    try:
        return open_run(workdir, step)
    except FileNotFoundError as error:
        raise ConfigError(f"{_FIELD} = {workdir!r}: {error}") from error


def _check_states(workdir: str, other: Architecture, own: Architecture) -> None:
    """Refuse a run whose states are others than those of the model."""
    if other.state_shape != own.state_shape:
        raise ConfigError(
            f"{_FIELD} = {workdir!r}: has states of shape {other.state_shape}; must be {own.state_shape}, as "
            "those of the model"
        )
    if other.codec != own.codec:
        raise ConfigError(f"{_FIELD} = {workdir!r}: has codec {other.codec}; must be {own.codec}")


def _check_condition(workdir: str, name: str, other: Condition, own: Condition) -> None:
    if other != own:
        raise ConfigError(f"{_FIELD} = {workdir!r}: has condition {name} = {other}; must be {own}")
