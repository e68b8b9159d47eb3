"""What is measured while a denoiser is trained: held-out loss by noise level, and a few samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from score_sde.architecture import Architecture
from score_sde.arrays import Parts
from score_sde.conditions import Chosen
from score_sde.evaluate import level_times, measure_levels
from score_sde.evaluate.examples import Examples, First
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.kid import squared_mmd_score
from score_sde.evaluate.scores import title
from score_sde.images import pictures
from score_sde.runtime.processes import is_chief, say
from score_sde.sampling.draw import generate
from score_sde.sampling.sampler import Sampler
from score_sde.tasks.base import Averaged, Measure, Note, Setting, Value

T = TypeVar("T")
_LEVELS = 10
_COMPARED = 1000  # training examples that the few samples are compared with


def sample_metric(features: str) -> str:
    """The name under which the distance of the few samples is logged: "sample_pixels_kid"."""
    return f"sample_{title('kid', features)}"


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """How often, and how much, is measured.

    Attributes:
      eval_every_steps: held-out loss at multiples of this, and at the end; 0: never.
      eval_examples: held-out examples of that loss.
      eval_batch_size: examples computed together.
      sample_every_steps: samples at multiples of this, and at the end; 0: never.
      sample_count: how many.
      sample_batch_size: samples computed together.
      sampler: how they are drawn, of an architecture whose process is given.
      extractor: features in which they are compared with training examples.
    """

    eval_every_steps: int
    eval_examples: int
    eval_batch_size: int
    sample_every_steps: int
    sample_count: int
    sample_batch_size: int
    sampler: Callable[[Architecture], Sampler]
    extractor: Extractor

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the logged numbers by which checkpoints can be compared, where they are measured."""
        return "held_out_loss", "held_out_loss_raw", sample_metric(self.extractor.name)

    def measures(self, architecture: Architecture, setting: Setting) -> tuple[Measure, ...]:
        """The held-out loss, and samples."""
        made = ((self.eval_every_steps, _held_out_loss), (self.sample_every_steps, _samples))
        return tuple(make(self, architecture, setting) for every_steps, make in made if every_steps)


def _held_out_loss(monitor: Monitor, architecture: Architecture, setting: Setting) -> Measure:
    """Loss by noise level on the first held-out examples, of the average and of the parameters themselves."""
    compiled = _once(lambda now: measure_levels(now.bind, now.sde, setting.mesh))
    some = First(setting.held_out, monitor.eval_examples)

    def act(step: int, state: Averaged, frozen: Parts, note: Note) -> dict[str, Value]:
        now = architecture.freeze(state.ema)
        results = []
        for i, params in enumerate((state.ema, state.params)):

            def shown(done: int, text: str, i: int = i) -> None:
                note(i * len(some) + done, 2 * len(some), text)

            levels = compiled(now)(
                {**frozen, **params},
                some,
                now.codec,
                times=level_times(now.sde, _LEVELS),
                batch_size=monitor.eval_batch_size,
                seed=setting.seed,
                note=shown,
            )
            results.append(levels)
        average, raw = results
        say(f"step {step}: held-out loss {average.mean:.4g} (without averaging {raw.mean:.4g})")
        return {
            "held_out_loss": average.mean,
            "held_out_loss_raw": raw.mean,
            "held_out_loss_by_level": average.noise.tolist(),
            "held_out_loss_raw_by_level": raw.noise.tolist(),
            "held_out_log_snr": average.log_snr.tolist(),
        }

    return Measure(monitor.eval_every_steps, act, at_end=True, logs="held_out_loss")


def _samples(monitor: Monitor, architecture: Architecture, setting: Setting) -> Measure:
    """A grid of samples of the average, always from the same noise, and their distance to the data."""
    count, name = monitor.sample_count, sample_metric(monitor.extractor.name)
    distance = _distance(monitor.extractor, setting)

    def prepare(now: Architecture) -> tuple[Sampler, Callable]:
        sampler = monitor.sampler(now)
        return sampler, sampler.compile(setting.mesh)

    prepared = _once(prepare)

    def act(step: int, state: Averaged, frozen: Parts, note: Note) -> dict[str, Value]:
        parts = {**frozen, **state.ema}
        sampler, draw = prepared(architecture.freeze(state.ema))
        drawn: list[np.ndarray] = []
        for batch in generate(
            draw,
            parts,
            sampler.plan,
            setting.mesh,
            seed=setting.seed,
            num_samples=count,
            batch_size=monitor.sample_batch_size,
            chosen=Chosen.every_class(sampler.conditions),
            inputs=sampler.guidance.inputs(count),
        ):
            drawn.append(architecture.decode(parts, batch))
            note(sum(map(len, drawn)), count, "samples")
        samples = np.concatenate(drawn)
        suffix = ".png" if architecture.is_picture else ".npz"
        path = setting.workdir / "samples" / f"step_{step:08d}{suffix}"
        if is_chief():
            pictures.write(path, samples, seed=setting.seed)
        measured = distance(samples) if count > 1 else {}
        shown = ", ".join(f"{key} {value:.4g}" for key, value in measured.items() if "error" not in key)
        say(f"step {step}: samples in {path}" + (f"; {shown}" if shown else ""))
        return {**measured, "sample_count": float(count)}

    return Measure(monitor.sample_every_steps, act, at_end=True, logs=name if count > 1 else "sample_count")


def _once(make: Callable[[Architecture], T]) -> Callable[[Architecture], T]:
    """``make`` with its last result kept while the process is the same: always, unless it is learned."""
    last: list[tuple[Architecture, T]] = []

    def made(now: Architecture) -> T:
        if not last or last[0][0].sde != now.sde:
            last[:] = [(now, make(now))]
        return last[0][1]

    return made


def _distance(extractor: Extractor, setting: Setting) -> Callable[[np.ndarray], dict[str, float]]:
    """Kernel distance of samples to the first training examples of one shuffled order: unbiased, so that it
    can be read off a hundred samples."""
    name, known = sample_metric(extractor.name), []

    def measure(drawn: np.ndarray) -> dict[str, float]:
        if not known:
            examples = Examples(setting.source, "the training data")
            known.append(extractor(next(examples.shuffled(min(_COMPARED, len(examples))))).features)
        score = squared_mmd_score(extractor(drawn).features, known[0])
        return {name: score.value, f"{name}_error": score.error or 0.0}

    return measure
