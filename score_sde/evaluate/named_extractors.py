"""Feature extractors by name, with the options of each; files are read in place, nothing is downloaded."""

import importlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from score_sde.arrays import HostParams
from score_sde.evaluate.extractors import (
    INCEPTION_FILE,
    ClassifierFeatures,
    Extractor,
    InceptionFeatures,
    Pixels,
)
from score_sde.names import ConfigError
from score_sde.nets.official.rows import unflatten

# Tensors of a weight file by name.
Read = Callable[[Path], Mapping[str, np.ndarray]]


def pixels() -> Extractor:
    """The values themselves."""
    return Pixels()


def classifier(*, workdir: Path, batch_size: int, weights: str | None = None) -> Extractor:
    """The last hidden layer of a classifier that ``--mode=classifier`` has trained.

    Args:
      workdir: holds it, unless ``weights`` says where it is.
      batch_size: examples computed together, over all devices.
      weights: its file; none: ``classifier.npz`` in the workdir.

    Raises:
      FileNotFoundError, ValueError: no such file, or not a classifier.
    """
    path = Path(weights or workdir / "classifier.npz").expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"evaluate.features = 'classifier': no classifier in {path}; train one on the data with "
            f"--mode=classifier --workdir={workdir}, or name one with --config.evaluate.features.weights=FILE"
        )
    params, meta = load_classifier(path)
    return ClassifierFeatures(params, meta, batch_size)


def inception(
    *, read: Read, batch_size: int, weights: str | None = None, resize: str = "tensorflow"
) -> Extractor:
    """The 2048 features of FID, and the class scores of the Inception Score.

    Args:
      read: a weight file to its tensors.
      batch_size: pictures computed together, over all devices.
      weights: the weight file.
      resize: ``tensorflow``, ``pytorch_fid`` or ``clean``.

    Raises:
      FileNotFoundError, ValueError: no such file, or not these weights.
    """
    return _inception("inception", read, batch_size, weights, resize)


def inception_spatial(
    *, read: Read, batch_size: int, weights: str | None = None, resize: str = "tensorflow"
) -> Extractor:
    """The 2023 features of sFID.

    Args:
      read: a weight file to its tensors.
      batch_size: pictures computed together, over all devices.
      weights: the weight file.
      resize: ``tensorflow``, ``pytorch_fid`` or ``clean``.

    Raises:
      FileNotFoundError, ValueError: no such file, or not these weights.
    """
    return _inception("inception_spatial", read, batch_size, weights, resize)


def _inception(name: str, read: Read, batch_size: int, weights: str | None, resize: str) -> Extractor:
    if not weights:
        raise FileNotFoundError(
            f"evaluate.features = {name!r} needs its weights, which are not part of this package and are "
            f"never downloaded: --config.evaluate.features={name} --config.evaluate.features.weights=FILE, "
            f"where FILE is {INCEPTION_FILE}, or another file with the same tensors"
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"evaluate.features.weights = {weights!r}: no such file; expected {INCEPTION_FILE}"
        )
    try:
        return InceptionFeatures(read(path), resize, batch_size, spatial=name == "inception_spatial")
    except KeyError as error:
        raise ValueError(f"evaluate.features.weights = {weights!r}: not a readable file: {error}") from error


def of_the_user(name: str) -> Extractor:
    """What the function ``module:function`` of the user's own module returns."""
    module, _, function = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"config.evaluate.features = {name!r}: {error}") from error
    extractor: Extractor = make()
    if extractor.name in EXTRACTORS:
        raise ConfigError(
            f"config.evaluate.features = {name!r}: calls itself {extractor.name!r}, as another does"
        )
    return extractor


class ByName(dict[str, Callable[..., Extractor]]):
    """A table that also has the functions of other modules, by names ``module:function``."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and ":" in name)

    def __missing__(self, name: str) -> Callable[..., Extractor]:
        return partial(of_the_user, name)


EXTRACTORS: Mapping[str, Callable[..., Extractor]] = ByName(
    {
        "pixels": pixels,
        "classifier": classifier,
        "inception": inception,
        "inception_spatial": inception_spatial,
    }
)


def load_classifier(path: Path) -> tuple[HostParams, dict[str, Any]]:
    """Parameters and description of a classifier that ``--mode=classifier`` has written.

    Raises:
      ValueError: not such a file.
    """
    try:
        arrays = read_npz(path)
        meta = json.loads(str(arrays.pop("meta")))
    except Exception as error:  # zip, header, key and JSON errors all mean the same here
        raise ValueError(f"{path}: not a classifier of --mode=classifier: {error}") from error
    return unflatten(arrays, "/"), meta


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file}
