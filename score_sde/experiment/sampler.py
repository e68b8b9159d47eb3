"""From a config to how samples are drawn."""

from collections.abc import Callable

from score_sde.architecture import Architecture
from score_sde.conditions import Cond, against, null_of
from score_sde.experiment.others import Open, classifier_for, guide_for, none_open
from score_sde.experiment.run_sections import Sampling
from score_sde.experiment.schema import Config
from score_sde.guidance import UNCHANGED, ChangeProcess, Guidance, compose
from score_sde.names import ConfigError
from score_sde.sampling.sampler import Sampler
from score_sde.sde import SDE
from score_sde.solvers import Plan, Solver


def sampler_of(
    config: Config,
    architecture: Architecture,
    sampling: Sampling | None = None,
    *,
    open_run: Open = none_open,
    guided: Guidance = UNCHANGED,
    steps: Callable[[Solver], Solver] = lambda solver: solver,
) -> Sampler:
    """The sampler that ``config.sampling``, or another such section, describes.

    Args:
      open_run: opens the runs that a guidance names.
      guided: further guidance, on the process of the model, after that of the config.
      steps: what is made of the solver of the config.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    sampling = config.sampling if sampling is None else sampling
    process = sampling.process.build() or architecture.sde
    guidance = _guidance(sampling, architecture, process, open_run, guided)
    solver = sampling.solver.build()
    try:
        solver = steps(solver)
    except ValueError as error:
        raise ConfigError(sampling.solver.placed(str(error))) from error
    return Sampler(
        bind=guidance(architecture.bind),
        guidance=guidance,
        process=process,
        solver=solver,
        plan=_plan(sampling, process, solver),
        shape=architecture.state_shape,
        conditions=tuple({**dict(guidance.conditions), **dict(architecture.conditions)}.items()),
    )


def _guidance(
    sampling: Sampling, architecture: Architecture, process: SDE, open_run: Open, guided: Guidance
) -> Guidance:
    """From the model to what the solver sees: guidance, then the other process, and then the threshold."""
    guidance, sde, levels = sampling.guidance, architecture.sde, sampling.round_to_levels
    if guidance.takes("null") and not architecture.conditions:
        raise ConfigError(
            f"config.sampling.guidance.name = {guidance.name!r}: needs conditions.names, and a model trained "
            "with conditions.dropout"
        )
    if levels and process is sde:
        raise ConfigError(
            f"config.sampling.round_to_levels = {levels}: must be 0 with sampling.process = 'trained'"
        )

    def null(cond: Cond, negative: tuple[str, ...]) -> Cond:
        return {**null_of(architecture.conditions, cond), **against(architecture.conditions, negative, cond)}

    own = guidance.build(
        null=null,
        sde=sde,
        open_guide=guide_for(architecture, open_run),
        open_classifier=classifier_for(architecture, open_run),
    )
    parts: list[Guidance] = [own, guided]
    if process is not sde:
        parts.append(ChangeProcess(trained=sde, sampled=process, levels=levels))
    return compose(*parts, _threshold(sampling, architecture, process))


def _threshold(sampling: Sampling, architecture: Architecture, process: SDE) -> Guidance:
    range = architecture.codec.range
    if not sampling.threshold.takes("low"):
        return sampling.threshold.build()
    if range is None:
        raise ConfigError(
            f"config.sampling.threshold = {sampling.threshold.name!r}: must be 'none', for continuous data "
            "have no range"
        )
    return sampling.threshold.build(sde=process, low=range[0], high=range[1])


def _plan(sampling: Sampling, process: SDE, solver: Solver) -> Plan:
    """The solver's plan along the process of the samples."""
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
