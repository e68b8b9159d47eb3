"""``--mode=likelihood``."""

from typing import Any

import numpy as np
from jax import Array

from score_sde.denoiser import Cond
from score_sde.evaluate import measure_density
from score_sde.experiment import open_source
from score_sde.flags import Options
from score_sde.likelihood import LogProb, log_prob
from score_sde.modes.dequantiser import encoder
from score_sde.modes.workdir import (
    First,
    from_workdir,
    is_chief,
    restore_average,
    say,
    write_report,
)
from score_sde.progress import Progress


def likelihood(options: Options) -> int:
    """Bits/dim (nats, for continuous data) of the held-out split."""
    seed = options.config.seed if options.seed is None else options.seed
    config = options.config.likelihood
    if config.dequantize and options.saved.get("spec", {}).get("levels") is not None:
        options.config.data.dequantize = True
    experiment = from_workdir(options)
    step, mesh, params = restore_average(options, experiment)
    encode = encoder(options.workdir, config.dequantiser, experiment, mesh)
    source = open_source(options.config, "test")
    if config.num_examples is not None:
        source = First(source, min(config.num_examples, len(source)))

    def density(params: Any, keys: Array, x: Array, cond: Cond) -> LogProb:
        return log_prob(
            keys,
            experiment.bind(params, cond),
            experiment.sde,
            x,
            divergence=experiment.divergence,
            rtol=config.rtol,
            atol=config.atol,
            t_min=config.t_min,
            method=config.method,
            max_steps=config.max_steps,
        )

    with Progress(len(source), "likelihood", "example", quiet=not is_chief()) as progress:
        result = measure_density(
            density,
            params,
            source,
            experiment.scaling,
            mesh,
            batch_size=config.batch_size,
            seed=seed,
            note=progress.update,
            encode=encode,
        )
    integer = experiment.scaling.levels is not None
    report = {
        "step": step,
        "examples": len(result.nats),
        "nats_per_example": float(np.mean(result.nats)),
        "evaluations_mean": float(np.mean(result.evaluations)),
        "evaluations_max": int(np.max(result.evaluations)),
        "dequantized": bool(experiment.scaling.dequantize),
        "dequantiser": config.dequantiser,
        "levels": experiment.scaling.levels,
        "t_min": experiment.sde.t_min if config.t_min is None else config.t_min,
        "divergence": repr(experiment.divergence),
        "rtol": config.rtol,
        "atol": config.atol,
        "seed": seed,
    }
    if integer:
        report |= {
            "bits_per_dim": result.mean_bits,
            "bits_per_dim_standard_error": result.standard_error_bits,
        }
    if is_chief():
        write_report(options.workdir / "likelihood.json", report)
        np.savez(
            options.workdir / "likelihood.npz",
            nats=result.nats,
            bits_per_dim=result.bits,
            evaluations=result.evaluations,
        )
    value = (
        f"{result.mean_bits:.4f} +- {result.standard_error_bits:.4f} bits/dim"
        if integer
        else f"{np.mean(result.nats):.5g} nats an example"
    )
    say(
        f"likelihood: {value} on {len(result.nats)} held-out examples (checkpoint {step}, "
        f"{report['evaluations_mean']:.0f} evaluations an example); details in "
        f"{options.workdir / 'likelihood.json'}"
    )
    return 0
