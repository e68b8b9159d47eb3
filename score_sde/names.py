"""Names to objects: entries of tables, options of what they make, and hints for what is misspelt."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A mistake in a config; the message names the field, the value and what is allowed."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def options(make: Callable[..., Any], *, given: Iterable[str] = ()) -> dict[str, Any]:
    """Keywords that ``make`` accepts, except ``given``, with their defaults (``inspect._empty`` if none)."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in {*given, "parent", "name"}}


def find(table: Mapping[str, T], name: Any, field: str) -> T:
    """The entry of a table that the config names.

    Raises:
      ConfigError: there is none; the message lists them.
    """
    if name not in table:
        raise ConfigError(
            f"config.{field} = {name!r} is not one of: {', '.join(table)}{nearest(str(name), table)}"
        )
    return table[name]


def build(make: Callable[..., T], spec: Mapping[str, Any], field: str, **given: Any) -> T:
    """Call ``make`` with the options that ``spec`` holds for it; other entries are not its business.

    Raises:
      ConfigError: a value that ``make`` refuses.
    """
    accepted = options(make, given=given)
    keywords = {key: frozen(value) for key, value in spec.items() if key in accepted}
    try:
        return make(**keywords, **given)
    except (TypeError, ValueError) as error:
        text = str(error)
        raise ConfigError(text if text.startswith(f"{field}.") else f"config.{field}: {text}") from error


def check_fields(spec: Mapping[str, Any], allowed: Iterable[str], field: str) -> None:
    """Refuse an entry that nothing reads.

    Raises:
      ConfigError: names the nearest field that exists.
    """
    allowed = list(allowed)
    for key in spec:
        if key not in allowed:
            where = f"config.{field}" if field else "config"
            raise ConfigError(
                f"{where} has no field {key!r}{nearest(key, allowed)} (fields: {', '.join(allowed)})"
            )


def frozen(value: Any) -> Any:
    """Lists as tuples, all the way down, so that what is built from them can be hashed."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value
