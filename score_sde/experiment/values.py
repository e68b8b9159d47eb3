"""Values of config fields by their annotated type: read from text, checked, described."""

import math
import os
import types
from collections.abc import Mapping
from typing import Union, get_args, get_origin

import numpy as np

_NAMES: Mapping[object, tuple[str, str]] = {
    bool: ("True or False", "True or False"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "words"),
}
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def alternatives(kind: object) -> tuple[object, ...]:
    """The types of an annotation, those first that refuse more; a path is text."""
    union = get_origin(kind) in (Union, types.UnionType)
    parts = get_args(kind) if union else (kind,)
    parts = tuple(str if part is os.PathLike or get_origin(part) is os.PathLike else part for part in parts)
    order = (None, types.NoneType, bool, int, float)
    ranked = sorted(parts, key=lambda p: order.index(p) if p in order else (98 if p is not str else 99))
    return tuple(dict.fromkeys(ranked))


def optional(kind: object) -> bool:
    """Whether None is a value."""
    return any(part in (None, types.NoneType) for part in alternatives(kind))


def described(kind: object) -> str:
    """What a value has to be, for a message: "whole numbers with commas between, or none"."""
    said = []
    for part in alternatives(kind):
        if part in (None, types.NoneType):
            continue
        said.append(_tuple(part) if get_origin(part) is tuple else _NAMES.get(part, ("a value", "values"))[0])
    return " or ".join([*said, *(["none"] if optional(kind) else [])])


def _tuple(kind: object) -> str:
    args = get_args(kind)
    many = _NAMES.get(args[0], ("", "values"))[1]
    return f"{many} with commas between" if args[-1] is ... else f"{len(args)} {many} with a comma between"


def cast(value: object, kind: object) -> object:
    """A value of Python as the type has it: whole numbers as floats, lists as tuples, one value as a tuple.

    Raises:
      ValueError: what it has to be.
    """
    for part in alternatives(kind):
        try:
            return _cast(value, part)
        except (TypeError, ValueError):
            continue
    raise ValueError(f"must be {described(kind)}")


def _cast(value: object, kind: object) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if kind in (None, types.NoneType):
        if value is not None:
            raise ValueError
        return None
    if get_origin(kind) is tuple:
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        return tuple(map(cast, items, _kinds(kind, len(items))))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind in (bool, int, float, str):
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # type: ignore[arg-type]
            raise ValueError
        return value
    return tuple(value) if isinstance(value, list) else value  # a type that nobody has described


def _kinds(kind: object, count: int) -> tuple[object, ...]:
    """Types of the elements of a tuple of so many."""
    args = get_args(kind)
    if args[-1] is ...:
        return (args[0],) * count
    if len(args) != count:
        raise ValueError
    return args


def read(text: str, kind: object) -> object:
    """The value that a word of the command line means.

    Raises:
      ValueError: what it has to be.
    """
    for part in alternatives(kind):
        try:
            return _read(text, part)
        except ValueError:
            continue
    raise ValueError(f"must be {described(kind)}")


def _read(text: str, kind: object) -> object:
    if kind in (None, types.NoneType):
        if text.lower() != "none":
            raise ValueError
        return None
    if kind is bool:
        if text.lower() not in _TRUTH:
            raise ValueError
        return _TRUTH[text.lower()]
    if kind is int:
        return int(text)
    if kind is float:
        return _cast(float(text), float)
    if get_origin(kind) is tuple:
        inner = text.strip()
        if inner[:1] + inner[-1:] in ("()", "[]"):
            inner = inner[1:-1]
        words = [word.strip().strip("'\"") for word in inner.split(",")]
        words = words[:-1] if not words[-1] else words
        return tuple(map(read, words, _kinds(kind, len(words))))
    return text
