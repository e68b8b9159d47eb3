"""The learned dequantiser of a run: trained beside the model, and used for its likelihood."""

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

import jax
import numpy as np

from score_sde.experiment.run_sections import Training
from score_sde.likelihood.dequantise import encode
from score_sde.nets import digest
from score_sde.runtime.files import read_json, write_json
from score_sde.runtime.processes import is_chief, say
from score_sde.tasks.base import Setting
from score_sde.tasks.dequantiser import PART, Dequantisation
from score_sde.train import CHECKPOINTS, EMAS, OPTIMIZERS, Checkpoints, fit

if TYPE_CHECKING:
    from score_sde.runs.estimates import Estimate
    from score_sde.runs.model import Model

_FOLDER = "dequantiser"
_ABOUT = "dequantiser.json"


def train_dequantiser(model: "Model") -> None:
    """Fit the density of the dequantisation noise to a model, or resume; says what it gains."""
    config, workdir = model.config, model.workdir
    section, folder = config.dequantiser, workdir.path / _FOLDER
    task = Dequantisation(
        model.architecture,
        dict(model.parts),
        section.width,
        section.couplings,
        config.likelihood.t_min,
        config.data.random_flip,
    )
    setting = Setting(workdir.source("train"), workdir.source("test"), model.mesh, folder, config.seed)
    optimizer = OPTIMIZERS["adam"](
        learning_rate=section.learning_rate,
        warmup_steps=min(100, section.steps // 4),
        decay_steps=section.steps,
    )
    state, frozen, finished = fit(
        task,
        setting,
        optimizer,
        EMAS["warmup"](section.ema),
        companion_schedule(config.training, section.steps, section.batch_size),
    )
    if not finished:
        return
    gain = task.gain(state.ema, frozen, setting, section.batch_size)
    error = float(np.std(gain, ddof=1) / math.sqrt(len(gain)))
    if is_chief():
        about = {
            "width": section.width,
            "couplings": section.couplings,
            "model_step": model.step,
            "steps": section.steps,
            "held_out_gain_bits_per_dim": float(np.mean(gain)),
            "held_out_gain_standard_error": error,
            "sha256": digest(jax.device_get(state.ema[PART])),
        }
        write_json(workdir.path / _ABOUT, about)
    say(
        f"dequantiser in {folder}: lowers the variational bound on {len(gain)} held-out examples by "
        f"{np.mean(gain):.4f} +- {error:.4f} bits/dim against uniform noise"
    )


def companion_schedule(training: Training, steps: int, batch_size: int) -> Training:
    """How a smaller task beside the model is trained: as the model, but for its length and its batch."""
    return dataclasses.replace(
        training,
        steps=steps,
        batch_size=batch_size,
        steps_per_dispatch=1,
        accumulate_steps=1,
        keep_last=1,
        keep_every_steps=0,
        best_metric="",
    )


def with_dequantiser(estimate: "Estimate", model: "Model") -> "Estimate":
    """An estimate of dequantised data with the learned noise of the run.

    Raises:
      FileNotFoundError: none has been trained.
    """
    workdir = model.workdir
    if not (workdir.path / _ABOUT).is_file():
        raise FileNotFoundError(
            f"--workdir={workdir.path}: holds no learned dequantiser; run --mode=dequantiser first"
        )
    about = read_json(workdir.path / _ABOUT)
    task = Dequantisation(model.architecture, {}, about["width"], about["couplings"])
    shapes = jax.eval_shape(lambda key: task.init({}, key), jax.random.key(0))
    with Checkpoints(workdir.path / _FOLDER / CHECKPOINTS) as checkpoints:
        params = checkpoints.restore_ema(shapes, model.mesh)[1][PART]
    how = f"learned (arXiv:1902.00275), after {about['steps']} steps, SHA-256 {about['sha256']}"
    return dataclasses.replace(
        estimate,
        dequantise=functools.partial(encode, task.density, params, task.levels),
        conventions=estimate.conventions | {"dequantization": how},
    )
