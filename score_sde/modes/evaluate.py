"""``--mode=evaluate``."""

from score_sde.evaluate import level_times, measure_levels
from score_sde.experiment.assemble import open_source
from score_sde.flags import Options
from score_sde.modes.score import score_checkpoints, score_files
from score_sde.modes.workdir import from_workdir, is_chief, restore_average, say, write_report
from score_sde.names import ConfigError
from score_sde.runtime.progress import Progress


def evaluate(options: Options) -> int:
    """Scores of samples where samples are named or asked for, else the held-out loss by noise level.

    Raises:
      ConfigError: flags that contradict each other.
    """
    if options.samples is not None:
        if options.num_samples is not None or options.all_checkpoints:
            raise ConfigError(
                f"--samples={options.samples}: leave out --num_samples and --all_checkpoints, which generate"
            )
        return score_files(options)
    if options.num_samples is not None:
        return score_checkpoints(options)
    if options.reference is not None or options.all_checkpoints:
        raise ConfigError("--reference, --all_checkpoints: name --num_samples=N too, or --samples=PATH")
    return held_out_loss(options)


def held_out_loss(options: Options) -> int:
    """Loss on the held-out split by noise level."""
    experiment = from_workdir(options)
    step, mesh, params = restore_average(options, experiment)
    config = experiment.config
    source = open_source(config, "test")
    measure = measure_levels(experiment.bind, experiment.sde, mesh)
    with Progress(len(source), "evaluate", "example", quiet=not is_chief()) as progress:
        levels = measure(
            params,
            source,
            experiment.codec,
            times=level_times(experiment.sde, config.evaluate.levels),
            batch_size=config.evaluate.batch_size,
            seed=config.seed,
            note=progress.update,
        )
    say(f"{'t':>8} {'log SNR':>9} {'noise error':>12} {'+-':>8} {'x0 error':>10}")
    columns = (levels.t, levels.log_snr, levels.noise, levels.noise_error, levels.x0)
    for t, snr, noise, error, x0 in zip(*columns, strict=True):
        say(f"{t:8.4g} {snr:9.3f} {noise:12.5f} {error:8.5f} {x0:10.6f}")
    say(f"held-out loss {levels.mean:.5f} on {len(source)} examples (checkpoint {step})")
    report = {
        "step": step,
        "examples": len(source),
        "loss": levels.mean,
        "t": levels.t.tolist(),
        "log_snr": levels.log_snr.tolist(),
        "noise_mse": levels.noise.tolist(),
        "noise_mse_standard_error": levels.noise_error.tolist(),
        "x0_mse": levels.x0.tolist(),
    }
    if is_chief():
        write_report(options.workdir / "evaluate.json", report)
    return 0
