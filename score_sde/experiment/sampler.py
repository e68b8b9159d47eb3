"""From a config to how samples are drawn."""

from collections.abc import Callable
from dataclasses import dataclass

from score_sde.data import Scaling
from score_sde.denoiser import Denoise
from score_sde.experiment.model import Experiment
from score_sde.experiment.run_sections import Sampling
from score_sde.guidance.change_process import across
from score_sde.names import ConfigError
from score_sde.sde import SDE
from score_sde.solvers import Plan, Solver


@dataclass(frozen=True)
class Sampler:
    """How samples are drawn of a model.

    Attributes:
      bind: parameters and conditions to what the solver is given: ``wrap`` of the model's guided denoiser.
      wrap: a denoiser of the model's process to one on the path of the samples, under the threshold.
      process: the process whose path samples follow: that of the model, or another.
      solver, plan: the steps on that path.
    """

    bind: Callable[..., Denoise]
    wrap: Callable[[Denoise], Denoise]
    process: SDE
    solver: Solver
    plan: Plan


def sampler_of(experiment: Experiment, sampling: Sampling | None = None) -> Sampler:
    """The sampler that ``config.sampling``, or another such section, describes.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    sampling = experiment.config.sampling if sampling is None else sampling
    sde = experiment.sde
    process = sampling.process.build() or sde
    if sampling.round_to_levels and process is sde:
        raise ConfigError(
            f"config.sampling.round_to_levels = {sampling.round_to_levels}: must be 0 with "
            "sampling.process = 'trained'"
        )
    guide = sampling.guidance.build()
    limit = _threshold(sampling, experiment.scaling)
    guided = guide(experiment.bind)

    def wrap(denoise: Denoise) -> Denoise:
        if process is sde:
            return limit(denoise)
        return limit(across(denoise, sde, process, levels=sampling.round_to_levels))

    solver = sampling.solver.build()
    plan = _plan(sampling, process, solver)
    return Sampler(lambda *given: wrap(guided(*given)), wrap, process, solver, plan)


def _plan(sampling: Sampling, process: SDE, solver: Solver) -> Plan:
    """The solver's plan on the path of the samples."""
    grid = sampling.grid.build(sde=process)
    start, end, steps, last = process.t_max, sampling.t_end, sampling.steps, sampling.stop_after_steps
    if not end < start:
        raise ConfigError(f"config.sampling.t_end = {end}: must be in [0, {start})")
    if sampling.keep_every_steps and not solver.has_steps:
        raise ConfigError(
            f"config.sampling.keep_every_steps = {sampling.keep_every_steps}: must be 0, for "
            f"sampling.solver = {sampling.solver.name!r} chooses its steps on the way"
        )
    try:
        times = grid(start, end, steps)
    except ValueError as error:
        raise ConfigError(sampling.grid.placed(str(error))) from error
    try:
        return solver.plan(process, times[: None if last is None else last + 1])
    except ValueError as error:
        raise ConfigError(sampling.solver.placed(str(error))) from error


def _threshold(sampling: Sampling, scaling: Scaling) -> Callable[[Denoise], Denoise]:
    if sampling.threshold.takes("low") and scaling.levels is None:
        raise ConfigError(
            f"config.sampling.threshold = {sampling.threshold.name!r}: must be 'none', for continuous data "
            "have no range"
        )
    return sampling.threshold.build(low=scaling.low, high=scaling.high)
