"""Vectors by which examples can be searched: latents, features of a network, one's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.architecture import codec_params
from score_sde.arrays import Parts
from score_sde.conditions import Cond, Json
from score_sde.evaluate.noisy_features import choose_layer, layer_shapes, noisy_features, pooled
from score_sde.experiment.sections import as_tree
from score_sde.names import ConfigError
from score_sde.runs.extractors import make_extractor
from score_sde.runs.inputs import Inputs, Picked, to_user
from score_sde.runs.inverter import map_with
from score_sde.runs.model import Model

Examples = Inputs | Picked
Vectors = Callable[[Examples], np.ndarray]  # examples to (N, d)
MakeVectors = Callable[[Model, int, float], Vectors]  # of a model, a seed, and a log-SNR


def of_latents(model: Model, seed: int, log_snr: float) -> Vectors:
    """Latents under null conditions, flattened."""
    inverter = model.inverter

    def vectors(examples: Examples) -> np.ndarray:
        keep = _keep(model, examples, inverter.batch_size, "latents", inverter=transport_of(model))
        latent = map_with(model, inverter.encode_without, examples, "latents", keep=keep)["latent"]
        return latent.reshape(len(latent), -1)

    return vectors


def of_network(model: Model, seed: int, log_snr: float) -> Vectors:
    """Feature maps of the network at a noise level, averaged over parts of the picture.

    Raises:
      ConfigError: a layer that the network does not have.
    """
    architecture, config = model.architecture, model.config.search
    try:
        shapes = layer_shapes(architecture.bind(model.parts, {}), architecture.state_shape)
        layer = choose_layer(shapes, config.layer)
    except ValueError as error:
        raise ConfigError(f"config.search.{error}") from error

    def features(parts: Parts, raw: Array, cond: Cond) -> dict[str, Array]:
        denoiser = architecture.bind(parts, {})
        x0 = jnp.asarray(architecture.codec.middle(codec_params(parts), raw))
        maps = noisy_features(denoiser, x0, log_snr, layer, seed=seed, draws=config.draws)
        return {"features": pooled(maps, config.cells)}

    def vectors(examples: Examples) -> np.ndarray:
        what = {"log_snr": log_snr, "layer": layer, "cells": config.cells}
        what |= {"draws": config.draws, "seed": seed}
        keep = _keep(model, examples, config.batch_size, "features", **what)
        title = f"features at log-SNR {log_snr:g}"
        return map_with(model, features, examples, title, batch_size=config.batch_size, keep=keep)["features"]

    return vectors


def of_pixels(model: Model, seed: int, log_snr: float) -> Vectors:
    """The values of the examples themselves."""

    def vectors(examples: Examples) -> np.ndarray:
        x = np.concatenate(list(_batches(examples, 1024)))
        return x.reshape(len(x), -1).astype(np.float32)

    return vectors


def of_extractor(name: str) -> MakeVectors:
    """Features of an extractor, with the options of ``config.evaluate.features`` where that names it."""

    def of(model: Model, seed: int, log_snr: float) -> Vectors:
        extractor, spec = make_extractor(model.config, model.workdir.path, name), model.architecture.spec
        extractor.protocol(spec.shape, spec.dtype)  # refuses what it cannot take

        def vectors(examples: Examples) -> np.ndarray:
            batches = _batches(examples, model.config.search.batch_size)
            return np.concatenate([extractor(to_user(x, spec)).features for x in batches])

        return vectors

    return of


def of_file(model: Model, seed: int, log_snr: float) -> Vectors:
    """Anyone's vectors, one for each example that is searched: ``config.search.file``.

    Raises:
      ConfigError: no such file, or not vectors.
    """
    name = model.config.search.file
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


def transport_of(model: Model) -> dict[str, Json]:
    """What latents depend on besides the model."""
    section = as_tree(model.config.inversion)
    return {"transport": section["transport"], "t_min": section["t_min"]}


def _keep(model: Model, examples: Examples, size: int, kind: str, **what: object) -> str | None:
    """The fingerprint under which results are kept; those of single pictures are not."""
    if examples.name is None:
        return None
    return model.fingerprint(kind=kind, batch=size, name=examples.name, count=len(examples), **what)


def _batches(examples: Examples, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(examples), size):
        yield examples.read(np.arange(start, min(start + size, len(examples))))["x"]


VECTORS: dict[str, MakeVectors] = {
    "latents": of_latents,
    "network": of_network,
    "pixels": of_pixels,
    "classifier": of_extractor("classifier"),
    "inception": of_extractor("inception"),
    "file": of_file,
}
