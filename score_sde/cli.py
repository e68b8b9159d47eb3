"""The modes of ``run.py``, one function each."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from score_sde import config as configs
from score_sde import pictures
from score_sde.config import ConfigError
from score_sde.data import Batches, Source, Spec, warn_if_unscaled
from score_sde.evaluate import level_times, measure_density, measure_levels
from score_sde.experiment import Experiment, assemble, open_source
from score_sde.flags import Options, fail
from score_sde.likelihood import LogProb, log_prob
from score_sde.mesh import batch_sharding, make_mesh, state_shardings
from score_sde.progress import Progress
from score_sde.sampling import compile_sample, generate
from score_sde.train import (
    Checkpoints,
    Every,
    Log,
    TrainState,
    compile_step,
    init_state,
    make_step,
)
from score_sde.train import train as train_loop


def run(options: Options) -> int:
    """Run a mode; returns the exit status.  A mistake of the user is one message, not a trace."""
    try:
        return MODES[options.mode](options)
    except (ConfigError, FileNotFoundError, ImportError, FloatingPointError, OSError) as error:
        fail(error)


# --- train -----------------------------------------------------------------------------------------


def train(options: Options) -> int:
    """Fit a model, or go on from the newest checkpoint of the workdir."""
    config, workdir = options.config, options.workdir
    source, held_out = open_source(config, "train"), open_source(config, "test")
    experiment = assemble(config, source.spec)
    warn_if_unscaled(source, experiment.scaling)
    mesh, training = make_mesh(config.mesh.fsdp), config.training
    batches = Batches(
        source,
        batch_size=training.batch_size,
        seed=config.seed,
        sharding=batch_sharding(mesh),
        placement=config.data.placement,
        num_workers=config.data.num_workers,
        steps_per_dispatch=training.steps_per_dispatch,
    )
    make = init_state(experiment.init, experiment.optimizer, config.seed)
    shapes = jax.eval_shape(make)
    with Checkpoints(
        workdir / "checkpoints",
        keep_last=training.keep_last,
        keep_every_steps=training.keep_every_steps,
    ) as checkpoints:
        if checkpoints.steps:
            state = checkpoints.restore(shapes, mesh)
            _say(f"going on from step {int(state.step)} of {workdir}")
        else:
            state = jax.jit(make, out_shardings=state_shardings(mesh, shapes))()
        first = _chief()
        if first:
            configs.save(workdir, config, **experiment.extra)
        _say(_summary(experiment, len(source), mesh.size, shapes))
        step = make_step(experiment.objective, experiment.optimizer, experiment.ema, config.seed)
        with Log(workdir, int(state.step)) if first else _NoLog() as log:
            state, finished = train_loop(
                compile_step(step, mesh, shapes, training.steps_per_dispatch),
                state,
                batches.from_step(int(state.step)),
                steps=training.steps,
                batch_size=training.batch_size,
                checkpoints=checkpoints,
                log=log,
                checkpoint_every_steps=training.checkpoint_every_steps,
                log_every_steps=training.log_every_steps,
                steps_per_dispatch=training.steps_per_dispatch,
                actions=(_held_out(experiment, held_out, mesh), _grids(experiment, workdir, mesh)),
                quiet=not first,
            )
    if finished:
        _say(f"finished: checkpoints, metrics and samples are in {workdir}")
    return 0


def _held_out(experiment: Experiment, source: Source, mesh: Any) -> Every:
    """Loss by noise level on the first held-out examples."""
    config = experiment.config
    times = level_times(experiment.sde, 10)
    measure = measure_levels(experiment.bind, experiment.sde, config.training.conditional, mesh)
    some = _First(source, min(len(source), config.training.eval_examples))

    def act(step: int, state: TrainState) -> dict[str, Any]:
        levels = measure(
            state.ema,
            some,
            experiment.scaling,
            times=times,
            batch_size=config.evaluate.batch_size,
            seed=config.seed,
        )
        _say(f"step {step}: held-out loss {levels.mean:.4g}")
        return {
            "held_out_loss": levels.mean,
            "held_out_loss_by_level": levels.noise.tolist(),
            "held_out_log_snr": levels.log_snr.tolist(),
        }

    return Every(config.training.eval_every_steps, act, at_end=True)


def _grids(experiment: Experiment, workdir: Path, mesh: Any) -> Every:
    """Sample grids of the averaged parameters, always from the same noise."""
    config = experiment.config
    draw = compile_sample(
        experiment.bind, experiment.sde, experiment.solver, mesh, shape=experiment.spec.shape
    )
    count = config.training.sample_count
    labels = np.arange(count) % experiment.spec.num_classes if config.training.conditional else None

    def act(step: int, state: TrainState) -> dict[str, Any]:
        batches = generate(
            draw,
            state.ema,
            experiment.plan,
            mesh,
            seed=config.seed,
            num_samples=count,
            batch_size=config.sampling.batch_size,
            labels=labels,
        )
        samples = _outside(experiment, np.concatenate(list(batches)))
        suffix = ".png" if _drawable(experiment.spec) else ".npz"
        path = workdir / "samples" / f"step_{step:08d}{suffix}"
        if _chief():
            pictures.write(path, samples, seed=config.seed)
            _say(f"step {step}: samples in {path}")
        return {}

    return Every(config.training.sample_every_steps, act, at_end=True)


# --- sample ----------------------------------------------------------------------------------------


def sample(options: Options) -> int:
    """Draw samples from the averaged parameters of a checkpoint."""
    seed = options.config.seed if options.seed is None else options.seed
    experiment = _from_workdir(options)
    spec = experiment.spec
    output = _output(options, spec)
    step, mesh, params = _restore(options, experiment)
    labels = _labels(options, experiment)
    count, config = options.num_samples, experiment.config.sampling
    steps_a_batch = len(experiment.plan.rows.draw) if experiment.plan.rows is not None else 0
    batches: list[np.ndarray] = []
    with Progress(count, f"sample (checkpoint {step})", "sample", quiet=not _chief()) as progress:

        def show(i: Any) -> None:
            progress.update(progress.done, f"step {int(i) + 1}/{steps_a_batch}")

        draw = compile_sample(
            experiment.bind, experiment.sde, experiment.solver, mesh, shape=spec.shape, progress=show
        )
        for batch in generate(
            draw,
            params,
            experiment.plan,
            mesh,
            seed=seed,
            num_samples=count,
            batch_size=config.batch_size,
            labels=labels,
        ):
            batches.append(_outside(experiment, batch))
            progress.update(progress.done + len(batch))
    if _chief():
        pictures.write(output, np.concatenate(batches), seed=seed)
    _say(f"{count} samples in {output}")
    return 0


def _output(options: Options, spec: Spec) -> Path:
    """Where samples go, refused before any work if they cannot."""
    default = options.workdir / "samples" / ("samples.png" if _drawable(spec) else "samples.npz")
    path = default if options.output is None else Path(options.output)
    try:
        pictures.check_output(path)
    except ValueError as error:
        fail(error)
    if path.suffix != ".npz" and not _drawable(spec):
        fail(f"--output={path}: examples of shape {spec.shape} are no pictures; use a .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _labels(options: Options, experiment: Experiment) -> np.ndarray | None:
    classes, count = experiment.spec.num_classes, options.num_samples
    if not experiment.config.training.conditional:
        if options.label is not None:
            fail(f"--label={options.label}: the model was trained without labels")
        return None
    if options.label is None:
        return np.arange(count) % classes
    if options.label >= classes:
        fail(f"--label={options.label}: the model knows the classes 0 to {classes - 1}")
    return np.full(count, options.label)


# --- likelihood ------------------------------------------------------------------------------------


def likelihood(options: Options) -> int:
    """Bits/dim (nats, for continuous data) of the held-out split."""
    seed = options.config.seed if options.seed is None else options.seed
    config = options.config.likelihood
    if config.dequantize:
        options.config.data.dequantize = True
    experiment = _from_workdir(options)
    step, mesh, params = _restore(options, experiment)
    source = open_source(options.config, "test")
    if config.num_examples is not None:
        source = _First(source, min(config.num_examples, len(source)))
    conditional = experiment.config.training.conditional

    def density(params: Any, keys: Array, x: Array, cond: Array) -> LogProb:
        return log_prob(
            keys,
            experiment.bind(params, cond if conditional else None),
            experiment.sde,
            x,
            divergence=experiment.divergence,
            rtol=config.rtol,
            atol=config.atol,
            t_min=config.t_min,
            method=config.method,
            max_steps=config.max_steps,
        )

    with Progress(len(source), "likelihood", "example", quiet=not _chief()) as progress:
        result = measure_density(
            density,
            params,
            source,
            experiment.scaling,
            mesh,
            batch_size=config.batch_size,
            seed=seed,
            note=progress.update,
        )
    integer = experiment.scaling.levels is not None
    report = {
        "step": step,
        "examples": len(result.nats),
        "nats_per_example": float(np.mean(result.nats)),
        "evaluations_mean": float(np.mean(result.evaluations)),
        "evaluations_max": int(np.max(result.evaluations)),
        "dequantized": bool(experiment.scaling.dequantize),
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
    if _chief():
        _write_report(options.workdir / "likelihood.json", report)
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
    _say(
        f"likelihood: {value} on {len(result.nats)} held-out examples (checkpoint {step}, "
        f"{report['evaluations_mean']:.0f} evaluations an example); details in "
        f"{options.workdir / 'likelihood.json'}"
    )
    return 0


# --- evaluate --------------------------------------------------------------------------------------


def evaluate(options: Options) -> int:
    """Loss on the held-out split by noise level."""
    experiment = _from_workdir(options)
    step, mesh, params = _restore(options, experiment)
    config = experiment.config
    source = open_source(config, "test")
    measure = measure_levels(experiment.bind, experiment.sde, config.training.conditional, mesh)
    with Progress(len(source), "evaluate", "example", quiet=not _chief()) as progress:
        levels = measure(
            params,
            source,
            experiment.scaling,
            times=level_times(experiment.sde, config.evaluate.levels),
            batch_size=config.evaluate.batch_size,
            seed=config.seed,
            note=progress.update,
        )
    _say(f"{'t':>8} {'log SNR':>9} {'noise error':>12} {'+-':>8} {'x0 error':>10}")
    columns = (levels.t, levels.log_snr, levels.noise, levels.noise_error, levels.x0)
    for t, snr, noise, error, x0 in zip(*columns, strict=True):
        _say(f"{t:8.4g} {snr:9.3f} {noise:12.5f} {error:8.5f} {x0:10.6f}")
    _say(f"held-out loss {levels.mean:.5f} on {len(source)} examples (checkpoint {step})")
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
    if _chief():
        _write_report(options.workdir / "evaluate.json", report)
    return 0


MODES: dict[str, Callable[[Options], int]] = {
    "train": train,
    "sample": sample,
    "likelihood": likelihood,
    "evaluate": evaluate,
}


# --- what the modes share --------------------------------------------------------------------------


class _First:
    """The first ``count`` examples of a source."""

    def __init__(self, source: Source, count: int):
        self.spec, self._source, self._count = source.spec, source, count

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        return self._source.read(indices)


class _NoLog:
    """The log of a process that keeps none."""

    def __enter__(self) -> "_NoLog":
        return self

    def __exit__(self, *_: object) -> None: ...

    def write(self, step: int, values: dict[str, Any]) -> None: ...


def _from_workdir(options: Options) -> Experiment:
    if "spec" not in options.saved:
        raise FileNotFoundError(
            f"--workdir={options.workdir}: holds no trained model; run --mode=train first"
        )
    spec = dict(options.saved["spec"])
    return assemble(options.config, Spec(**{**spec, "shape": tuple(spec["shape"])}))


def _restore(options: Options, experiment: Experiment) -> tuple[int, Any, Any]:
    """Step, mesh and averaged parameters of the chosen checkpoint."""
    directory = options.workdir / "checkpoints"
    if not directory.is_dir():
        raise FileNotFoundError(f"--workdir={options.workdir}: holds no checkpoints yet")
    mesh = make_mesh()
    shapes = jax.eval_shape(experiment.init, jax.random.key(0))
    with Checkpoints(directory) as checkpoints:
        step, params = checkpoints.restore_ema(shapes, mesh, options.step)
    return step, mesh, params


def _outside(experiment: Experiment, x: np.ndarray) -> np.ndarray:
    """Samples as users keep them: uint8 pictures for images, the data's own units otherwise."""
    convert = experiment.scaling.to_uint8 if _drawable(experiment.spec) else experiment.scaling.decode
    return np.asarray(convert(x))


def _drawable(spec: Spec) -> bool:
    return pictures.is_picture(spec.shape, spec.levels)


def _chief() -> bool:
    return jax.process_index() == 0


def _say(message: str) -> None:
    if _chief():
        print(message, flush=True)


def _summary(experiment: Experiment, examples: int, devices: int, shapes: TrainState) -> str:
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params))
    return (
        f"{type(experiment.sde).__name__} on {examples} examples of shape {experiment.spec.shape}; "
        f"{count / 1e6:.3f} M parameters; {devices} x {jax.devices()[0].device_kind}"
    )


def _write_report(path: Path, report: dict[str, Any]) -> None:
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)
