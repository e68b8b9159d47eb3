"""``--mode=classifier``: features of the user's own data."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_sde.conditions import first_class
from score_sde.evaluate.extractors import as_input, values_of
from score_sde.experiment.assemble import data_name, open_source
from score_sde.flags import Options
from score_sde.modes.examples import Examples
from score_sde.modes.workdir import is_chief, say
from score_sde.names import ConfigError
from score_sde.nets import digest
from score_sde.nets.classifier import Classifier
from score_sde.runtime.progress import Progress
from score_sde.train.classifier import accuracy, fit_classifier


def classifier(options: Options) -> int:
    """Fit a classifier to the labelled training split and write it with its held-out accuracy and SHA-256."""
    config = options.config.classifier
    output = options.workdir / "classifier.npz" if options.output is None else Path(options.output)
    if output.suffix != ".npz":
        raise ConfigError(f"--output={output}: a classifier is a .npz")
    source, held_out = open_source(options.config, "train"), open_source(options.config, "test")
    net = Classifier(config.widths, source.spec.num_classes)
    examples = Examples(source, data_name(options.config))
    read, read_test = labelled(source), labelled(held_out)

    def prepare(x: Any) -> Any:
        return as_input(x, examples.dtype)

    with Progress(config.steps, "classifier", "step", quiet=not is_chief()) as progress:
        params = fit_classifier(
            net,
            read,
            len(source),
            examples.shape,
            prepare=prepare,
            steps=config.steps,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            seed=options.config.seed,
            note=lambda step, loss: progress.update(step, f"loss {loss:.4g}"),
        )
    right = accuracy(net, params, read_test, len(held_out), prepare=prepare, batch_size=config.batch_size)
    meta = {
        **dataclasses.asdict(net),
        "shape": list(examples.shape),
        "values": values_of(examples.dtype),
        "data": examples.name,
        "steps": config.steps,
        "seed": options.config.seed,
        "held_out_accuracy": right,
        "held_out_examples": len(held_out),
        "sha256": digest(params),
    }
    if is_chief():
        _save(output, params, meta)
    say(
        f"classifier in {output}: held-out accuracy {right:.4f} on {len(held_out)} examples, "
        f"SHA-256 {meta['sha256']}"
    )
    return 0


def labelled(source: Any) -> Any:
    """A function from indices to values 0..255 (or float data) and classes.

    Raises:
      ValueError: an example without a class, when it is read.
    """
    examples, found = Examples(source, ""), first_class(source.spec.conditions)

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raw = source.read(indices)
        if found is None or (raw[found[0]] < 0).any():
            raise ValueError("--mode=classifier: the data have examples without a class")
        return examples.pictures(raw["x"]), raw[found[0]]

    return read


def _save(path: Path, params: Any, meta: dict[str, Any]) -> None:
    flat = {
        jax.tree_util.keystr(where, simple=True, separator="/"): np.asarray(leaf)
        for where, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp.npz")
    np.savez(fresh, **flat, meta=json.dumps(meta))  # type: ignore[arg-type]
    os.replace(fresh, path)
