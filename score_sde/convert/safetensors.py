"""Files of safetensors: named arrays and a mapping of text, by the library of the format.

Format: https://github.com/huggingface/safetensors.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # noqa: F401  makes "bfloat16" a dtype of numpy, by which the library asks for it
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from score_sde.convert.errors import CheckpointError


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of a file by name, and its metadata.

    Raises:
      CheckpointError: it is cut off, damaged, of another format, or has a dtype that numpy lacks; does not
        name the file.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            return {name: _tensor(file, name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"cut off, damaged or no safetensors: {error}") from error


def _tensor(file: safe_open, name: str) -> np.ndarray:
    try:
        return file.get_tensor(name)
    except (AttributeError, KeyError, TypeError) as error:
        dtype = file.get_slice(name).get_dtype()
        raise CheckpointError(f"{name} has the dtype {dtype}, which is not supported") from error


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata, whole or not at all."""
    fresh = path.with_name(path.name + ".tmp")
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}  # it takes no strides
    try:
        save_file(dense, fresh, dict(metadata))
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
