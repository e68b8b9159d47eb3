"""``--mode=evaluate``."""

from pathlib import Path

from score_sde.evaluate import level_times, measure_levels
from score_sde.flags import Options
from score_sde.modes.run import model_of, output_of, seed_of, workdir_of
from score_sde.names import ConfigError
from score_sde.report.tables import write_tables
from score_sde.runs.scores import Scored, score_checkpoints, score_files
from score_sde.runtime.files import check_writable, write_json
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress


def evaluate(options: Options) -> int:
    """Scores of samples where samples are named or asked for, else the held-out loss by noise level.

    Raises:
      ConfigError: flags that contradict each other.
    """
    check_writable(options.workdir / "evaluate.json" if options.output is None else Path(options.output))
    if options.samples is not None:
        _refuse(options, f"--samples={options.samples}", "which generate", *_GENERATING)
        if options.reference is None and not options.saved and not options.config_given:
            raise ConfigError(
                "--samples: name what to compare with: --reference=PATH, a --config or a --workdir"
            )
        return _write(options, score_files(workdir_of(options), options.samples, options.reference))
    if options.num_samples is not None:
        return _write(options, _of_checkpoints(options, options.num_samples))
    what = "for scores; name --num_samples=N too, or --samples=PATH"
    _refuse(options, "the held-out loss", what, "reference", "all_checkpoints")
    return held_out_loss(options)


_GENERATING = ("num_samples", "all_checkpoints", "step", "best", "sigma_rel", "seed")


def _refuse(options: Options, where: str, why: str, *names: str) -> None:
    """Refuse flags that would not be read."""
    given = [f"--{name}" for name in names if getattr(options, name) not in (None, False)]
    if given:
        raise ConfigError(f"{where}: leave out {' and '.join(given)}, {why}")


def _of_checkpoints(options: Options, count: int) -> Scored:
    """Scores of ``count`` generated samples of one checkpoint, or with ``--all_checkpoints`` of each."""
    if count < 2:
        raise ConfigError(f"--num_samples={count}: a score needs at least 2")
    if options.all_checkpoints and options.step is not None:
        raise ConfigError(f"--step={options.step}: leave it out with --all_checkpoints")
    model = model_of(options)
    steps = model.workdir.steps if options.all_checkpoints else [model.step]
    return score_checkpoints(model, steps, count, seed_of(options), options.reference)


def _write(options: Options, scored: Scored) -> int:
    name = f"scores_{scored.features}.json"
    path = options.workdir / name if options.output is None else Path(options.output)
    write_tables(path if path.suffix == ".json" else path / name, scored)
    return 0


def held_out_loss(options: Options) -> int:
    """Loss on the held-out split by noise level."""
    output = output_of(options, "evaluate.json", "the held-out loss is a .json", ".json")
    model = model_of(options)
    config, sde = model.config, model.architecture.sde
    source = model.workdir.source("test")
    measure = measure_levels(model.architecture.bind, sde, model.mesh)
    with Progress(len(source), "evaluate", "example", quiet=not is_chief()) as progress:
        levels = measure(
            model.parts,
            source,
            model.architecture.codec,
            times=level_times(sde, config.evaluate.noise_levels),
            batch_size=config.evaluate.batch_size,
            seed=config.seed,
            note=progress.update,
        )
    say(f"{'t':>8} {'log SNR':>9} {'noise error':>12} {'+-':>8} {'x0 error':>10}")
    columns = (levels.t, levels.log_snr, levels.noise, levels.noise_error, levels.x0)
    for t, snr, noise, error, x0 in zip(*columns, strict=True):
        say(f"{t:8.4g} {snr:9.3f} {noise:12.5f} {error:8.5f} {x0:10.6f}")
    say(f"held-out loss {levels.mean:.5f} on {len(source)} examples (checkpoint {model.step})")
    if is_chief():
        report = {
            "step": model.step,
            "examples": len(source),
            "loss": levels.mean,
            "t": levels.t.tolist(),
            "log_snr": levels.log_snr.tolist(),
            "noise_mse": levels.noise.tolist(),
            "noise_mse_standard_error": levels.noise_error.tolist(),
            "x0_mse": levels.x0.tolist(),
        }
        write_json(output, report)
    return 0
