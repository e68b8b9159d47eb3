"""Log densities as numbers with their errors, arrays and a page."""

import math
from typing import Any

import numpy as np

from score_sde.conditions import Json
from score_sde.data import Spec
from score_sde.evaluate import Density
from score_sde.evaluate.density import Errors


def numbers_of(spec: Spec, result: Density) -> dict[str, Json]:
    """What is known of the mean, in nats an example and, for integer data, in bits per dimension."""
    errors, unit = result.errors_nats, result.size * math.log(2.0)
    numbers: dict[str, Json] = {
        "nats_per_example": float(np.mean(result.nats)),
        "nats_standard_errors": by_source(errors, 1.0),
    }
    if spec.grey_levels is not None:
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


def by_source(errors: Errors, unit: float) -> dict[str, Json]:
    """Errors by source; None for one that cannot be told apart."""
    return {k: None if v is None else v / unit for k, v in errors._asdict().items()}


def arrays_of(results: dict[str, Density]) -> dict[str, Any]:
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
        lines += [f"| {key} | {_described(value)} |" for key, value in row["conventions"].items()]
        lines.append(f"| quadrature error, nats, at most | {row['quadrature_error_nats']:.2g} |")
    return "\n".join(lines) + "\n"


def _described(value: Json) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        return " to ".join(f"{v:g}" for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def short(spec: Spec, nats: float) -> str:
    """A mean in nats, for a line of progress."""
    if spec.grey_levels is None:
        return f"{nats:.4g} nats"
    return f"{-nats / (math.prod(spec.shape) * math.log(2.0)):.4f} bits/dim"


def long(numbers: dict[str, Any]) -> str:
    """The number and its error, for the last line."""
    if "bits_per_dim" not in numbers:
        return f"{numbers['nats_per_example']:.5g} nats an example"
    return f"{numbers['bits_per_dim']:.4f} +- {numbers['bits_per_dim_standard_error']:.4f} bits/dim"
