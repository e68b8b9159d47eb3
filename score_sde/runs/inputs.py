"""Examples for a trained model to look at: of the data, of a folder or file, or single pictures."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from score_sde.codecs import picture_values
from score_sde.conditions import Condition, Conditions, Value, first_class
from score_sde.data import ArrayFile, Folder, Source, Spec, images
from score_sde.experiment.run_sections import Data
from score_sde.images.pictures import is_picture
from score_sde.names import ConfigError, printable
from score_sde.runs.examples import array_key
from score_sde.runs.workdir import Workdir


class Inputs:
    """A source whose raw examples have the shape and the grey levels that a model was trained on.

    Pictures of another number of grey levels, such as those of files, are converted to the model's.

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
        if got.shape != spec.shape or (got.grey_levels is None) != (spec.grey_levels is None):
            kinds = ["float32" if s.grey_levels is None else "uint8" for s in (got, spec)]
            raise ValueError(
                f"{name}: holds {kinds[0]} examples of shape {got.shape}, the model takes {kinds[1]} of "
                f"shape {spec.shape}"
            )
        self._source, self._grey_levels = source, got.grey_levels
        self._count = len(source) if count is None else min(count, len(source))
        self.spec, self.name = dataclasses.replace(spec, conditions=got.conditions), name

    def __len__(self) -> int:
        return self._count

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``spec.fields`` of ``(n, *shape)`` each."""
        batch = self._source.read(indices)
        return {**batch, "x": to_levels(batch["x"], self._grey_levels, self.spec)}

    def title(self, i: int) -> str:
        """The file, or the number, of an example; bytes of a name that are no text are escaped."""
        files = getattr(self._source, "files", None)
        return str(i) if files is None else printable(str(files[i]))


def to_levels(x: np.ndarray, grey_levels: int | None, spec: Spec) -> np.ndarray:
    """Pictures of some grey levels as pictures of the spec's; what is no picture stays as it is."""
    wanted = spec.grey_levels
    if grey_levels is None or wanted is None or grey_levels == wanted or not drawable(spec):
        return x
    return np.rint(x * ((wanted - 1) / (grey_levels - 1))).astype(np.uint8)


def from_user(examples: np.ndarray, spec: Spec) -> np.ndarray:
    """Examples as users have them, uint8 pictures or data in their own units, as raw examples.

    Raises:
      ValueError: another shape or type.
    """
    examples = np.asarray(examples)
    wanted = np.dtype(np.uint8) if drawable(spec) else spec.dtype
    if examples.shape[1:] != spec.shape or not np.can_cast(examples.dtype, wanted, "same_kind"):
        raise ValueError(
            f"examples of shape {examples.shape} and type {examples.dtype}: must be {wanted} of shape "
            f"(N, {', '.join(map(str, spec.shape))})"
        )
    return to_levels(examples.astype(wanted), 256 if drawable(spec) else spec.grey_levels, spec)


def to_user(raw: np.ndarray, spec: Spec) -> np.ndarray:
    """Raw examples as users have them, the inverse of ``from_user``."""
    return np.asarray(picture_values(raw, spec.grey_levels)) if drawable(spec) else raw


def drawable(spec: Spec) -> bool:
    """Whether examples are pictures."""
    return is_picture(spec.shape, spec.grey_levels)


class Conditioned:
    """Examples with the conditions that a model is given.

    A condition that the user fixes has that value.  Others are those of the data; of files they are null,
    as a class of another set may have another number.

    Args:
      conditions: of the model.
      fixed: values by name.
      own: whether the examples are of the data that the model was trained on.
    """

    def __init__(
        self, inputs: "Inputs | Picked", conditions: Conditions, fixed: Mapping[str, Value], own: bool
    ):
        self.spec, self.name = inputs.spec, inputs.name
        self._inputs, self._conditions, self._fixed, self._own = inputs, conditions, dict(fixed), own

    def __len__(self) -> int:
        return len(self._inputs)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``x`` and the conditions of the model, ``(n, *shape)`` each."""
        batch = self._inputs.read(indices)
        return {"x": batch["x"]} | {
            name: self._of(name, condition, batch, len(indices)) for name, condition in self._conditions
        }

    def conditions(self) -> dict[str, np.ndarray]:
        """Conditions of all examples, ``(N, *shape)`` each."""
        return {name: values for name, values in everything(self).items() if name != "x"}

    def _of(self, name: str, condition: Condition, batch: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        if name in self._fixed:
            value = np.asarray(self._fixed[name], condition.dtype)
            return np.broadcast_to(value, (count, *condition.shape))
        return batch[name] if self._own and name in batch else condition.nulls(count)


def everything(examples: "Conditioned | Inputs") -> dict[str, np.ndarray]:
    """All that there is of all examples, by name."""
    spans = [np.arange(i, min(i + 1024, len(examples))) for i in range(0, len(examples), 1024)]
    parts = [examples.read(span) for span in spans]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def classes_of(inputs: "Inputs") -> np.ndarray:
    """Classes of all examples, ``(N,)``; -1 where they have none."""
    found = first_class(inputs.spec.conditions)
    return np.full(len(inputs), -1) if found is None else everything(inputs)[found[0]]


def open_inputs(workdir: Workdir, samples: str | None, split: str, count: int | None) -> Inputs:
    """What ``--samples`` names, or else a split of the data, for the model of a workdir.

    Args:
      split: "train" or "test".
      count: the first so many; None: all.

    Raises:
      ValueError: nothing usable there; names the path.
    """
    spec = workdir.trained_spec
    if samples is not None:
        return open_files(samples, spec, workdir.config.data, count)
    return Inputs(workdir.source(split), spec, workdir.source_name(split), count)


def open_files(path: str, spec: Spec, data: Data, count: int | None = None) -> Inputs:
    """A folder of pictures, resized to the model's size, or a .npz or .npy of examples.

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
                max_pixels=data.source.options.get("max_pixels"),
            )
        else:
            grey_levels = None if drawable(spec) else spec.grey_levels  # files hold pictures of 256 levels
            source = ArrayFile(
                "train",
                place,
                held_out=0.0,
                grey_levels=grey_levels,
                key=array_key(place),
                channels_last=data.source.options.get("channels_last"),
            )
        return Inputs(source, spec, path, count)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


class Picked:
    """The examples that ``--images``, or another flag, names: numbers in the inputs, or files of pictures.

    Attributes:
      name: None, as they are no set of their own.
      titles: of each.
      numbers: in the inputs, ``(n,)``; -1 for a file.

    Raises:
      ConfigError: a number that the inputs do not have, or a file that cannot be used.
    """

    name = None

    def __init__(self, words: str, inputs: Inputs, data: Data, flag: str = "--images"):
        self.spec, self.titles = inputs.spec, [word.strip() for word in words.split(",") if word.strip()]
        if not self.titles:
            raise ConfigError(f"{flag}={words}: names nothing; write numbers or files, with commas between")
        rows = [_pick(word, inputs, data, flag) for word in self.titles]
        self.numbers = np.array([number for number, _ in rows])
        self._batch = {name: np.stack([row[name] for _, row in rows]) for name in self.spec.fields}

    def __len__(self) -> int:
        return len(self.titles)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``spec.fields`` of ``(n, *shape)`` each; of a file nothing but ``x`` is known."""
        return {name: values[indices] for name, values in self._batch.items()}


def _pick(word: str, inputs: Inputs, data: Data, flag: str) -> tuple[int, dict[str, np.ndarray]]:
    where, spec = f"{flag}: {word!r}", inputs.spec
    if word.isdigit() and not Path(word).exists():
        if int(word) >= len(inputs):
            raise ConfigError(f"{where}: {inputs.name} holds the examples 0 to {len(inputs) - 1}")
        batch = inputs.read(np.array([int(word)]))
        return int(word), {name: values[0] for name, values in batch.items()}
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
    nulls = {name: condition.null for name, condition in spec.conditions}
    return -1, {"x": to_levels(image[None], 256, spec)[0], **nulls}
