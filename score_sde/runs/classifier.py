"""A classifier of a run's data, trained by the same trainer, and written as one file."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from score_sde.arrays import Parts
from score_sde.conditions import Json, check_meaning, conditions_from_json, conditions_to_json
from score_sde.evaluate.examples import Examples
from score_sde.evaluate.extractors import values_of
from score_sde.nets import digest
from score_sde.runs.dequantiser import companion_schedule
from score_sde.runs.workdir import Workdir
from score_sde.runtime.files import read_json, write_json
from score_sde.runtime.mesh import make_mesh
from score_sde.runtime.processes import is_chief, say
from score_sde.tasks.base import Setting
from score_sde.tasks.classifier import PART, Classification
from score_sde.train import EMAS, OPTIMIZERS, fit

FOLDER = "classifier"
_CONDITIONS = "conditions.json"  # of the data of the training


def train_classifier(workdir: Workdir, output: Path) -> None:
    """Fit a classifier to the training split, or resume; its file has the held-out accuracy and a SHA-256.

    Raises:
      ValueError: data without classes, or with an example that has none.
    """
    config, section = workdir.config, workdir.config.classifier
    source, held_out = workdir.source("train"), workdir.source("test")
    task = Classification(source.spec, tuple(section.widths))
    task.check(source)
    record, name = workdir.path / FOLDER / _CONDITIONS, workdir.source_name("train")
    if record.is_file():
        known = conditions_from_json(read_json(record))
        check_meaning(known, source.spec.conditions, [task.condition], name)
    setting = Setting(source, held_out, make_mesh(), workdir.path / FOLDER, config.seed)
    optimizer = OPTIMIZERS["adam"](
        learning_rate=section.learning_rate, warmup_steps=0, decay_steps=section.steps, clip_norm=0.0
    )
    schedule = companion_schedule(config.training, section.steps, section.batch_size)

    def begin(_: object) -> None:
        if is_chief():
            write_json(record, conditions_to_json(source.spec.conditions))

    ema = EMAS["constant"](decay=0.0)
    state, _, finished = fit(task, setting, optimizer, ema, schedule, begin=begin)
    if not finished:
        return
    right = task.accuracy(state.params, held_out, section.batch_size)
    examples = Examples(source, name)
    params = jax.device_get(state.params[PART])
    about = {
        **dataclasses.asdict(task.net),
        "shape": list(examples.shape),
        "values": values_of(examples.dtype),
        "data": examples.name,
        "steps": section.steps,
        "seed": config.seed,
        "held_out_accuracy": right,
        "held_out_examples": len(held_out),
        "sha256": digest(params),
    }
    if is_chief():
        _save(output, params, about)
    say(
        f"classifier in {output}: held-out accuracy {right:.4f} on {len(held_out)} examples, "
        f"SHA-256 {about['sha256']}"
    )


def _save(path: Path, params: Parts, about: Mapping[str, Json]) -> None:
    flat = {
        jax.tree_util.keystr(where, simple=True, separator="/"): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp.npz")
    np.savez(fresh, **flat, meta=json.dumps(about))  # type: ignore[arg-type]
    os.replace(fresh, path)
