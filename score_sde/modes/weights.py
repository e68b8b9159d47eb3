"""The files that extractors need, read where they lie; nothing is fetched."""

import functools
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.convert import inception_graph, safetensors, torch_files
from score_sde.convert.errors import CheckpointError
from score_sde.evaluate.extractors import (
    INCEPTION_FILE,
    ClassifierFeatures,
    Extractor,
    InceptionFeatures,
    Pixels,
)
from score_sde.flags import Options
from score_sde.names import ConfigError, find


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file}


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


def _pixels(options: Options) -> Extractor:
    return Pixels()


def _classifier(options: Options) -> Extractor:
    config = options.config.evaluate
    path = Path(config.weights or options.workdir / "classifier.npz").expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"evaluate.features = 'classifier': no classifier in {path}; train one on the data with "
            f"--mode=classifier --workdir={options.workdir}, or name one with --config.evaluate.weights=FILE"
        )
    params, meta = load_classifier(path)
    return ClassifierFeatures(params, meta, config.batch_size)


def _inception(options: Options, spatial: bool = False) -> Extractor:
    config = options.config.evaluate
    if not config.weights:
        raise FileNotFoundError(
            f"evaluate.features = {config.features!r} needs its weights, which are not part of this package "
            f"and are never downloaded: --config.evaluate.weights=FILE, where FILE is {INCEPTION_FILE}, or a "
            f"{' or '.join(READERS)} with the same tensors"
        )
    path = Path(config.weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"evaluate.weights = {config.weights!r}: no such file; expected {INCEPTION_FILE}"
        )
    if path.suffix not in READERS:
        raise ValueError(
            f"evaluate.weights = {config.weights!r}: cannot read {path.suffix!r}; known are "
            f"{', '.join(READERS)}"
        )
    try:
        tensors = READERS[path.suffix](path)
        return InceptionFeatures(tensors, config.resize, config.batch_size, spatial=spatial)
    except (KeyError, CheckpointError) as error:
        raise ValueError(f"evaluate.weights = {config.weights!r}: not a readable file: {error}") from error


EXTRACTORS: dict[str, Callable[[Options], Extractor]] = {
    "pixels": _pixels,
    "classifier": _classifier,
    "inception": _inception,
    "inception_spatial": functools.partial(_inception, spatial=True),
}


def make_extractor(options: Options) -> Extractor:
    """The extractor that ``config.evaluate.features`` names, or that ``module:function`` returns.

    Raises:
      ConfigError, FileNotFoundError, ValueError: an unknown name, or a file that is missing or not right.
    """
    name = options.config.evaluate.features
    if ":" in name:
        return _of_the_user(name)
    return find(EXTRACTORS, name, "evaluate.features")(options)


def _of_the_user(name: str) -> Extractor:
    """What the function of the user's own module returns."""
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"config.evaluate.features = {name!r}: {error}") from error
    extractor = make()
    if extractor.name in EXTRACTORS:
        raise ConfigError(
            f"config.evaluate.features = {name!r}: calls itself {extractor.name!r}, as another does"
        )
    return extractor


def load_classifier(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and description of a classifier that ``--mode=classifier`` has written.

    Raises:
      ValueError: not such a file.
    """
    try:
        arrays = read_npz(path)
        meta = json.loads(str(arrays.pop("meta")))
    except Exception as error:  # zip, header, key and JSON errors all mean the same here
        raise ValueError(f"{path}: not a classifier of --mode=classifier: {error}") from error
    params: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, leaf = name.split("/")
        place = params
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = array
    return params, meta
