"""Weights in a folder of diffusers: one file or several with an index, in one variant or several.

A name is ``diffusion_pytorch_model``, the variant if there is one (``fp16``, ``non_ema``), and
``safetensors`` or ``bin``.  Weights in several files have an index, a JSON file that says which tensor is in
which of them.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from score_sde.convert import safetensors, torch_files
from score_sde.convert.errors import CheckpointError
from score_sde.convert.whole import head_of

NAME = "diffusion_pytorch_model"
_FILE = re.compile(
    rf"{NAME}(?:\.(?P<variant>[\w-]+))?\.(?P<kind>safetensors|bin)(?P<index>\.index(?:\.(?P<of>[\w-]+))?\.json)?"
)
_SHARD = re.compile(r"-\d+-of-\d+\.")


def is_weights(path: Path) -> bool:
    """Whether a file is one of such weights, by its name and what lies beside it."""
    named = _FILE.fullmatch(path.name) is not None or _SHARD.search(path.name) is not None
    return named and (path.parent / "config.json").is_file()


def choose(folder: Path) -> Path:
    """The file of weights, or the index, that is read when a folder is named.

    That without a variant comes first, and the only variant otherwise; safetensors before ``bin``, and one
    file before several.

    Raises:
      CheckpointError: there are none, or several variants and none without; lists what is there.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is not None and not _SHARD.search(path.name):
            found.setdefault(match["variant"] or match["of"] or "", []).append(path)
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise CheckpointError(
            f"no weights in {folder.name}/: expected {NAME}.safetensors or {NAME}.bin, with a variant such "
            f"as .fp16 before the suffix or an index .index.json after it; it holds {there}"
        )
    if "" not in found and len(found) > 1:
        raise CheckpointError(
            f"{folder.name}/ has the variants {', '.join(found)}; name one: --checkpoint="
            f"{folder.name}/{next(iter(found.values()))[0].name}"
        )
    chosen = found.get("") or next(iter(found.values()))
    return min(chosen, key=lambda path: (".index" in path.name, ".bin" in path.name))


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, or of all files of an index, by name; floating ones as float32.

    Raises:
      CheckpointError: a file that is missing, torn, or outside the folder; a tensor that is missing, there
        twice, or not finite; names it.
    """
    if _SHARD.search(path.name):
        raise CheckpointError(
            f"{path.name} is one of several files of weights: name their index, "
            f"{NAME}.safetensors.index.json, or the folder"
        )
    tensors = _indexed(path) if ".index" in path.name else _file(path)
    for name, tensor in tensors.items():
        if np.issubdtype(tensor.dtype, np.integer):
            continue
        tensors[name] = tensor.astype(np.float32, copy=False)
        if not np.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path.name}: {name} has values that are not finite, as {tensor.dtype}")
    return tensors


def _file(path: Path) -> dict[str, np.ndarray]:
    head_of(path)
    tensors = safetensors.read(path)[0] if path.suffix == ".safetensors" else torch_files.read(path)
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{path.name} holds a {type(tensors).__name__}, not tensors by name")
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _indexed(path: Path) -> dict[str, np.ndarray]:
    head_of(path)
    try:
        where = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(where.values()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path.name} is damaged: no weight_map of tensors and files") from error
    for name in files:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{path.name}: names {name!r}, which is no file of the folder")
        if not (path.parent / name).is_file() and not (path.parent / name).is_symlink():
            raise CheckpointError(f"{path.name}: names {name}, which is missing; get the whole folder again")
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        try:
            own = _file(path.parent / file)
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from error
        _refuse(f"{path.name}: in two files: ", tensors.keys() & own.keys())
        tensors |= own
    _refuse(f"{path.name}: in none of the files: ", where.keys() - tensors.keys())
    _refuse(f"{path.name}: in a file and not in the index: ", tensors.keys() - where.keys())
    return tensors


def _refuse(what: str, names: Iterable[str]) -> None:
    listed = sorted(names)
    if listed:
        raise CheckpointError(what + ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else ""))
