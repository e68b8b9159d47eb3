"""``--mode=dequantiser``: a second stage of training, for the likelihood of a model that stays as it is."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.conditions import Cond, Conditions
from score_sde.data import Batches, Source, eval_batches, random_flip
from score_sde.experiment.assemble import Experiment, open_source
from score_sde.flags import Options
from score_sde.likelihood.dequantise import Coupled, DequantiserLoss, Uniform, encode
from score_sde.losses import variational_bound
from score_sde.modes.estimates import Estimate
from score_sde.modes.train import NoLog
from score_sde.modes.workdir import dequantized, from_workdir, is_chief, restore_average, say, write_report
from score_sde.names import ConfigError
from score_sde.nets import digest
from score_sde.nets.dequantiser import CouplingNet
from score_sde.runtime.mesh import batch_sharding, replicated, round_up, state_shardings
from score_sde.train import EMAS, OPTIMIZERS, Checkpoints, Log, Objective, init_state, make_step
from score_sde.train import train as train_loop

_FOLDER = "dequantiser"
_ABOUT = "dequantiser.json"
_PASSES = 4  # dequantisation and time draws of each held-out example


def dequantiser(options: Options) -> int:
    """Fit the density of the dequantisation noise to the model of a workdir, or go on from its checkpoint."""
    if options.saved.get("spec", {}).get("levels") is None:
        raise ConfigError("--mode=dequantiser: needs the workdir of a model of integer data")
    options = dequantized(options)
    config = options.config
    experiment = from_workdir(options)
    model_step, mesh, fixed = restore_average(options, experiment)
    section, folder = config.dequantiser, options.workdir / _FOLDER
    coupled = Coupled(experiment.pixels, CouplingNet(section.width, section.couplings))
    source, held_out = open_source(config, "train"), open_source(config, "test")
    optimizer = OPTIMIZERS["adam"](
        learning_rate=section.learning_rate,
        warmup_steps=min(100, section.steps // 4),
        decay_steps=section.steps,
    )
    make = init_state(lambda key: coupled.init(key, experiment.spec.shape), optimizer, config.seed)
    shapes = jax.eval_shape(make)
    objective = functools.partial(_objective, experiment, coupled)

    def advance(fixed: Any, state: Any, batch: Any) -> Any:
        return make_step(objective(fixed), optimizer, EMAS["warmup"](section.ema), config.seed)(state, batch)

    where = state_shardings(mesh, shapes)
    compiled = jax.jit(
        advance,
        in_shardings=(replicated(mesh), where, batch_sharding(mesh)),
        out_shardings=(where, replicated(mesh)),
        donate_argnums=1,
    )
    batches = Batches(source, batch_size=section.batch_size, seed=config.seed, sharding=batch_sharding(mesh))
    with Checkpoints(folder / "checkpoints", keep_last=1) as checkpoints:
        state = (
            checkpoints.restore(shapes, mesh) if checkpoints.steps else jax.jit(make, out_shardings=where)()
        )
        first = is_chief()
        with Log(folder, int(state.step)) if first else NoLog() as log:
            state, finished = train_loop(
                functools.partial(compiled, fixed),
                state,
                batches.from_step(int(state.step)),
                steps=section.steps,
                batch_size=section.batch_size,
                checkpoints=checkpoints,
                log=log,
                checkpoint_every_steps=config.training.checkpoint_every_steps,
                log_every_steps=config.training.log_every_steps,
                quiet=not first,
            )
    if not finished:
        return 0
    size = round_up(section.batch_size, mesh)
    bounds = {
        name: _held_out(
            functools.partial(_objective, experiment, which),
            fixed,
            params,
            held_out,
            experiment.conditions,
            size,
            config.seed,
        )
        for name, which, params in (
            ("uniform", Uniform(experiment.pixels), None),
            ("learned", coupled, state.ema),
        )
    }
    gain = bounds["uniform"] - bounds["learned"]
    error = float(np.std(gain, ddof=1) / math.sqrt(len(gain)))
    about = {
        "width": section.width,
        "couplings": section.couplings,
        "model_step": model_step,
        "steps": section.steps,
        "held_out_gain_bits_per_dim": float(np.mean(gain)),
        "held_out_gain_standard_error": error,
        "sha256": digest(jax.device_get(state.ema)),
    }
    if is_chief():
        write_report(options.workdir / _ABOUT, about)
    say(
        f"dequantiser in {folder}: lowers the variational bound on {len(gain)} held-out examples by "
        f"{np.mean(gain):.4f} +- {error:.4f} bits/dim against uniform noise"
    )
    return 0


def with_dequantiser(
    estimate: Estimate, workdir: Path, name: str, experiment: Experiment, mesh: Any
) -> Estimate:
    """An estimate of dequantised data with the noise that ``likelihood.dequantiser`` names; others unchanged.

    Raises:
      FileNotFoundError: none has been trained.
    """
    if name == "uniform" or estimate.encoder is not experiment.scaling:
        return estimate
    if not (workdir / _ABOUT).is_file():
        raise FileNotFoundError(
            f"--workdir={workdir}: holds no learned dequantiser; run --mode=dequantiser first"
        )
    about = json.loads((workdir / _ABOUT).read_text(encoding="utf-8"))
    coupled = Coupled(experiment.pixels, CouplingNet(about["width"], about["couplings"]))
    shapes = jax.eval_shape(lambda key: coupled.init(key, experiment.spec.shape), jax.random.key(0))
    with Checkpoints(workdir / _FOLDER / "checkpoints") as checkpoints:
        params = checkpoints.restore_ema(shapes, mesh)[1]
    told = f"learned (arXiv:1902.00275), after {about['steps']} steps, SHA-256 {about['sha256']}"
    return dataclasses.replace(
        estimate,
        dequantise=functools.partial(encode, coupled, params, experiment.pixels),
        conventions=estimate.conventions | {"dequantization": told},
    )


def _objective(experiment: Experiment, which: Coupled | Uniform, fixed: Any) -> Objective:
    """The bound with the model ``fixed``, from the time at which the likelihood starts."""
    t_min = experiment.config.likelihood.t_min
    sde = experiment.sde if t_min is None else dataclasses.replace(experiment.sde, t_min=t_min)

    def prepare(batch: dict[str, Array], key: Array) -> tuple[Array, Cond]:
        raw = batch["x"]
        if experiment.config.data.random_flip:
            raw = random_flip(raw, key)
        return raw, {name: batch[name] for name, _ in experiment.conditions}

    def bound(x0: Array, key: Array, cond: Cond) -> Array:
        return variational_bound(experiment.bind(fixed, cond), sde, x0, key)

    loss = DequantiserLoss(which, experiment.pixels, bound)
    return Objective(prepare, lambda params, cond: (params, cond), loss)


def _held_out(
    objective: Callable[[Any], Objective],
    fixed: Any,
    params: Any,
    source: Source,
    conditions: Conditions,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """The bound of every held-out example in bits per dimension, less what scaling adds, ``(N,)``."""

    @jax.jit
    def measure(fixed: Any, params: Any, batch: dict[str, Array], key: Array) -> Array:
        keys = jax.random.split(key, _PASSES)
        model = (params, {name: batch[name] for name, _ in conditions})
        each = jax.lax.map(lambda k: objective(fixed).loss(model, batch["x"], k)[0], keys)
        return jnp.mean(each, axis=0) / math.log(2.0)

    results = []
    for i, batch in enumerate(eval_batches(source, min(batch_size, len(source)))):
        key = jax.random.fold_in(jax.random.key(seed), i)
        mask = np.asarray(batch.pop("mask"))
        results.append(np.asarray(measure(fixed, params, batch, key))[mask])
    return np.concatenate(results)
