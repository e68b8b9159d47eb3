"""Examples for a trained model to look at: of the data, of a folder or file, or single pictures."""

import dataclasses
from pathlib import Path

import numpy as np

from score_sde.data import ArrayFile, Folder, Source, Spec, images
from score_sde.experiment.assemble import data_name, open_source
from score_sde.experiment.run_sections import Data
from score_sde.flags import Options
from score_sde.modes.examples import array_key
from score_sde.modes.workdir import drawable
from score_sde.names import ConfigError


class Inputs:
    """A source whose raw examples have the shape and the levels that a model was trained on.

    Pictures of another number of levels, such as those of files, are brought to the model's.

    Args:
      source: where the examples come from.
      spec: of the model's data.
      name: for messages and reports.
      count: the first so many count; None: all.

    Raises:
      ValueError: examples of another shape, or continuous where the model's are integers or the reverse.
    """

    def __init__(self, source: Source, spec: Spec, name: str, count: int | None = None):
        got = source.spec
        if got.shape != spec.shape or (got.levels is None) != (spec.levels is None):
            kinds = ["float32" if s.levels is None else "uint8" for s in (got, spec)]
            raise ValueError(
                f"{name}: holds {kinds[0]} examples of shape {got.shape}, the model takes {kinds[1]} of "
                f"shape {spec.shape}"
            )
        self._source, self._levels = source, got.levels
        self._count = len(source) if count is None else min(count, len(source))
        self.spec, self.name = dataclasses.replace(spec, num_classes=got.num_classes), name

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, *shape), "label": (n,)}``."""
        batch = self._source.read(indices)
        return {**batch, "x": to_levels(batch["x"], self._levels, self.spec)}

    def title(self, i: int) -> str:
        """The file, or the number, of an example."""
        files = getattr(self._source, "files", None)
        return str(i) if files is None else str(files[i])


def to_levels(x: np.ndarray, levels: int | None, spec: Spec) -> np.ndarray:
    """Pictures of ``levels`` levels as pictures of the spec's; what is no picture stays as it is."""
    if levels is None or spec.levels is None or levels == spec.levels or not drawable(spec):
        return x
    return np.rint(x * ((spec.levels - 1) / (levels - 1))).astype(np.uint8)


def open_inputs(options: Options, spec: Spec, split: str, count: int | None) -> Inputs:
    """What ``--samples`` names, or else a split of the data.

    Args:
      spec: of the model's data.
      split: "train" or "test".
      count: the first so many; None: all.

    Raises:
      ValueError: nothing usable there; names the path.
    """
    if options.samples is None:
        source = open_source(options.config, split)
        return Inputs(source, spec, f"{data_name(options.config)} ({split})", count)
    return open_files(options.samples, spec, options.config.data, count)


def open_files(path: str, spec: Spec, data: Data, count: int | None = None) -> Inputs:
    """A folder of pictures, brought to the model's size, or a .npz or .npy of examples.

    Args:
      data: a section of the config, of whose source ``resize``, ``on_error`` and ``channels_last`` count.

    Raises:
      ValueError: what is wrong, with the name of the path.
    """
    where, place = f"--samples={path}", Path(path).expanduser()
    try:
        source: Source
        if place.is_dir():
            if not drawable(spec):
                raise ValueError(f"the model's examples, of shape {spec.shape}, are no pictures; use a .npz")
            source = Folder(
                "train",
                place,
                size=(spec.shape[0], spec.shape[1]),
                channels=spec.shape[2],
                resize=data.source.options.get("resize", "crop"),
                held_out=0.0,
                on_error=data.source.options.get("on_error", "raise"),
            )
        else:
            levels = None if drawable(spec) else spec.levels  # files hold pictures of 256 levels
            source = ArrayFile(
                "train",
                place,
                held_out=0.0,
                levels=levels,
                key=array_key(place),
                channels_last=data.source.options.get("channels_last"),
            )
        return Inputs(source, spec, path, count)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


class Picked:
    """The examples that ``--images`` names: numbers in the inputs, or files of pictures.

    Attributes:
      name: None, as they are no set of their own.
      titles: of each.
      numbers: in the inputs, ``(n,)``; -1 for a file.

    Raises:
      ConfigError: a number that the inputs do not have, or a file that cannot be used.
    """

    name = None

    def __init__(self, words: str, inputs: Inputs, data: Data):
        self.spec, self.titles = inputs.spec, [word.strip() for word in words.split(",") if word.strip()]
        if not self.titles:
            raise ConfigError(f"--images={words}: names nothing; write numbers or files, with commas between")
        rows = [_pick(word, inputs, data) for word in self.titles]
        self.numbers = np.array([number for number, _, _ in rows])
        self._x = np.stack([x for _, x, _ in rows])
        self._label = np.array([label for _, _, label in rows], np.int32)

    def __len__(self) -> int:
        return len(self.titles)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``{"x": (n, *shape), "label": (n,)}``; a file has the label -1."""
        return {"x": self._x[indices], "label": self._label[indices]}


def _pick(word: str, inputs: Inputs, data: Data) -> tuple[int, np.ndarray, int]:
    where, spec = f"--images: {word!r}", inputs.spec
    if word.isdigit() and not Path(word).exists():
        if int(word) >= len(inputs):
            raise ConfigError(f"{where}: {inputs.name} holds the examples 0 to {len(inputs) - 1}")
        batch = inputs.read(np.array([int(word)]))
        return int(word), batch["x"][0], int(batch["label"][0])
    if not drawable(spec):
        raise ConfigError(
            f"{where}: examples of shape {spec.shape} are no pictures; name numbers of examples"
        )
    path = Path(word).expanduser()
    if not path.is_file():
        raise ConfigError(f"{where}: neither a file nor a number of an example from 0 to {len(inputs) - 1}")
    try:
        resize = data.source.options.get("resize", "crop")
        image = images.fit(images.load(str(path), spec.shape[2]), (spec.shape[0], spec.shape[1]), resize)
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise ConfigError(f"{where}: cannot be used: {error}") from error
    return -1, to_levels(image[None], 256, spec)[0], -1
