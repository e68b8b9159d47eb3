"""From a path to an architecture with its training state."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.architecture import Architecture
from score_sde.arrays import HostParams
from score_sde.convert import diffusers, edm, flax_files, own, safetensors, score_sde, torch_files
from score_sde.convert.diffusers_weights import is_weights
from score_sde.convert.errors import CheckpointError
from score_sde.convert.recipes import channels, describe, fitting, is_of, of_kind, only
from score_sde.convert.release import Release, check_claims
from score_sde.convert.whole import head_of
from score_sde.data import Spec
from score_sde.experiment.assemble import architecture_of, optimizer_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import Config, Given, typed
from score_sde.train import TrainState, with_moments

# What a reader trips over when a part of a file is missing or of another kind.
_NONSENSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True)
class Imported:
    """A checkpoint of others as ours.

    Attributes:
      what: the format that it had.
      config: the whole one.
      architecture: what it makes of the data's spec.
      state: step, parameters, their average, and the state of the optimizer.
      moments: whether Adam's moments came with it.
    """

    what: str
    config: Config
    architecture: Architecture
    state: TrainState
    moments: bool


def read(path: str | Path) -> Release:
    """What a file or folder holds, as data; executes nothing.

    Raises:
      FileNotFoundError: there is nothing.
      CheckpointError: no known format, damaged, or unsafe; names the file and the cause.
    """
    path = Path(path)
    if not path.exists() and not path.is_symlink():
        raise FileNotFoundError(f"--checkpoint={path}: no such file")
    try:
        release = _read_file(path)
        check_claims(release)
    except CheckpointError as error:
        raise type(error)(f"{path}: {error}") from error
    except _NONSENSE as error:  # a file of the right format that lacks what its writer always writes
        raise CheckpointError(f"{path}: damaged or foreign ({type(error).__name__}: {error})") from error
    return release


def _read_file(path: Path) -> Release:
    if path.is_dir() or is_weights(path):
        return diffusers.read(path)
    head = head_of(path)
    if head.startswith(b"PK"):
        return score_sde.from_torch(torch_files.read(path))
    if head[257:262] == b"ustar":
        raise CheckpointError("a tar archive, as torch wrote before version 0.2: save it again with torch")
    if head[8:9] == b"{":
        return own.read(*safetensors.read(path))
    if head[:1] == b"\x80" and head[1] in range(2, 6):
        saved = torch_files.read(path)
        return edm.read(saved) if edm.is_snapshot(saved) else score_sde.from_torch(saved)
    if re.match(rb"([\x81-\x8f]|\xde..|\xdf....)[\xa0-\xbf\xd9]", head, re.DOTALL):  # a map from text
        return score_sde.from_flax(flax_files.read(path))
    raise CheckpointError(
        f"no known format (it starts with {head[:8]!r}); known are .pth and .pt of torch, .pkl, "
        ".safetensors, msgpack files of Flax and folders of diffusers"
    )


def config_of(path: str | Path) -> Given:
    """The config that a file itself tells, or that of the only official recipe it fits, if its file is there.

    Raises:
      CheckpointError: the file leaves it open; lists what fits.
    """
    release = read(path)
    if release.config is not None:
        return release.config
    shapes = release.shapes
    file = only(shapes)
    if file is not None and Path(file.partition(":")[0]).is_file():
        return load_file(file)
    raise CheckpointError(
        f"{path}: {release.what} does not say which model it is, so name its config; "
        + describe(shapes, fitting(shapes))
    )


def load(path: str | Path, config: Config | Given | str | Path | None = None) -> Imported:
    """A checkpoint of others as an architecture and its training state.

    Args:
      path: a file, or a folder of diffusers.
      config: typed, or a ConfigDict, or the path of a config file (``FILE.py`` or ``FILE.py:variant``).
        None: what the file tells.

    Raises:
      FileNotFoundError, CheckpointError: as ``read``; also a config that does not fit, naming the first
      parameters
        that differ and both their shapes.
      ConfigError: a config that is wrong by itself.
    """
    release = read(path)
    if isinstance(config, str | Path):
        config = load_file(str(config))
    if not isinstance(config, Config):
        config = typed(config_of(path) if config is None else config)
    architecture, ema = _fit(path, release, config)
    net, shape = architecture.net, architecture.state_shape
    params = ema if release.raw is None else release.rename(release.raw, net, shape)
    params, ema = ({"net": jax.tree.map(jnp.asarray, tree)} for tree in (params, ema))
    opt_state = optimizer_of(config).init(params)
    if release.moments is not None:
        first, second = ({"net": release.rename(tree, net, shape)} for tree in release.moments)
        opt_state = with_moments(opt_state, release.step, first, second)
    elif release.step:
        opt_state = with_moments(opt_state, release.step)
    state = TrainState(jnp.asarray(release.step, jnp.int32), params, ema, opt_state)
    return Imported(release.what, config, architecture, state, release.moments is not None)


def _fit(path: str | Path, release: Release, config: Config) -> tuple[Architecture, HostParams]:
    """The architecture whose network the parameters are of, and the averaged parameters under our names.

    Raises:
      CheckpointError: they are of none, or of several that differ in the size of the images.
    """
    found: list[tuple[Architecture, HostParams]] = []
    errors: list[ValueError] = []
    for specs in _specs(release, config):
        for spec in specs:
            architecture = architecture_of(config, spec)
            try:
                params = release.rename(release.average, architecture.net, architecture.state_shape)
                found.append((architecture, params))
            except ValueError as error:
                errors.append(error)
        if found:
            break
    if not found:
        hint = "" if release.config is not None else "\n" + describe(release.shapes, fitting(release.shapes))
        raise CheckpointError(f"{path}: {release.what} does not fit the config: {_first(errors)}{hint}")
    if len(found) > 1:
        sizes = ", ".join(str(architecture.spec.shape[0]) for architecture, _ in found)
        raise CheckpointError(
            f"{path}: its parameters fit images of {sizes} pixels; say which: --config.data.source.size=..."
        )
    return found[0]


def _first(errors: list[ValueError]) -> str:
    return str(errors[0]) if errors else "no size of images that it can have"


def _specs(release: Release, config: Config) -> Iterator[list[Spec]]:
    """The images that the network may be for, likely ones first: the level of attention shows which.

    Raises:
      CheckpointError: nothing says how large they are.
    """
    if release.spec is not None:
        yield [release.spec]
        return
    source, model = config.data.source.options, config.model.options
    depth = channels(release.shapes) or source.get("channels") or 3
    grey_levels = source.get("grey_levels") or 256
    if source.get("size") is not None:
        size = tuple(np.broadcast_to(source["size"], 2).tolist())
        yield [Spec((*size, depth), grey_levels)]
        return
    fits = fitting(release.shapes)
    of_data = [r for r in fits or of_kind(config.model.name) if is_of(r, str(source.get("dataset", "")))]
    official = {recipe.size for recipe in of_data or fits}
    halvings = len(model.get("ch_mult", (1,))) - 1
    attention = model.get("attn_resolutions", ())
    possible = {size * 2**level for size in attention for level in range(halvings + 1)}
    if not official | possible:
        raise CheckpointError("the size of the images is not known; set --config.data.source.size=...")
    for sizes in (official, possible - official):
        yield [Spec((n, n, depth), grey_levels) for n in sorted(sizes) if n % 2**halvings == 0]
