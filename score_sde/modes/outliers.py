"""``--mode=outliers``."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.data import Spec
from score_sde.evaluate.outliers import FOREIGN, OUTLIER_SCORES, auroc, compressed_bits
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.images.charts import Chart, Line
from score_sde.modes.run import model_of, output_of, seed_of
from score_sde.names import ConfigError
from score_sde.runs.estimates import make_estimate, measure
from score_sde.runs.inputs import Inputs, drawable, open_inputs, to_user
from score_sde.runs.model import Model
from score_sde.runtime.files import write_json
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress

_SHOWN, _LISTED = 40, 20


class Raw:
    """Raw examples in memory, without conditions."""

    def __init__(self, x: np.ndarray, spec: Spec, titles: list[str] | None = None):
        self.x, self.spec = x, replace(spec, conditions=())
        self.titles = [str(i) for i in range(len(x))] if titles is None else titles

    def __len__(self) -> int:
        return len(self.x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, *shape)}``."""
        return {"x": self.x[indices]}


@dataclass(frozen=True)
class Measured:
    """A set and its log densities.

    Attributes:
      raw: the examples.
      nats: ``(N,)``.
      scores: by name, ``(N,)``; higher for outliers.
    """

    raw: Raw
    nats: np.ndarray
    scores: dict[str, np.ndarray]


def outliers(options: Options) -> int:
    """How well scores tell held-out data from ``--samples``, or from data made foreign."""
    config, output = options.config.outliers, _output(options)
    names = _chosen(config.scores, OUTLIER_SCORES, "scores")
    foreign = _chosen(config.foreign, FOREIGN, "foreign") if options.samples is None else ()
    seed, model = seed_of(options), model_of(options).density_model
    spec = model.architecture.spec
    if spec.grey_levels is None and (foreign or "complexity" in names):
        raise ConfigError(
            "continuous data: --mode=outliers needs --samples=FILE, and config.outliers.scores without "
            "'complexity', which compresses levels"
        )
    sets = _sets(model, options.samples, foreign, seed)
    nats = _densities(model, sets, seed)
    typical = float(np.mean(nats["train"]))
    measured = {name: _score(sets[name], nats[name], typical, names) for name in sets if name != "train"}
    inside = measured.pop("held-out")
    report = {
        "step": model.step,
        "typical_nats": typical,
        "typical_nats_standard_error": float(np.std(nats["train"], ddof=1) / math.sqrt(len(nats["train"]))),
        "scores": {name: OUTLIER_SCORES[name].__doc__ for name in names},
        "held_out": _about(inside, spec),
        "sets": {name: _about(one, spec) | _auroc(inside, one) for name, one in measured.items()},
    }
    _say_table(report, names)
    if is_chief():
        write_json(output.with_suffix(".json"), report)
        everything: dict[str, Any] = {"train": nats["train"], "held-out": inside.nats}
        everything |= {name: one.nats for name, one in measured.items()}
        np.savez(output.with_suffix(".npz"), **everything)
        _chart(everything, spec).write_png(output)
        if drawable(spec):
            _draw(measured, spec, names[0]).save(output.with_name(f"{output.stem}_examples.png"))
    say(f"densities in {output}; details in {output.with_suffix('.json')}")
    return 0


def _chosen(names: tuple[str, ...], table: Iterable[str], field: str) -> tuple[str, ...]:
    if not names:
        raise ConfigError(f"config.outliers.{field} = (): name one or more of {', '.join(table)}")
    return names


def _output(options: Options) -> Path:
    allowed = "the result is a .png, with a .json and a .npz beside it"
    path = output_of(options, "outliers.png", allowed, ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _sets(model: Model, samples: str | None, foreign: tuple[str, ...], seed: int) -> dict[str, Raw]:
    """Training and held-out examples, and the foreign ones."""
    spec, count = model.architecture.spec, model.config.outliers.num_examples
    sets = {
        "train": _loaded(open_inputs(model.workdir, None, "train", count)),
        "held-out": _loaded(open_inputs(model.workdir, None, "test", count)),
    }
    if samples is not None:
        return {**sets, Path(samples).name: _loaded(open_inputs(model.workdir, samples, "test", None))}
    assert spec.grey_levels is not None
    rng = np.random.default_rng(seed)
    for name in foreign:
        sets[name] = Raw(FOREIGN[name](sets["held-out"].x, spec.grey_levels, rng), spec)
    return sets


def _loaded(inputs: Inputs) -> Raw:
    x = inputs.read(np.arange(len(inputs)))["x"]
    return Raw(x, inputs.spec, [inputs.title(i) for i in range(len(inputs))])


def _densities(model: Model, sets: dict[str, Raw], seed: int) -> dict[str, np.ndarray]:
    """Log densities of every set, under null conditions."""
    everything = np.concatenate([one.x for one in sets.values()])
    with Progress(len(everything), "outliers", "example", quiet=not is_chief()) as progress:
        nats = measure(
            make_estimate(model, "ode"),
            model,
            Raw(everything, model.architecture.spec),
            seed=seed,
            note=lambda count, nats: progress.update(count, f"{nats:.4g} nats"),
        ).nats
    ends = np.cumsum([len(one) for one in sets.values()])[:-1]
    return dict(zip(sets, np.split(nats, ends), strict=True))


def _score(raw: Raw, nats: np.ndarray, typical: float, names: tuple[str, ...]) -> Measured:
    bits = compressed_bits(raw.x) if raw.x.dtype == np.uint8 else np.zeros(len(nats))
    return Measured(raw, nats, {name: OUTLIER_SCORES[name](nats, typical, bits) for name in names})


def _about(one: Measured, spec: Spec) -> dict[str, Any]:
    """Mean density, and the examples that are most foreign by each score."""
    size = math.prod(spec.shape)
    result: dict[str, Any] = {"examples": len(one.nats), "nats_mean": float(one.nats.mean())}
    if spec.grey_levels is not None:
        result["bits_per_dim_mean"] = float(-one.nats.mean() / size / math.log(2.0))
    result["most_foreign"] = {
        name: [
            {"name": one.raw.titles[i], "score": float(score[i])}
            for i in np.argsort(-score, kind="stable")[:_LISTED]
        ]
        for name, score in one.scores.items()
    }
    return result


def _auroc(inside: Measured, outside: Measured) -> dict[str, Any]:
    areas = {name: auroc(inside.scores[name], score) for name, score in outside.scores.items()}
    return {"auroc": {name: {"value": a.value, "standard_error": a.error} for name, a in areas.items()}}


def _say_table(report: dict[str, Any], names: tuple[str, ...]) -> None:
    say("area under the ROC curve between held-out and foreign examples (0.5: no difference)")
    say(f"{'':>16} {'nats':>10} " + " ".join(f"{name:>17}" for name in names))
    say(f"{'held-out':>16} {report['held_out']['nats_mean']:10.4g}")
    for name, one in report["sets"].items():
        areas = [one["auroc"][score] for score in names]
        cells = [f"{a['value']:9.4f} +-{a['standard_error']:6.4f}" for a in areas]
        say(f"{name[:16]:>16} {one['nats_mean']:10.4g} " + " ".join(cells))


def _chart(everything: dict[str, np.ndarray], spec: Spec) -> Chart:
    """Shares of each set by log density per dimension."""
    size = math.prod(spec.shape)
    values = {name: nats / size for name, nats in everything.items()}
    joined = np.concatenate(list(values.values()))
    low, high = np.percentile(joined, [0.5, 99.5]).tolist()
    edges = np.linspace(low, high, 41)
    lines = [
        Line(name, 0.5 * (edges[1:] + edges[:-1]), np.histogram(v, edges)[0] / len(v))
        for name, v in values.items()
    ]
    return Chart("Log densities", "nats per dimension", "share of examples", tuple(lines))


def _draw(measured: dict[str, Measured], spec: Spec, name: str) -> Any:
    """The most foreign examples of each set, most foreign first."""
    columns = min(_SHOWN // max(len(measured), 1), *(len(one.nats) for one in measured.values()))
    rows = [one.raw.x[np.argsort(-one.scores[name], kind="stable")[:columns]] for one in measured.values()]
    return pictures.grid(to_user(np.concatenate(rows), spec), columns=columns)
