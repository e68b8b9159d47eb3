"""The pictures that ``--input`` of ``--mode=edit`` names."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from score_sde.conditions import Json
from score_sde.data import images, listing
from score_sde.names import ConfigError, printable
from score_sde.runs.edit import Editor, Shape
from score_sde.runs.examples import array_key
from score_sde.runs.inputs import Inputs, open_inputs, to_user

ARRAYS = (".npz", ".npy")
_HELP = "; --fit=crop scales a file and cuts its middle, --fit=squash scales both of its sides freely"


@dataclass(frozen=True)
class Named:
    """A picture that has been found, and is read when it is wanted.

    Attributes:
      title: for messages.
      about: what identifies it, for records of what was made of it.
      read: uint8 ``(H, W, C)``, of a shape that the edit takes.
    """

    title: str
    about: Json
    read: Callable[[], np.ndarray]


def find_pictures(words: str, editor: Editor) -> list[Named]:
    """Pictures of words with commas between: numbers of examples, files, arrays of pictures, and folders.

    A folder stands for all pictures in it and below, in natural order: ``2.png`` comes before ``10.png``.
    Sizes are looked up here, so that a wrong one is found before any work.

    Raises:
      ConfigError: names the word and what is wrong with it.
    """
    names = [word.strip() for word in words.split(",") if word.strip()]
    if not names:
        raise ConfigError(
            f"--input={words}: names nothing; write numbers, files or folders, with commas between"
        )
    found, opened = [], _Opened(editor)
    for name in names:
        found += _find(name, editor, opened)
    return found


class _Opened:
    """The examples of the data, opened when the first of their numbers is named."""

    def __init__(self, editor: Editor):
        self._editor, self._inputs = editor, None

    @property
    def inputs(self) -> Inputs:
        if self._inputs is None:
            self._inputs = open_inputs(self._editor.model.workdir, None, self._editor.section.split, None)
        return self._inputs


def _find(word: str, editor: Editor, opened: _Opened) -> Iterator[Named]:
    where, path = f"--input: {word!r}", Path(word).expanduser()
    if word.isdigit() and not path.exists():
        yield _example(int(word), where, editor, opened.inputs)
    elif path.is_dir():
        yield from _folder(path, where, editor)
    elif path.is_file() and path.suffix in ARRAYS:
        yield from _array(path, where, editor)
    elif path.is_file():
        yield _file(path, where, editor)
    else:
        raise ConfigError(f"{where}: neither a file, a folder nor the number of an example")


def _example(number: int, where: str, editor: Editor, inputs: Inputs) -> Named:
    if number >= len(inputs):
        raise ConfigError(f"{where}: {inputs.name} holds the examples 0 to {len(inputs) - 1}")
    editor.check(inputs.spec.shape, where)

    def read() -> np.ndarray:
        return to_user(inputs.read(np.array([number]))["x"], inputs.spec)[0]

    return Named(str(number), [inputs.name, number], read)


def _folder(path: Path, where: str, editor: Editor) -> Iterator[Named]:
    try:
        names = listing.images_below(path)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if not names:
        raise ConfigError(f"{where}: no pictures in it or its sub-folders")
    for name in sorted(names, key=natural):
        yield _file(path / name, where, editor)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key of names that counts: ``a2`` is before ``a10``."""
    parts = re.split(r"(\d+)", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts if part]


def _file(path: Path, where: str, editor: Editor) -> Named:
    title = printable(str(path))
    target, fit = editor.taken[0], editor.section.fit
    limit = editor.model.config.data.source.options.get("max_pixels")
    try:
        size = images.upright_size(str(path), limit)
        about: Json = [str(path), path.stat().st_size, path.stat().st_mtime_ns]
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise ConfigError(f"{where}: {title} cannot be used: {error}") from error
    own: Shape = (*size, target[-1])
    if fit == "none":
        editor.check(own, f"{where}: {title}", _HELP)

    def read() -> np.ndarray:
        try:
            image = images.load(str(path), target[-1], limit)
            return images.fit(image, None if own in editor.taken else (target[0], target[1]), fit)
        except Exception as error:
            raise ConfigError(f"{where}: {title} cannot be used: {error}") from error

    return Named(title, about, read)


def _array(path: Path, where: str, editor: Editor) -> Iterator[Named]:
    try:
        opened = np.load(path, mmap_mode="r")
        rows = opened if isinstance(opened, np.ndarray) else opened[array_key(path)]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{where}: cannot be used: {error}") from error
    if rows.dtype != np.uint8 or rows.ndim < 3:
        raise ConfigError(
            f"{where}: holds {rows.dtype} of shape {rows.shape}: must be uint8 pictures (N, H, W, C)"
        )
    rows = rows[..., None] if rows.ndim == 3 else rows
    editor.check(rows.shape[1:], where)
    about = [str(path), path.stat().st_size, path.stat().st_mtime_ns]
    for i in range(len(rows)):
        yield Named(f"{path}[{i}]", [*about, i], partial(rows.__getitem__, i))
