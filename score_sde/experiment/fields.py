"""Fields of config sections: default, check and documentation in one line each.

A section is a frozen dataclass whose fields are made by the functions here:

    @dataclass(frozen=True)
    class Loop:
        steps: int = positive(1000, "updates in all")
        solver: Choice[Solver] = choice(SOLVERS, "pc", "how samples are drawn")

What a ``choice`` offers is not written down again: its options are the arguments of the member of the table,
with their defaults, types, and what the member's docstring says of them.

A field that counts only where another field of its section has certain values says so with ``when``, and a
member of a table with its attribute ``read_if`` (``names.ReadIf``).
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from score_sde.names import ConfigError, When, nearest

T = TypeVar("T")
Table = Mapping[str, Callable[..., T]]
_ENTRY = "config field"  # key in the metadata of a dataclass field
_FLAX = ("parent", "name")  # arguments of every Flax module, which are no options


@dataclass(frozen=True)
class Check:
    """What a value has to be beside its type: in words, and as a function of it."""

    allowed: str
    passes: Callable[[Any], bool]


@dataclass(frozen=True)
class Entry:
    """A field of a section, or an option of a member of a table.

    Attributes:
      kind: its annotated type.
      default: of a choice the name of a member, of ``several`` the names of those that are chosen.
      doc: what it means.
      check: of a value, or of every element of a tuple.
      table: of a choice.
      several: whether any number of members is chosen, each with a section of its options beside the names.
      given: options of the members that are no fields: the program fills them in.
      section: the class of a nested section.
      when: ``(field, values)``: the field counts only where that field of the same section has, or names,
        one of these values, or with ``bool`` in their place is on.
      required: an option without a default.
    """

    kind: object = object
    default: object = None
    doc: str = ""
    check: Check | None = None
    table: Mapping[str, Callable[..., object]] | None = None
    several: bool = False
    given: tuple[str, ...] = ()
    section: type | None = None
    when: When | None = None
    required: bool = False


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A member of a table and its options.

    Attributes:
      field: where it is in the config, for messages.
      make: the member.
    """

    field: str
    name: str
    options: Mapping[str, Any]
    make: Callable[..., T] = dataclasses.field(repr=False)

    def takes(self, name: str) -> bool:
        """Whether the member has an argument of that name, option or not."""
        return name in inspect.signature(self.make).parameters

    def build(self, **given: object) -> T:
        """The object.

        Args:
          given: what the program knows beside the options; a member that does not take one does not get it.

        Raises:
          ConfigError: a value that the member refuses, or an option without a default that is not set.
        """
        keywords = {**self.options, **{name: value for name, value in given.items() if self.takes(name)}}
        for name, entry in entries_of(self.make).items():
            if entry.required and name not in given and keywords.get(name) in (None, ""):
                raise ConfigError(
                    f"config.{self.field}.{name} is not set, and {self.field} = {self.name!r} needs it: "
                    f"--config.{self.field}.{name}=..."
                )
        try:
            return self.make(**keywords)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(self.placed(str(error))) from error

    def placed(self, message: str) -> str:
        """A member's message with the place of what it complains of."""
        name = message.partition(" = ")[0]
        if message.startswith(f"{self.field.partition('.')[0]}."):
            return f"config.{message}"
        return f"config.{self.field}{'.' if name in self.options else ': '}{message}"

    def but(self, **options: object) -> "Choice[T]":
        """The same member with some options changed."""
        return dataclasses.replace(self, options={**self.options, **options})


@dataclass(frozen=True)
class Choices(Generic[T]):
    """Any number of members of a table.

    Attributes:
      names: of the chosen ones, in order.
      every: all members of the table, each with its options.
    """

    names: tuple[str, ...]
    every: Mapping[str, Choice[T]]

    @property
    def chosen(self) -> tuple[Choice[T], ...]:
        """Those that are named."""
        return tuple(self.every[name] for name in self.names)


# --- what makes a field ----------------------------------------------------------------------------


def _field(entry: Entry) -> Any:  # the type checker sees the type of the default
    return dataclasses.field(default=cast(Any, entry.default), metadata={_ENTRY: entry})


def value(default: T, doc: str, *, when: When | None = None) -> T:
    """Anything of the type."""
    return _field(Entry(default=default, doc=doc, when=when))


def checked(default: T, allowed: str, passes: Callable[[Any], bool], doc: str, when: When | None = None) -> T:
    """A value, every element of a tuple, that passes a test; None always does."""
    return _field(Entry(default=default, doc=doc, check=Check(allowed, passes), when=when))


def positive(default: T, doc: str, *, when: When | None = None) -> T:
    """A number above zero."""
    return checked(default, "positive", lambda x: math.isfinite(x) and x > 0, doc, when)


def natural(default: T, doc: str, *, when: When | None = None) -> T:
    """A number that is zero or more."""
    return checked(default, "0 or more", lambda x: math.isfinite(x) and x >= 0, doc, when)


def finite(default: T, doc: str, *, when: When | None = None) -> T:
    """A number."""
    return checked(default, "finite", math.isfinite, doc, when)


def share(default: T, doc: str) -> T:
    """A number from zero to one."""
    return checked(default, "in [0, 1]", lambda x: 0 <= x <= 1, doc)


def one_of(
    default: T, names: Mapping[str, object] | tuple[str, ...], doc: str, *, when: When | None = None
) -> T:
    """A name, or several in a tuple, of a table or a list."""
    return _field(Entry(default=default, doc=doc, check=_among(tuple(names)), when=when))


def _among(names: tuple[str, ...]) -> Check:
    return Check(f"one of: {', '.join(names)}", lambda name: name in names)


def choice(
    table: Table[T],
    default: str | None,
    doc: str,
    *,
    given: tuple[str, ...] = (),
    when: When | None = None,
) -> Choice[T]:
    """A member of a table: a nested section with ``name`` and the member's options; None: its first."""
    return _field(Entry(default=default or next(iter(table)), doc=doc, table=table, given=given, when=when))


def several(table: Table[T], default: tuple[str, ...], doc: str) -> Choices[T]:
    """Members of a table: their names, and beside them a section for the options of each."""
    return _field(Entry(default=default, doc=doc, table=table, several=True))


def section(cls: type[T], doc: str = "", *, when: When | None = None) -> T:
    """A nested section."""
    return _field(Entry(section=cls, doc=doc or (inspect.getdoc(cls) or "").partition("\n")[0], when=when))


# --- what a section, or a member, has ---------------------------------------------------------------


@functools.cache
def entries_of(make: Callable[..., object], given: tuple[str, ...] = ()) -> Mapping[str, Entry]:
    """Fields of a section class, or options of a member of a table, by name."""
    made: dict[str, Entry] = {}
    own_fields = getattr(make, "__dataclass_fields__", {}).values()
    stated = {f.name: f.metadata[_ENTRY] for f in own_fields if _ENTRY in f.metadata}
    docs = documented(make)
    for p in inspect.signature(make, eval_str=True).parameters.values():
        if p.name in given or p.name in _FLAX:
            continue
        own = stated.get(p.name)
        if isinstance(p.default, dataclasses.Field):
            own = p.default.metadata[_ENTRY]
        if own is not None:
            made[p.name] = dataclasses.replace(own, kind=p.annotation)
        else:
            required = p.default is inspect.Parameter.empty
            kind = p.annotation | None if required else p.annotation
            default = None if required else p.default
            when = getattr(make, "read_if", {}).get(p.name)
            made[p.name] = Entry(kind, default, docs.get(p.name, ""), required=required, when=when)
    return made


def member(table: Mapping[str, Callable[..., T]], name: object, where: str) -> Callable[..., T]:
    """The member of a table.

    Raises:
      ConfigError: there is none of that name; the message lists them.
    """
    if not isinstance(name, str) or name not in table:
        raise ConfigError(
            f"config.{where} = {name!r} is not one of: {', '.join(table)}{nearest(str(name), table)}"
        )
    return table[name]


def documented(make: Callable[..., object]) -> dict[str, str]:
    """What the docstring of a class, and of those it varies, says of its attributes, or of a function of its
    arguments."""
    found: dict[str, str] = {}
    for kind in reversed(make.__mro__) if isinstance(make, type) else (make,):
        found |= _documented(inspect.cleandoc(kind.__doc__ or ""))
    return found


def _documented(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    current: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.strip() in ("Attributes:", "Args:"):
            inside = True
        elif inside and line.startswith("  ") and not line.startswith("   "):
            names, _, said = line.strip().partition(": ")
            current = names.split(", ")
            found |= dict.fromkeys(current, said)
        elif inside and line.startswith("   "):
            found |= {name: f"{found[name]} {line.strip()}" for name in current}
        elif line.strip():
            inside = False
    return found


def summary(make: Callable[..., object]) -> str:
    """The first line of what a member's docstring, or that of what it returns, says."""
    if not isinstance(make, type) and make.__name__ == "<lambda>":
        made = make()
        make = made if callable(made) and not dataclasses.is_dataclass(made) else type(made)
    return (inspect.getdoc(make) or "").partition("\n")[0]
