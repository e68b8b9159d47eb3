"""What is said of mistakes in a config, with hints for what is misspelt."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# Of a member of a table: options that count only where another option has one of some values, or is on, with
# ``bool`` in their place: ``{"snr": ("corrector", ("langevin", "ald"))}``.
When = tuple[str, tuple[object, ...] | type[bool]]
ReadIf = Mapping[str, When]


class ConfigError(ValueError):
    """A mistake in a config; the message names the field, the value and what is allowed."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def printable(name: str) -> str:
    """The name of a file, with what is no text in it as ``\\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def options(make: Callable[..., object], *, given: Iterable[str] = ()) -> dict[str, Any]:
    """Keywords that ``make`` accepts, except ``given``, with their defaults (``inspect._empty`` if none)."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in {*given, "parent", "name"}}


def frozen(value: Any) -> Any:
    """Lists as tuples, all the way down, so that what is built from them can be hashed."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value
