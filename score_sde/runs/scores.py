"""Scores of samples against a reference: of a run's checkpoints, or of anyone's files."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from score_sde.conditions import Json
from score_sde.evaluate import Metric, Reference, Sampled, Score
from score_sde.evaluate.rows import fill
from score_sde.evaluate.scores import shown, title
from score_sde.experiment.measure_sections import Evaluate
from score_sde.experiment.sections import as_tree
from score_sde.names import ConfigError
from score_sde.runs.extractors import make_extractor
from score_sde.runs.generated import SHOWN, features_of, protocol_of
from score_sde.runs.memorisation import memorisation
from score_sde.runs.model import Model
from score_sde.runs.references import of_path, open_reference
from score_sde.runs.workdir import Workdir
from score_sde.runtime.processes import say


@dataclass(frozen=True)
class Row:
    """Scores of one set of samples.

    Attributes:
      step: of the checkpoint; None for samples from files.
      warnings: what the metrics said.
      parameters: SHA-256 of the checkpoint's averaged parameters, or "".
    """

    step: int | None
    scores: dict[str, Score]
    warnings: list[str]
    parameters: str = ""

    def line(self) -> str:
        """The scores in one line."""
        return ", ".join(f"{name} {shown(score)}" for name, score in self.scores.items())


@dataclass(frozen=True)
class Scored:
    """Scores of one or more sets of samples, and how they were made.

    Attributes:
      features: name of those in which samples are compared.
      first: the first few samples, as users have them.
    """

    features: str
    rows: list[Row]
    about: dict[str, Json]
    first: np.ndarray


def score_files(workdir: Workdir, samples: str, reference: str | None) -> Scored:
    """Scores of a folder or an array file that anyone has made."""
    config = workdir.config
    extractor, metrics = make_extractor(config, workdir.path), make_metrics(config.evaluate)
    examples = of_path(workdir, "samples", samples)
    check_count(metrics, len(examples), f"--samples={samples}")
    protocol = extractor.protocol(examples.shape, examples.dtype)
    known, origin = open_reference(workdir, reference, extractor, protocol)
    if known.features is not None:
        check_count(metrics, len(known.features), "the reference")
    parts = map(extractor, examples.batches(config.evaluate.batch_size))
    sampled = fill(parts, len(examples), workdir.path / "results")
    row = Row(None, *scores_of(metrics, sampled, known, extractor.name))
    about = {"samples": examples.name, "count": len(examples), "reference": origin, **asdict(protocol)}
    return Scored(extractor.name, [row], about, examples.read(np.arange(min(len(examples), SHOWN))))


def score_checkpoints(
    model: Model, steps: Sequence[int], count: int, seed: int, reference: str | None
) -> Scored:
    """Scores of generated samples, checkpoint by checkpoint.

    Args:
      steps: of the checkpoints.
      count: samples of each.
    """
    config, workdir = model.config, model.workdir
    extractor, metrics = make_extractor(config, workdir.path), make_metrics(config.evaluate)
    check_count(metrics, count, f"--num_samples={count}")
    protocol = protocol_of(model, extractor)
    known, origin = open_reference(workdir, reference, extractor, protocol)
    if known.features is not None:
        check_count(metrics, len(known.features), "the reference")
    rows, first = [], np.empty(0)
    for step in steps:
        now = model if step == model.step else model.at(step)
        generated = features_of(now, extractor, count, seed)
        first = generated.first
        rows.append(Row(step, *scores_of(metrics, generated.sampled, known, extractor.name), now.digest))
        say(f"checkpoint {step}: {rows[-1].line()}")
    about = {
        "samples": f"{workdir.path}, seed {seed}",
        "count": count,
        "sampling": as_tree(config.sampling),
        "reference": origin,
        **asdict(protocol),
        **memorisation(workdir, first),
    }
    return Scored(extractor.name, rows, about, first)


def make_metrics(section: Evaluate) -> list[Metric]:
    """The metrics of ``config.evaluate.metrics``, each with its options.

    Raises:
      ConfigError: there are none.
    """
    metrics = section.metrics
    if not metrics.names:
        raise ConfigError(f"config.evaluate.metrics is empty; there are: {', '.join(metrics.every)}")
    return [metric.build() for metric in metrics.chosen]


def scores_of(
    metrics: Sequence[Metric], sampled: Sampled, reference: Reference, features: str
) -> tuple[dict[str, Score], list[str]]:
    """All scores by reported name, and what the metrics warned of."""
    scores: dict[str, Score] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for metric in metrics:
            if too_few := _too_few(metric, len(sampled.features), reference):
                warnings.warn(too_few, stacklevel=1)
                continue
            scores |= {title(name, features): s for name, s in metric(sampled, reference).items()}
    messages = [str(entry.message) for entry in caught]
    for message in messages:
        say(f"warning: {message}")
    return scores, messages


def _too_few(metric: Metric, count: int, reference: Reference) -> str:
    """Why a metric is left out; empty, if it is not."""
    there = [count, *([] if reference.features is None else [len(reference.features)])]
    if min(there) >= metric.least:
        return ""
    return (
        f"{type(metric).__name__} is left out: it needs sets of {metric.least} examples, one has {min(there)}"
    )


def check_count(metrics: Sequence[Metric], count: int, what: str) -> None:
    """Refuse a number of examples that no metric can work with, before anything is computed.

    Raises:
      ConfigError: says how many are needed.
    """
    least = min(metric.least for metric in metrics)
    if count < least:
        raise ConfigError(f"{what}: {count} examples, and config.evaluate.metrics need at least {least}")
