"""Scores of samples against a reference: of a workdir's checkpoints, or of anyone's files."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.evaluate import Metric, Reference, Sampled, Score
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.protocol import Protocol, check_comparable
from score_sde.evaluate.reference import load_reference, save_reference
from score_sde.evaluate.rows import fill
from score_sde.experiment.sections import as_tree
from score_sde.flags import Options
from score_sde.modes.examples import Examples, array_names, open_path
from score_sde.modes.generated import SHOWN, Generator
from score_sde.modes.memory import memorisation
from score_sde.modes.stats import about, channels_of, measure, of_split
from score_sde.modes.tables import Row, write_tables
from score_sde.modes.weights import make_extractor
from score_sde.modes.workdir import from_workdir, is_chief, say
from score_sde.names import ConfigError
from score_sde.train import Checkpoints

def score_files(options: Options) -> int:
    """``--samples=PATH``: examples that anyone has made."""
    extractor, metrics = make_extractor(options), make_metrics(options)
    assert options.samples is not None
    examples = open_path("samples", options.samples, options.config.data, channels_of(options))
    protocol = extractor.protocol(examples.shape, examples.dtype)
    reference, origin = open_reference(options, extractor, protocol)
    parts = map(extractor, examples.batches(options.config.evaluate.batch_size))
    sampled = fill(parts, len(examples), options.workdir / "evaluation")
    row = Row(None, *scores_of(metrics, sampled, reference, extractor.name))
    write_tables(
        options,
        extractor.name,
        [row],
        {"samples": examples.name, "count": len(examples), "reference": origin, **asdict(protocol)},
        examples.read(np.arange(min(len(examples), SHOWN))),
    )
    return 0


def score_checkpoints(options: Options) -> int:
    """``--num_samples=N``: samples of one checkpoint, or with ``--all_checkpoints`` of each."""
    assert options.num_samples is not None
    if options.num_samples < 2:
        raise ConfigError(f"--num_samples={options.num_samples}: a score needs at least 2")
    experiment = from_workdir(options)
    extractor, metrics = make_extractor(options), make_metrics(options)
    generator = Generator(options, experiment, extractor, options.num_samples)
    protocol = generator.protocol()
    steps = _steps(options)
    reference, origin = open_reference(options, extractor, protocol)
    rows, first = [], np.empty(0)
    for step in steps:
        step, weights, sampled, first = generator.features(step)
        rows.append(Row(step, *scores_of(metrics, sampled, reference, extractor.name), weights))
        say(f"checkpoint {step}: {rows[-1].line()}")
    extra = memorisation(options, first)
    what = {
        "samples": f"{options.workdir}, seed {generator.seed}",
        "count": options.num_samples,
        "sampling": as_tree(experiment.config.sampling),
        "reference": origin,
        **asdict(protocol),
        **extra,
    }
    write_tables(options, extractor.name, rows, what, first)
    return 0


def _steps(options: Options) -> Sequence[int | None]:
    if not options.all_checkpoints:
        return [options.step]
    if options.step is not None:
        raise ConfigError(f"--step={options.step}: leave it out with --all_checkpoints")
    directory = options.workdir / "checkpoints"
    if not directory.is_dir():
        raise FileNotFoundError(f"--workdir={options.workdir}: holds no checkpoints yet")
    with Checkpoints(directory) as checkpoints:
        return list(checkpoints.steps)


def make_metrics(options: Options) -> list[Metric]:
    """The metrics of ``config.evaluate.metrics``, each with its options.

    Raises:
      ConfigError: there are none.
    """
    metrics = options.config.evaluate.metrics
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
            scores |= {title(name, features): s for name, s in metric(sampled, reference).items()}
    messages = [str(entry.message) for entry in caught]
    for message in messages:
        say(f"warning: {message}")
    return scores, messages


def open_reference(
    options: Options, extractor: Extractor, protocol: Protocol
) -> tuple[Reference, dict[str, Any]]:
    """What to compare with: ``--reference``, ``config.evaluate.reference``, or a split of the data.

    Statistics of a split are kept in the workdir.

    Raises:
      ValueError: made by another protocol, or unreadable.
    """
    config = options.config.evaluate
    path = options.reference or config.reference
    if path is not None and _is_statistics(Path(path)):
        return load_reference(Path(path).expanduser(), protocol)
    if path is not None:
        examples = open_path("reference", path, options.config.data, channels_of(options))
        return _measured(options, extractor, protocol, examples, "all"), {
            "source": examples.name,
            "split": "all",
            "count": len(examples),
        }
    if options.samples is not None and not options.saved and not options.config_given:
        raise ConfigError("--samples: name what to compare with: --reference=PATH, a --config or a --workdir")
    data = json.dumps(as_tree(options.config.data), sort_keys=True, default=str)
    what = f"{asdict(protocol)} {data} {config.split} {config.keep_features}"
    name = hashlib.sha256(what.encode()).hexdigest()[:16]
    cache = options.workdir / "evaluation" / f"reference-{name}.npz"
    if cache.is_file():
        return load_reference(cache, protocol)
    examples = of_split(options, config.split)
    reference = _measured(options, extractor, protocol, examples, config.split)
    if is_chief():
        save_reference(cache, reference, protocol, about(options, examples))
    return reference, {**about(options, examples), "count": len(examples)}


def _measured(
    options: Options, extractor: Extractor, protocol: Protocol, examples: Examples, split: str
) -> Reference:
    own = extractor.protocol(examples.shape, examples.dtype)
    check_comparable(own, f"the reference {examples.name} ({split})", protocol, "the samples")
    return measure(options, extractor, examples)


def _is_statistics(path: Path) -> bool:
    path = path.expanduser()
    if path.suffix != ".npz" or not path.is_file():
        return False
    return "mu" in array_names(path)
