"""``--mode=search``."""

from pathlib import Path
from typing import Any

import numpy as np

from score_sde.evaluate.index import Index, leave_one_out
from score_sde.evaluate.neighbours import Neighbours
from score_sde.evaluate.scores import Score
from score_sde.experiment.fields import member
from score_sde.experiment.measure_sections import Search
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.modes.run import model_of, output_of, seed_of
from score_sde.names import ConfigError
from score_sde.runs.inputs import Inputs, Picked, classes_of, drawable, open_inputs, to_user
from score_sde.runs.model import Model
from score_sde.runs.vectors import VECTORS, Vectors
from score_sde.runtime.files import write_json
from score_sde.runtime.processes import is_chief, say

_ROWS = 8


def search(options: Options) -> int:
    """The nearest examples of each of ``--images``, and how often neighbours share a class."""
    config = options.config.search
    names, output = _names(options), _output(options)
    model, seed = model_of(options), seed_of(options)
    spec = model.architecture.spec
    inputs = open_inputs(model.workdir, options.samples, config.split, config.num_examples)
    if not config.nearest < len(inputs):
        raise ConfigError(
            f"config.search.nearest = {config.nearest}: must be below {len(inputs)}, the number of examples"
        )
    words = ",".join(str(i) for i in range(min(_ROWS, len(inputs))))
    picked = Picked(words if options.images is None else options.images, inputs, options.config.data)
    if "file" in names and np.any(picked.numbers < 0):
        raise ConfigError("config.search.features = 'file': --images can only name numbers of examples")
    levels = list(config.log_snr)
    makers = {name: VECTORS[name](model, seed, levels[0]) for name in names}
    report: dict[str, Any] = {"step": model.step, "source": inputs.name, "examples": len(inputs)}
    report |= {field: getattr(config, field) for field in ("metric", "layer", "cells", "draws")}
    if "network" in names:
        level, tried = _choose(model, seed, levels) if len(levels) > 1 else (levels[0], {})
        makers["network"] = VECTORS["network"](model, seed, level)
        report |= {"log_snr": level, "log_snr_tried": tried}

    classes = classes_of(inputs)
    vectors = {name: make(inputs) for name, make in makers.items()}
    if len(np.unique(classes[classes >= 0])) > 1:
        ks = tuple(sorted({1, config.nearest}))
        scores = {name: leave_one_out(v, classes, ks, config.metric) for name, v in vectors.items()}
        report["precision"] = {name: _as_json(score) for name, score in scores.items()}
        _say_table(scores, len(inputs))
    first = names[0]
    found = _look_up(makers[first], vectors[first], picked, config)
    report |= {"features": first, "queries": _results(picked, inputs, classes, found)}
    for query in report["queries"]:
        best = ", ".join(f"{n['name']} ({n['distance']:.3g})" for n in query["nearest"])
        say(f"{query['query']}: {best}")
    if is_chief():
        write_json(output.with_suffix(".json"), report)
        if drawable(spec):
            _draw(picked, inputs, found).save(output)
    details = output.with_suffix(".json")
    say(f"searched {len(inputs)} examples of {inputs.name} by {first}; details in {details}")
    return 0


def _names(options: Options) -> tuple[str, ...]:
    names = options.config.search.features
    if not names:
        raise ConfigError(f"config.search.features = (): name one or more of {', '.join(VECTORS)}")
    for name in names:
        member(VECTORS, name, "search.features")
    if not options.config.search.log_snr:
        raise ConfigError("config.search.log_snr = (): name one noise level, or several to choose from")
    return names


def _output(options: Options) -> Path:
    path = output_of(
        options, "search.png", "the result of a search is a .png, with a .json beside it", ".png"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _choose(model: Model, seed: int, levels: list[float]) -> tuple[float, dict[str, Any]]:
    """The noise level of the highest retrieval accuracy on the training split, by class."""
    config = model.config.search
    data = open_inputs(model.workdir, None, "train", None)
    classes = classes_of(data)
    if len(np.unique(classes[classes >= 0])) < 2:
        raise ConfigError(
            f"config.search.log_snr = {tuple(levels)}: noise levels are compared by class, and the training "
            "data have none; name one level"
        )
    k = min(config.nearest, len(data) - 1)
    tried = {
        level: leave_one_out(VECTORS["network"](model, seed, level)(data), classes, (k,), config.metric)[k]
        for level in levels
    }
    for level, score in tried.items():
        say(f"log-SNR {level:6g}: precision at {k} {score.value:.4f} on the training split")
    best = max(tried, key=lambda level: tried[level].value)
    return best, {f"{level:g}": _as_json({k: score}) for level, score in tried.items()}


def _look_up(make: Vectors, vectors: np.ndarray, picked: Picked, config: Search) -> Neighbours:
    """Neighbours of the queries: numbered ones have a vector, files get one."""
    known = picked.numbers >= 0
    queries = vectors[picked.numbers]
    if not known.all():
        queries = np.where(known[:, None], queries, make(picked))
    return Index(vectors, config.metric).search(queries, config.nearest)


def _as_json(scores: dict[int, Score]) -> dict[str, Any]:
    return {str(k): {"value": score.value, "standard_error": score.error} for k, score in scores.items()}


def _say_table(scores: dict[str, dict[int, Score]], count: int) -> None:
    ks = list(next(iter(scores.values())))
    say(f"share of the nearest of the same class, each of {count} examples searching the others")
    say(f"{'features':>12} " + " ".join(f"{f'at {k}':>17}" for k in ks))
    for name, by_k in scores.items():
        cells = [f"{score.value:9.4f} +-{score.error:6.4f}" for score in by_k.values()]
        say(f"{name:>12} " + " ".join(cells))


def _results(picked: Picked, inputs: Inputs, classes: np.ndarray, found: Neighbours) -> list[dict[str, Any]]:
    return [
        {
            "query": title,
            "nearest": [
                {
                    "number": int(number),
                    "name": inputs.title(int(number)),
                    "distance": float(distance),
                    "class": int(classes[number]),
                }
                for number, distance in zip(numbers, distances, strict=True)
            ],
        }
        for title, numbers, distances in zip(picked.titles, found.number, found.distance, strict=True)
    ]


def _draw(picked: Picked, inputs: Inputs, found: Neighbours) -> Any:
    """A row for each query: itself, a gap, and its nearest, nearest first."""
    x = picked.read(np.arange(len(picked)))["x"]
    near = inputs.read(found.number.reshape(-1))["x"].reshape(*found.number.shape, *x.shape[1:])
    gap = np.zeros_like(x)[:, None]
    rows = np.concatenate([x[:, None], gap, near], axis=1)
    return pictures.grid(to_user(rows.reshape(-1, *x.shape[1:]), inputs.spec), columns=rows.shape[1])
