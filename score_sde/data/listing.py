"""Which image files a folder holds, in which split and class."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from score_sde.data.base import none_left

_TEST_NAMES = ("test", "validation", "valid", "val")
_NOT_STILLS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}  # stubs, video, vector


def list_images(
    path: str | os.PathLike[str], split: str, held_out: float
) -> tuple[Path, list[str], list[str]]:
    """The files of one split.

    Args:
      path: a folder of images, of class folders, or of ``train`` and ``test`` folders of either.
      split: ``"train"`` or ``"test"``.
      held_out: fraction of the files that make up the test split where there is no such folder.

    Returns:
      (root, sorted POSIX names relative to root, sorted class names or ``[]``).  Classes are
      those of both splits, so that a label means the same in each.

    Raises:
      ValueError: naming ``data.source.path`` or ``data.source.held_out``: missing, not a folder, no images,
        an empty split, or images both beside and inside class folders.
    """
    top = Path(path).expanduser()
    if not top.exists():
        raise ValueError(f"data.source.path = {str(path)!r}: no such folder (looked in {top.absolute()})")
    if not top.is_dir():
        raise ValueError(f"data.source.path = {str(path)!r}: must be a folder of images, not a file")
    train = top / "train"
    tests = [top / name for name in _TEST_NAMES if (top / name).is_dir()]
    if train.is_dir() and tests:
        root = train if split == "train" else tests[0]
        files = _walk(root)
        classes = sorted({name for folder in (train, tests[0]) for name in _classes(_walk(folder))})
    else:
        root = train if train.is_dir() else top
        every = _walk(root)
        classes = _classes(every)
        files = [name for name in every if _is_held_out(name, held_out) == (split == "test")]
        if every and not files:
            whole = f"{len(every)} images in {root}"
            raise ValueError(none_left(held_out, whole, split, "make train/ and test/ sub-folders"))
    if not files:
        raise ValueError(
            f"data.source.path = {str(path)!r}: no images in {root} or its sub-folders (any format Pillow"
            f" reads: .png, .jpg, .webp, ...); it holds {_glance(root)}"
        )
    strays = [name for name in files if "/" not in name]
    if classes and strays:
        raise ValueError(
            f"data.source.path = {str(path)!r}: {root} has class folders ({', '.join(classes[:3])}, ...)"
            f" and {len(strays)} images beside them, such as {strays[0]}; move them into a class"
        )
    return root, files, classes


def _walk(root: Path) -> list[str]:
    """Images below a folder, as POSIX names relative to it, sorted.

    Links to folders elsewhere are followed, each place once; those to a folder within, or to one around it,
    are not.  A link that leads nowhere is listed, so that it is reported like any other file that cannot be
    read; pipes, sockets and devices are not.

    Raises:
      ValueError: a folder that cannot be read; names it.
    """
    from PIL import Image

    Image.preinit()  # the common formats first: Image.open tries plugins in order of registration
    suffixes = tuple(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_STILLS
    )
    return sorted(_scan(str(root), "", os.path.realpath(root), set(), suffixes))


def _scan(folder: str, relative: str, root: str, seen: set[str], suffixes: tuple[str, ...]) -> Iterator[str]:
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"data.source.path: cannot look into {folder}: {reason}") from error
    for entry in entries:
        if entry.name.startswith((".", "__MACOSX")):
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder, is_file = False, False
        if is_folder:
            if not entry.is_symlink() or _leads_out(entry.path, root, seen):
                yield from _scan(entry.path, f"{relative}{entry.name}/", root, seen, suffixes)
        elif entry.name.lower().endswith(suffixes) and (is_file or not os.path.exists(entry.path)):
            yield relative + entry.name


def _leads_out(link: str, root: str, seen: set[str]) -> bool:
    """Whether a link leads out of the folder, and to a place where no other has led."""
    place = os.path.realpath(link)
    around = os.path.commonpath([root, place])
    if around in (root, place) or place in seen:
        return False
    seen.add(place)
    return True


def _classes(files: list[str]) -> list[str]:
    return sorted({name.split("/", 1)[0] for name in files if "/" in name})


def _is_held_out(name: str, fraction: float) -> bool:
    """A file's split depends on its own name only: adding files never moves another across."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _glance(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"


def images_below(path: str | os.PathLike[str]) -> list[str]:
    """All images below a folder, as POSIX names relative to it, sorted, without regard to splits and classes.

    Raises:
      ValueError: a folder that cannot be read; names it.
    """
    return _walk(Path(path).expanduser())
