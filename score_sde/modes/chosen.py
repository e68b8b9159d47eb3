"""The conditions that ``--condition`` names."""

import numpy as np

from score_sde.conditions import Chosen
from score_sde.experiment.assemble import Experiment
from score_sde.flags import Options
from score_sde.names import ConfigError


def fixed_conditions(options: Options, experiment: Experiment) -> dict[str, np.ndarray]:
    """Values by name that the command line gives: ``NAME=VALUE``, or ``VALUE`` for the first class.

    Raises:
      ConfigError: the model takes no such condition, or it cannot have the value.
    """
    known, values = dict(experiment.conditions), {}
    for word in options.condition:
        name, equals, text = word.partition("=")
        if not known:
            raise ConfigError(f"--condition={word}: the model was trained without conditions")
        if not equals:
            name, text = next(iter(known)), word
        if name not in known:
            raise ConfigError(f"--condition={word}: the model knows {', '.join(known)}")
        try:
            values[name] = known[name].parse(name, text)
        except ValueError as error:
            raise ConfigError(f"--condition: {error}") from error
    return values


def chosen_conditions(options: Options, experiment: Experiment) -> Chosen:
    """The conditions of samples: those of the command line, and every class in turn where it has none."""
    return Chosen.fixed(experiment.conditions, fixed_conditions(options, experiment))
