"""``--mode=likelihood``: log densities of the held-out split, and everything that their number rests on."""

import hashlib
import json
import math
from typing import Any

import jax
import numpy as np

from score_sde.evaluate import Density, measure_density
from score_sde.evaluate.pieces import Pieces
from score_sde.experiment.assemble import Experiment, open_source
from score_sde.experiment.sections import as_tree
from score_sde.flags import Options
from score_sde.modes.dequantiser import with_dequantiser
from score_sde.modes.estimates import ESTIMATES, Estimate
from score_sde.modes.workdir import (
    First,
    dequantized,
    from_workdir,
    is_chief,
    restore_average,
    say,
    write_report,
)
from score_sde.names import ConfigError
from score_sde.nets import digest
from score_sde.runtime.progress import Progress

_SECTIONS = ("sde", "model", "denoiser", "conditions", "data", "codec", "likelihood")


def likelihood(options: Options) -> int:
    """Bits/dim (nats, for continuous data) of the held-out split, by every estimate that is asked for.

    Raises:
      ConfigError: an estimate that there is not, or that these data do not have.
    """
    seed = options.config.seed if options.seed is None else options.seed
    config = options.config.likelihood
    if not config.estimates:
        raise ConfigError(f"config.likelihood.estimates is empty; there are: {', '.join(ESTIMATES)}")
    if config.dequantize and options.saved.get("spec", {}).get("levels") is not None:
        options = dequantized(options)
    experiment = from_workdir(options)
    estimates = {name: ESTIMATES[name](experiment, config) for name in config.estimates}
    step, mesh, params = restore_average(options, experiment)
    estimates = {
        name: with_dequantiser(estimate, options.workdir, config.dequantiser, experiment, mesh)
        for name, estimate in estimates.items()
    }
    source = open_source(options.config, "test")
    if config.num_examples is not None:
        source = First(source, min(config.num_examples, len(source)))
    weights = digest(params)
    results: dict[str, Density] = {}
    for name, estimate in estimates.items():
        done = _name(experiment, estimate, weights, seed, len(source), mesh.size)
        with Progress(len(source), name, "example", quiet=not is_chief()) as progress:
            results[name] = measure_density(
                estimate.measure,
                params,
                source,
                estimate.encoder,
                mesh,
                batch_size=config.batch_size,
                seed=seed,
                log_volume=estimate.log_volume,
                draws=estimate.draws,
                dequantise=estimate.dequantise,
                pieces=Pieces(options.workdir / "evaluation" / done),
                write=is_chief(),
                note=lambda count, nats, p=progress: p.update(count, _short(experiment, nats)),
            )
    report = {
        "step": step,
        "weights": weights,
        "examples": len(source),
        "grey_levels": experiment.spec.grey_levels,
        "dequantized": bool(experiment.pixels.dequantize),
        "seed": seed,
        **_numbers(experiment, next(iter(results.values()))),
        "estimates": {
            name: {**_numbers(experiment, result), "conventions": estimates[name].conventions}
            for name, result in results.items()
        },
    }
    if is_chief():
        write_report(options.workdir / "likelihood.json", report)
        (options.workdir / "likelihood.md").write_text(markdown(report), encoding="utf-8")
        np.savez(options.workdir / "likelihood.npz", **_arrays(results))
    for name, result in results.items():
        numbers = _numbers(experiment, result)
        say(
            f"likelihood, {name}: {_long(numbers)} on {len(source)} held-out examples (checkpoint {step}, "
            f"{numbers['evaluations_mean']:.0f} evaluations an example)"
        )
    say(f"details in {options.workdir / 'likelihood.md'}")
    return 0


def _name(
    experiment: Experiment, estimate: Estimate, weights: str, seed: int, examples: int, devices: int
) -> str:
    """Directory of the finished batches: the same whenever their numbers would be."""
    config = as_tree(experiment.config)
    what = {
        **{section: config[section] for section in _SECTIONS},
        "conventions": estimate.conventions,
        "parameters": weights,
        "seed": seed,
        "examples": examples,
        "devices": devices,
        "jax": jax.__version__,
    }
    del what["likelihood"]["estimates"]
    text = json.dumps(what, sort_keys=True, default=str)
    return f"likelihood-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _numbers(experiment: Experiment, result: Density) -> dict[str, Any]:
    """What is known of the mean, in nats an example and, for integer data, in bits per dimension."""
    errors, unit = result.errors_nats, result.size * math.log(2.0)
    numbers: dict[str, Any] = {
        "nats_per_example": float(np.mean(result.nats)),
        "nats_standard_errors": by_source(errors, 1.0),
    }
    if experiment.spec.grey_levels is not None:
        numbers |= {
            "bits_per_dim": result.mean_bits,
            "bits_per_dim_standard_error": result.standard_error_bits,
            "bits_per_dim_standard_errors": by_source(errors, unit),
        }
    return numbers | {
        "noise_draws": result.draws.shape[1],
        "probes": result.draws.shape[2],
        "evaluations_mean": float(np.mean(result.evaluations)),
        "evaluations_max": int(np.max(result.evaluations)),
        "quadrature_error_nats": result.error,
    }


def by_source(errors: Any, unit: float) -> dict[str, float | None]:
    """Errors by source; None for one that cannot be told apart."""
    return {k: None if v is None else v / unit for k, v in errors._asdict().items()}


def _arrays(results: dict[str, Density]) -> dict[str, Any]:
    """The first estimate by plain names, every other by names that begin with its own."""
    arrays: dict[str, Any] = {}
    for i, (name, result) in enumerate(results.items()):
        prefix = f"{name}_" if i else ""
        arrays |= {
            f"{prefix}nats": result.nats,
            f"{prefix}bits_per_dim": result.bits,
            f"{prefix}evaluations": result.evaluations.mean(axis=1),
            f"{prefix}draws": result.draws,
        }
    return arrays


def markdown(report: dict[str, Any]) -> str:
    """The report as a page: one table of all estimates on the same examples, then what each rests on."""
    rows = report["estimates"]
    unit = "bits_per_dim" if "bits_per_dim" in report else "nats"
    head = ["estimate", "bits/dim" if unit == "bits_per_dim" else "nats an example"]
    head += ["standard error", "of data", "of noise", "of probes", "evaluations, mean", "most"]
    lines = [
        "# Likelihood",
        "",
        f"{report['examples']} held-out examples, checkpoint {report['step']}, seed {report['seed']}.",
        "",
        f"| {' | '.join(head)} |",
        f"|---|{'---:|' * (len(head) - 1)}",
    ]
    for name, row in rows.items():
        errors = row[f"{unit}_standard_errors"]
        value = row["bits_per_dim" if unit == "bits_per_dim" else "nats_per_example"]
        cells = [name, f"{value:.5g}", *("-" if e is None else f"{e:.2g}" for e in errors.values())]
        cells += [f"{row['evaluations_mean']:.0f}", str(row["evaluations_max"])]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Standard errors of the mean: the whole, and its parts by source, whose squares add up to it. A "
        "source that was drawn once is not told apart (-) and belongs to the one before it.",
    ]
    if unit == "bits_per_dim":
        lines += [
            "",
            "bits/dim = -(nats / D + log_volume) / log 2, with nats in the model's units. Smaller is better; "
            "with dequantisation or a bound, the true value is not larger.",
        ]
    for name, row in rows.items():
        lines += ["", f"## {name}", "", "| | |", "|---|---|"]
        lines += [f"| {key} | {_told(value)} |" for key, value in row["conventions"].items()]
        lines.append(f"| quadrature error, nats, at most | {row['quadrature_error_nats']:.2g} |")
    return "\n".join(lines) + "\n"


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return " to ".join(f"{v:g}" for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(experiment: Experiment, nats: float) -> str:
    if experiment.spec.grey_levels is None:
        return f"{nats:.4g} nats"
    return f"{-nats / (math.prod(experiment.spec.shape) * math.log(2.0)):.4f} bits/dim"


def _long(numbers: dict[str, Any]) -> str:
    if "bits_per_dim" not in numbers:
        return f"{numbers['nats_per_example']:.5g} nats an example"
    return f"{numbers['bits_per_dim']:.4f} +- {numbers['bits_per_dim_standard_error']:.4f} bits/dim"
