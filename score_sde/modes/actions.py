"""What training measures every so many steps: held-out loss by noise level, and a few samples."""

from collections.abc import Callable
from typing import Any

import numpy as np

from score_sde.conditions import Chosen
from score_sde.data import Source
from score_sde.evaluate import level_times, measure_levels
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.kid import squared_mmd_score
from score_sde.experiment.assemble import Experiment, sampler_of
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.modes.examples import Examples
from score_sde.modes.score import title
from score_sde.modes.workdir import First, drawable, is_chief, outside, say
from score_sde.names import ConfigError
from score_sde.sampling.draw import Draw, compile_sample, generate
from score_sde.solvers import Plan
from score_sde.train import Every, TrainState

_LEVELS = 10
_COMPARED = 1000  # training examples that the few samples are compared with


def held_out(experiment: Experiment, source: Source, mesh: Any) -> Every:
    """Loss by noise level on the first held-out examples, of the average and of the parameters themselves."""
    config = experiment.config
    measure = _once(lambda now: measure_levels(now.bind, now.sde, mesh))
    some = First(source, min(len(source), config.training.eval_examples))

    def act(step: int, state: TrainState) -> dict[str, Any]:
        now = experiment.settle(state.ema)
        average, raw = (
            measure(now)(
                experiment.network(params),
                some,
                experiment.codec,
                times=level_times(now.sde, _LEVELS),
                batch_size=config.evaluate.batch_size,
                seed=config.seed,
            )
            for params in (state.ema, state.params)
        )
        say(f"step {step}: held-out loss {average.mean:.4g} (without averaging {raw.mean:.4g})")
        return {
            "held_out_loss": average.mean,
            "held_out_loss_raw": raw.mean,
            "held_out_loss_by_level": average.noise.tolist(),
            "held_out_loss_raw_by_level": raw.noise.tolist(),
            "held_out_log_snr": average.log_snr.tolist(),
        }

    return Every(config.training.eval_every_steps, act, at_end=True, logs="held_out_loss")


def samples(
    experiment: Experiment, options: Options, extractor: Extractor, source: Source, mesh: Any
) -> Every:
    """A grid of samples of the average, always from the same noise, and their distance to the data."""
    config = experiment.config

    def compiled(now: Experiment) -> tuple[Draw, Plan]:
        sampler = sampler_of(now)
        draw = compile_sample(sampler.bind, sampler.process, sampler.solver, mesh, shape=now.spec.shape)
        return draw, sampler.plan

    sampler = _once(compiled)
    count = config.training.sample_count
    labels = np.arange(count) % experiment.spec.num_classes if experiment.labelled else None
    distance = _distance(extractor, source)

    def act(step: int, state: TrainState) -> dict[str, Any]:
        now = experiment.settle(state.ema)
        draw, plan = sampler(now)
        batches = generate(
            draw,
            experiment.network(state.ema),
            plan,
            mesh,
            seed=config.seed,
            num_samples=count,
            batch_size=config.sampling.batch_size,
            labels=labels,
            inputs=now.guidance.inputs(count),
        )
        drawn = outside(experiment, np.concatenate(list(batches)))
        suffix = ".png" if drawable(experiment.spec) else ".npz"
        path = options.workdir / "samples" / f"step_{step:08d}{suffix}"
        if is_chief():
            pictures.write(path, drawn, seed=config.seed)
        measured = distance(drawn) if count > 1 else {}
        said = ", ".join(f"{name} {value:.4g}" for name, value in measured.items() if "error" not in name)
        say(f"step {step}: samples in {path}" + (f"; {said}" if said else ""))
        return measured

    return Every(config.training.sample_every_steps, act, at_end=True, logs=sample_metric(extractor.name))


def _once(compile: Callable[[Experiment], Any]) -> Callable[[Experiment], Any]:
    """``compile`` with its last result kept while the process is the same: always, unless it is learned."""
    last: dict[Any, Any] = {}

    def compiled(now: Experiment) -> Any:
        if now.sde not in last:
            last.clear()
            last[now.sde] = compile(now)
        return last[now.sde]

    return compiled


def sample_metric(features: str) -> str:
    """The name under which the distance of the few samples is logged: "sample_pixels_kid"."""
    return f"sample_{title('kid', features)}"


def check_best_metric(options: Options, features: str) -> str | None:
    """The number that decides which checkpoint is the best; None for none.

    Args:
      features: name of those in which the few samples are compared.

    Raises:
      ConfigError: it is not one of those that training measures.
    """
    name = options.config.training.best_metric
    known = ("held_out_loss", "held_out_loss_raw", sample_metric(features))
    if name and name not in known:
        raise ConfigError(
            f"config.training.best_metric = {name!r}: must be one of {', '.join(known)}, or '' to keep none"
        )
    return name or None


def _distance(extractor: Extractor, source: Source) -> Callable[[np.ndarray], dict[str, float]]:
    """Kernel distance of samples to the first training examples of one shuffled order: unbiased, so that it
    can be read off a hundred samples."""
    name, known = sample_metric(extractor.name), []

    def measure(drawn: np.ndarray) -> dict[str, float]:
        if not known:
            examples = Examples(source, "the training data")
            known.append(extractor(next(examples.shuffled(min(_COMPARED, len(examples))))).features)
        score = squared_mmd_score(extractor(drawn).features, known[0])
        return {name: score.value, f"{name}_error": score.error or 0.0}

    return measure
