"""The files that extractors need, read in place; nothing is downloaded."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from score_sde.convert import inception_graph, safetensors, torch_files
from score_sde.convert.errors import CheckpointError
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.named_extractors import read_npz
from score_sde.experiment.schema import Config, changed


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, of a file of ``torch.save``; executes nothing."""
    tensors = torch_files.read(path)
    if not isinstance(tensors, dict):
        raise CheckpointError(f"holds a {type(tensors).__name__}, not tensors by name")
    return {str(name): np.asarray(value) for name, value in tensors.items()}


READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pth": read_torch,
    ".pt": read_torch,
    ".pb": inception_graph.read,
    ".npz": read_npz,
    ".safetensors": lambda path: safetensors.read(path)[0],
}


def read_weights(path: Path) -> Mapping[str, np.ndarray]:
    """Tensors by name of a weight file of any known kind.

    Raises:
      ValueError: another kind, or damaged.
    """
    if path.suffix not in READERS:
        raise ValueError(
            f"evaluate.features.weights = {str(path)!r}: cannot read {path.suffix!r}; known are "
            f"{', '.join(READERS)}"
        )
    try:
        return READERS[path.suffix](path)
    except CheckpointError as error:
        raise ValueError(
            f"evaluate.features.weights = {str(path)!r}: not a readable file: {error}"
        ) from error


def make_extractor(config: Config, workdir: Path, name: str | None = None) -> Extractor:
    """The extractor that ``config.evaluate.features`` names, or another with its defaults.

    Raises:
      ConfigError, FileNotFoundError, ValueError: a file that is missing or not right.
    """
    features = config.evaluate.features
    if name not in (None, features.name):
        features = changed(config, {"evaluate.features": name}).evaluate.features
    return features.build(read=read_weights, workdir=workdir, batch_size=config.evaluate.batch_size)
