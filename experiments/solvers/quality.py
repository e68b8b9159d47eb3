"""How near the samples of a solver come to the data, as a distribution, against its network evaluations.

Every solver starts at the same noise, so that the difference of two distances has a smaller error bar than
either: both are taken again of the same resampled numbers of samples.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.evaluate.examples import Examples
from score_sde.evaluate.extractors import ClassifierFeatures
from score_sde.evaluate.fid import frechet_distance, weighted
from score_sde.evaluate.moments import Gaussian
from score_sde.evaluate.named_extractors import load_classifier, pixels
from score_sde.evaluate.scores import bootstrap
from score_sde.images.charts import Chart, Line
from score_sde.names import options
from score_sde.runs.model import Model
from score_sde.sampling.draw import sample, sample_keys
from score_sde.solvers import GRIDS, SOLVERS

BUDGETS = (5, 10, 20)
LONG = (*BUDGETS, 50)  # of DDIM; the others have converged at 20
BATCH = 512
ROUNDS = 100  # resamplings

SOLVERS_USED = {
    "ddim": SOLVERS["ddim"](),
    "dpmpp_2m": SOLVERS["dpmpp_2m"](),
    "unipc": SOLVERS["unipc"](),
    "unipc_3": SOLVERS["unipc"](order=3),
}
SHOWN = ("ddim, uniform", "dpmpp_2m, log_snr", "unipc, log_snr")  # in the picture
OLD = "ddim, uniform"  # whose 50 evaluations are compared with 10 of the others

Features = Callable[[np.ndarray], np.ndarray]  # examples (N, *D), pictures as uint8 0 .. 255, to (N, d)


class Draws:
    """Samples of one model, all from the same noise, kept on disk: a second run goes on where one ended."""

    def __init__(self, model: Model, count: int, t_end: float, folder: Path):
        self._model, self._count = model, count
        self._t_end, self._folder = t_end, folder
        folder.mkdir(parents=True, exist_ok=True)
        architecture, program = model.architecture, SOLVERS["ddim"]().program
        sde, shape = architecture.sde, architecture.state_shape

        @jax.jit
        def run(parts: Any, plan: Any, keys: Any) -> Any:
            return sample(keys, architecture.bind(parts, {}), sde, program, plan, shape=shape)

        self._run = run

    def of(self, name: str, budget: int) -> np.ndarray:
        """Of ``"solver, grid"`` with so many evaluations, the last one Tweedie's."""
        key, grid = name.split(", ")
        architecture, parameters, make = self._model.architecture, self._model.parts, GRIDS[grid]
        sde = architecture.sde
        times = make(**({"sde": sde} if "sde" in options(make) else {}))(sde.t_max, self._t_end, budget - 1)
        plan, parts = SOLVERS_USED[key].plan(sde, times), []
        for first in range(0, self._count, BATCH):
            path = self._folder / f"{key}_{grid}_{budget}_{first}.npy"
            if not path.is_file():
                keys = sample_keys(0, first + jnp.arange(BATCH))
                np.save(path, architecture.decode(parameters, self._run(parameters, plan, keys)))
            parts.append(np.load(path))
        return np.concatenate(parts)[: self._count]


def features_of(classifier: Path | None) -> Features:
    """Pixels in [0, 1], or the last hidden layer of a classifier of ``--mode=classifier``."""
    extractor = pixels() if classifier is None else ClassifierFeatures(*load_classifier(classifier))
    return lambda x: np.asarray(extractor(x).features)


def training_data(model: Model) -> np.ndarray:
    """All of it."""
    examples = Examples(model.workdir.source("train"), "training")
    return examples.read(np.arange(len(examples)))


def difference(one: np.ndarray, other: np.ndarray, reference: Gaussian) -> tuple[float, float]:
    """Frechet distance of features ``one`` less that of ``other``, of the same noise, and its error bar."""

    def less(weights: np.ndarray) -> float:
        a, b = (frechet_distance(reference, weighted(x, weights)) for x in (one, other))
        return a - b

    error = bootstrap(less, len(one), ROUNDS, 0)
    assert error is not None
    return less(np.ones(len(one))), error


def distance(x: np.ndarray, reference: Gaussian) -> tuple[float, float]:
    """Frechet distance of features ``(N, d)``, and its error bar."""

    def statistic(weights: np.ndarray) -> float:
        return frechet_distance(reference, weighted(x, weights))

    error = bootstrap(statistic, len(x), ROUNDS, 0)
    assert error is not None
    return statistic(np.ones(len(x))), error


def report(draws: Draws, features: Features, data: np.ndarray, names: list[str], output: Path) -> None:
    """Distances of all budgets, and of ten evaluations less fifty of DDIM, to ``output`` and the picture."""
    x = features(data)
    reference = weighted(x, np.ones(len(x)))
    table: dict[str, dict[str, tuple[float, float]]] = {}
    for name in names or SHOWN:
        budgets = LONG if name.startswith("ddim") else BUDGETS
        table[name] = {str(n): distance(features(draws.of(name, n)), reference) for n in budgets}
        print(f"{name:20s}", *(f"{v:.3g} +- {e:.1g}" for v, e in table[name].values()), flush=True)
    old, found = features(draws.of(OLD, 50)), {}
    for name in table:
        found[name] = difference(features(draws.of(name, 10)), old, reference)
        print(f"{name}, 10 less {OLD}, 50: {found[name][0]:+.3g} +- {found[name][1]:.1g}", flush=True)
    whole = {"distances": table, f"10 less {OLD}, 50": found}
    output.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    lines = []
    for name in (name for name in SHOWN if name in table):
        values = np.array(list(table[name].values()))
        lines.append(Line(name, np.array([float(n) for n in table[name]]), values[:, 0], values[:, 1]))
    title = "Frechet distance to the training data, same noise"
    Chart(title, "network evaluations", "Frechet distance", tuple(lines), log=True).write_png(
        output.with_suffix(".png")
    )
