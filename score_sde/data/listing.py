"""Which image files a folder holds, in which split and class."""

import hashlib
import os
from pathlib import Path

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
            raise ValueError(
                f"data.source.held_out = {held_out}: leaves none of the {len(every)} images in {root} for"
                f" the {split} split; change it, or make train/ and test/ sub-folders"
            )
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
    from PIL import Image

    Image.preinit()  # the common formats first: Image.open tries plugins in order of registration
    suffixes = tuple(
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_STILLS
    )
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        relative = Path(folder).relative_to(root)
        found += [
            (relative / name).as_posix()
            for name in names
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    return sorted(found)


def _classes(files: list[str]) -> list[str]:
    return sorted({name.split("/", 1)[0] for name in files if "/" in name})


def _is_held_out(name: str, fraction: float) -> bool:
    """A file's split depends on its own name only: adding files never moves another across."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _glance(root: Path) -> str:
    names = sorted(entry.name for entry in root.iterdir())
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
