"""``--mode=likelihood``."""

import numpy as np

from score_sde.data import Source
from score_sde.evaluate import Density
from score_sde.evaluate.cache import Cache
from score_sde.evaluate.examples import First
from score_sde.flags import Options
from score_sde.modes.run import model_of, output_of, seed_of
from score_sde.names import ConfigError
from score_sde.report.likelihood import arrays_of, long, markdown, numbers_of, short
from score_sde.runs.estimates import ESTIMATES, Estimate, make_estimate, measure
from score_sde.runs.model import Model
from score_sde.runtime.files import write_json
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress


def likelihood(options: Options) -> int:
    """Bits/dim (nats, for continuous data) of the held-out split, by every estimate that is asked for.

    Raises:
      ConfigError: an estimate that these data do not have.
    """
    section, seed = options.config.likelihood, seed_of(options)
    if not section.estimates:
        raise ConfigError(f"config.likelihood.estimates is empty; there are: {', '.join(ESTIMATES)}")
    allowed = "the result is a .json, with a .md and a .npz beside it"
    path = output_of(options, "likelihood.json", allowed, ".json")
    model = model_of(options).density_model
    estimates = {name: make_estimate(model, name) for name in section.estimates}
    source: Source = model.workdir.source("test")
    if section.num_examples is not None:
        source = First(source, section.num_examples)
    results = {name: _measured(model, name, estimate, source, seed) for name, estimate in estimates.items()}
    spec = model.architecture.spec
    report = {
        "step": model.step,
        "weights": model.digest,
        "examples": len(source),
        "grey_levels": spec.grey_levels,
        "dequantized": bool(model.config.codec.options.get("dequantize")),
        "seed": seed,
        **numbers_of(spec, next(iter(results.values()))),
        "estimates": {
            name: {**numbers_of(spec, result), "conventions": estimates[name].conventions}
            for name, result in results.items()
        },
    }
    if is_chief():
        write_json(path, report)
        path.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
        np.savez(path.with_suffix(".npz"), **arrays_of(results))
    for name, result in results.items():
        numbers = numbers_of(spec, result)
        say(
            f"likelihood, {name}: {long(numbers)} on {len(source)} held-out examples (checkpoint "
            f"{model.step}, {numbers['evaluations_mean']:.0f} evaluations an example)"
        )
    say(f"details in {path.with_suffix('.md')}")
    return 0


def _measured(model: Model, name: str, estimate: Estimate, source: Source, seed: int) -> Density:
    """An estimate of every example, resumed from the batches that are done."""
    done = model.fingerprint(
        "likelihood",
        "data",
        estimate=name,
        conventions=estimate.conventions,
        seed=seed,
        examples=len(source),
        devices=model.mesh.size,
    )
    with Progress(len(source), name, "example", quiet=not is_chief()) as progress:
        return measure(
            estimate,
            model,
            source,
            seed=seed,
            cache=Cache(model.results / done, write=is_chief()),
            note=lambda count, nats: progress.update(count, short(model.architecture.spec, nats)),
        )
