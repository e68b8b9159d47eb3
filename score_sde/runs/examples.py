"""Examples for a score, of a folder of pictures or an array file."""

import zipfile
from pathlib import Path

from score_sde.data import ArrayFile, Folder
from score_sde.evaluate.examples import Examples
from score_sde.experiment.run_sections import Data

_KEYS = ("samples", "arr_0", "x")  # ours, guided-diffusion's, the data sources'


def open_path(flag: str, path: str, data: Data, channels: int) -> Examples:
    """A folder of pictures, or a .npz or .npy of examples.

    Args:
      flag: names the path in messages.
      data: the data section of the config; of its source ``size``, ``resize`` and ``on_error`` count.

    Raises:
      ValueError: what is wrong, with the name of the file.
    """
    where, place = f"--{flag}={path}", Path(path).expanduser()
    source = data.source.options
    try:
        if place.is_dir():
            folder = Folder(
                "train",
                place,
                size=source.get("size"),
                channels=channels,
                resize=source.get("resize", "crop"),
                held_out=0.0,
                on_error=source.get("on_error", "raise"),
            )
            if len(folder) < 2:
                raise ValueError(f"holds one image, {folder.files[0]}; a score needs at least 2")
            return Examples(folder, str(path))
        array = ArrayFile("train", place, held_out=0.0, key=array_key(place))
        if len(array) < 2:
            raise ValueError("holds one example; a score needs at least 2")
        return Examples(array, str(path))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def array_key(path: Path) -> str:
    """The name of the examples in a .npz: a usual one, or that of its first array."""
    names = array_names(path) if path.suffix == ".npz" and path.is_file() else []
    return next((name for name in (*_KEYS, *names) if name in names), "x")


def array_names(path: Path) -> list[str]:
    """Names of the arrays in a .npz.

    Raises:
      ValueError: not a readable .npz; names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not a readable .npz: {error}") from error
