"""Files that are there by name and not by content: what a download leaves when it stops half-way."""

from pathlib import Path

from score_sde.convert.errors import CheckpointError


def head_of(path: Path) -> bytes:
    """The first 512 bytes of a file that can be what it is named.

    Raises:
      CheckpointError: a link that leads nowhere, an empty file, a pointer of Git LFS or a web page; names
        the file and says what to do.
    """
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"{path.name} is a link to {path.readlink()}, which is missing: download it again"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path.name} is an empty file: download it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path.name} is a Git LFS pointer, not the file itself: run git lfs pull")
    if head.lstrip()[:40].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path.name} is a web page: the download has failed; fetch the file itself")
    return head
