"""Our own format: safetensors with our names, and the config in the metadata."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from score_sde.architecture import Architecture
from score_sde.arrays import HostParams, Params
from score_sde.convert import safetensors
from score_sde.convert.errors import CheckpointError
from score_sde.convert.release import Arrays, Release
from score_sde.data import Spec
from score_sde.experiment.schema import Config
from score_sde.experiment.sections import as_tree
from score_sde.nets import Net, check_spec
from score_sde.nets.official.rows import unflatten

_KEY = "score_sde"


def write(path: Path, config: Config, architecture: Architecture, params: Params, step: int) -> None:
    """Averaged parameters with all that is needed to use them."""
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    tensors = {
        jax.tree_util.keystr(where, simple=True, separator="/"): np.asarray(leaf) for where, leaf in flat
    }
    about = {"config": as_tree(config), "spec": architecture.spec.to_json(), "step": step}
    safetensors.write(path, tensors, {"format": "flax", _KEY: json.dumps(about)})


def read(tensors: dict[str, np.ndarray], metadata: Mapping[str, str]) -> Release:
    """Of the contents of a safetensors file.

    Raises:
      CheckpointError: it is not of this project; does not name the file.
    """
    if _KEY not in metadata:
        raise CheckpointError(
            "safetensors without our config; for a model of diffusers name its folder, which has config.json"
        )
    about = json.loads(metadata[_KEY])
    return Release(
        what="an export of score_sde",
        rename=_nested,
        average=tensors,
        step=int(about["step"]),
        config=about["config"],
        spec=Spec.from_json(about["spec"]),
    )


def _nested(arrays: Arrays, net: Net, shape: tuple[int, ...]) -> HostParams:
    params = unflatten({name: np.asarray(array, np.float32) for name, array in arrays.items()}, "/")
    check_spec(params, jax.eval_shape(lambda: net.init(jax.random.key(0), shape)))
    return params
