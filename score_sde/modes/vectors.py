"""Vectors by which examples can be searched: codes, features of the network or of an extractor, one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax import Array

from score_sde.codecs import NO_PARAMS
from score_sde.conditions import Cond
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.noisy_features import choose_layer, layer_shapes, noisy_features, pooled
from score_sde.flags import Options
from score_sde.modes.coder import Coder
from score_sde.modes.encode import shown
from score_sde.modes.inputs import Inputs, Picked
from score_sde.modes.weights import EXTRACTORS
from score_sde.modes.workdir import drawable
from score_sde.names import ConfigError

Examples = Inputs | Picked
Vectors = Callable[[Examples], np.ndarray]  # examples to (N, d)


def of_codes(options: Options, coder: Coder, log_snr: float) -> Vectors:
    """Codes, flattened."""

    def vectors(examples: Examples) -> np.ndarray:
        keep = _keep(examples, "codes without conditions")
        code = coder.run(coder.encode_unconditionally, examples, "codes", keep=keep)["code"]
        return code.reshape(len(code), -1)

    return vectors


def of_network(options: Options, coder: Coder, log_snr: float) -> Vectors:
    """Feature maps of the network at a noise level, averaged over parts of the picture.

    Raises:
      ConfigError: a layer that the network does not have.
    """
    experiment, config = coder.experiment, options.config.search
    seed = options.config.seed if options.seed is None else options.seed

    try:
        shapes = layer_shapes(experiment.bind(coder.params, {}), experiment.state_shape)
        layer = choose_layer(shapes, config.layer)
    except ValueError as error:
        raise ConfigError(f"config.search.{error}") from error

    def features(params: Any, raw: Array, cond: Cond) -> dict[str, Array]:
        denoiser, x0 = experiment.bind(params, {}), experiment.codec.middle(NO_PARAMS, raw)
        maps = noisy_features(denoiser, x0, log_snr, layer, seed=seed, draws=config.draws)
        return {"features": pooled(maps, config.cells)}

    def vectors(examples: Examples) -> np.ndarray:
        keep = _keep(examples, "features", log_snr, layer, config.cells, config.draws, seed)
        title = f"features at log-SNR {log_snr:g}"
        return coder.run(features, examples, title, batch_size=config.batch_size, keep=keep)["features"]

    return vectors


def of_pixels(options: Options, coder: Coder, log_snr: float) -> Vectors:
    """The values of the examples themselves."""

    def vectors(examples: Examples) -> np.ndarray:
        x = np.concatenate(list(_batches(examples, 1024)))
        return x.reshape(len(x), -1).astype(np.float32)

    return vectors


def of_extractor(make: Callable[[Options], Extractor]) -> Callable[[Options, Coder, float], Vectors]:
    """Features of an extractor of ``--mode=evaluate``, which ``config.evaluate`` describes."""

    def of(options: Options, coder: Coder, log_snr: float) -> Vectors:
        extractor, spec = make(options), coder.experiment.spec
        extractor.protocol(spec.shape, spec.dtype)  # refuses what it cannot take

        def vectors(examples: Examples) -> np.ndarray:
            batches = _batches(examples, options.config.search.batch_size)
            raw = (shown(spec, x) if drawable(spec) else x for x in batches)
            return np.concatenate([extractor(x).features for x in raw])

        return vectors

    return of


def of_file(options: Options, coder: Coder, log_snr: float) -> Vectors:
    """Anyone's vectors, one for each example that is searched: ``config.search.file``.

    Raises:
      ConfigError: no such file, or not vectors.
    """
    name = options.config.search.file
    if not name:
        raise ConfigError(
            "config.search.features = 'file': name a .npy of vectors (N, d), one for each example that is "
            "searched: --config.search.file=FILE"
        )
    try:
        known = np.load(Path(name).expanduser(), allow_pickle=False)
        if not isinstance(known, np.ndarray) or known.ndim < 2 or not np.issubdtype(known.dtype, np.number):
            raise ValueError("not an array (N, d) of numbers")
    except Exception as error:
        raise ConfigError(f"config.search.file = {name!r}: {error}") from error

    def vectors(examples: Examples) -> np.ndarray:
        if len(known) != len(examples):
            raise ConfigError(
                f"config.search.file = {name!r}: holds {len(known)} vectors for {len(examples)} examples"
            )
        return known.reshape(len(known), -1).astype(np.float32)

    return vectors


def _keep(examples: Examples, *what: Any) -> list[Any] | None:
    """Under what results are kept; those of single pictures are not."""
    return None if examples.name is None else [*what, examples.name, len(examples)]


def _batches(examples: Examples, size: int) -> Any:
    for start in range(0, len(examples), size):
        yield examples.read(np.arange(start, min(start + size, len(examples))))["x"]


# (options, coder, log_snr) -> Vectors
VECTORS: dict[str, Callable[[Options, Coder, float], Vectors]] = {
    "codes": of_codes,
    "network": of_network,
    "pixels": of_pixels,
    "classifier": of_extractor(EXTRACTORS["classifier"]),
    "inception": of_extractor(EXTRACTORS["inception"]),
    "file": of_file,
}
