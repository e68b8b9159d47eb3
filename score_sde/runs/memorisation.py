"""Whether samples repeat training examples: the nearest of them, as numbers and as a picture."""

from pathlib import Path

import numpy as np

from score_sde.conditions import Json
from score_sde.data import Spec
from score_sde.evaluate.examples import Examples
from score_sde.evaluate.neighbours import nearest_examples
from score_sde.images import pictures
from score_sde.runs.references import of_split
from score_sde.runs.workdir import Workdir
from score_sde.runtime.files import writable
from score_sde.runtime.processes import is_chief, say

_ROWS, _NEAREST, _BATCH = 8, 5, 1000


def memorisation(workdir: Workdir, samples: np.ndarray) -> dict[str, Json]:
    """Distances of samples to the training set, beside those of as many held-out examples.

    Writes ``neighbours.png`` into the workdir, where that can be written: each row is a sample and its
    nearest training examples.  Without the data, an empty result and a line that says so.

    Args:
      samples: the first few, as ``Examples`` gives them.
    """
    try:
        train, held_out = of_split(workdir, "train"), of_split(workdir, "test")
    except (ValueError, OSError, ImportError) as error:
        say(f"no search for memorised examples, the data cannot be read: {error}")
        return {}
    if train.shape != samples.shape[1:] or train.dtype != samples.dtype:
        return {}
    near = nearest_examples(samples, train.batches(_BATCH), min(_NEAREST, len(train)))
    others = held_out.read(np.arange(min(len(samples), len(held_out))))
    usual = nearest_examples(others, train.batches(_BATCH), 1)
    picture = workdir.path / "neighbours.png"
    if is_chief() and writable(picture):
        _draw(picture, train, samples, near.number)
    return {
        "nearest_training_rms": float(near.distance[:, 0].mean()),
        "nearest_training_rms_of_held_out": float(usual.distance[:, 0].mean()),
        "exact_copies": int((near.distance[:, 0] < 1e-6).sum()),
        "searched": len(samples),
    }


def _draw(path: Path, train: Examples, samples: np.ndarray, index: np.ndarray) -> None:
    spec = Spec(train.shape, 256 if train.dtype == np.uint8 else None)
    if not pictures.is_picture(spec.shape, spec.grey_levels):
        return
    rows = [
        np.concatenate([samples[i : i + 1], train.read(index[i])]) for i in range(min(_ROWS, len(samples)))
    ]
    picture = pictures.grid(np.concatenate(rows), columns=1 + index.shape[1])
    picture.save(path)
