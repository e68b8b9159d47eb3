"""Files of a run: JSON, each there whole or not at all, and places that can be written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty or torn file, or one of something else; names it.
    """
    text = path.read_bytes()
    try:
        value = json.loads(text)
    except ValueError as error:  # of JSON, or of UTF-8
        what = "is empty" if not text.strip() else f"is torn, or no JSON: {error}"
        raise ValueError(f"{path}: {what}; restore it, or remove it if it can be made again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds {type(value).__name__}, expected a JSON object")
    return value


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    os.replace(fresh, path)


def check_writable(path: Path, flag: str = "--output") -> None:
    """Refuse a place where nothing can be written, before any work is done for it.

    Args:
      path: of a file, or of a folder that files are put into; it and folders above it need not be there.
      flag: that names another place.

    Raises:
      ValueError: names the folder that cannot be written, or what is no folder.
    """
    there = _existing(path)
    if not there.is_dir():
        raise ValueError(f"{flag}={path}: {there} is no folder; name another place")
    if not writable(path):
        raise ValueError(f"{flag}={path}: {there} cannot be written; name another place with {flag}=PATH")


def writable(path: Path) -> bool:
    """Whether a file, or the files of a folder, can be written there."""
    there = _existing(path)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _existing(path: Path) -> Path:
    """The folder that there is of those that a file would lie in."""
    there = path.absolute()
    there = there if there.is_dir() else there.parent
    while not there.exists():
        there = there.parent
    return there
