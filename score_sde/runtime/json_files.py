"""JSON files, each there whole or not at all."""

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
