"""A config as a tree: defaults filled in, fields changed by name, and made into typed sections.

Between the functions a config is a plain nested dictionary: a section holds its fields, a choice its ``name``
and the options of that member.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

from score_sde.experiment import values
from score_sde.experiment.fields import Choice, Choices, Entry, entries_of, member
from score_sde.names import ConfigError, When, nearest

T = TypeVar("T")
Tree = dict[str, Any]  # values of any type, and trees
Entries = Mapping[str, Entry]


def fill(cls: type, tree: Mapping[str, Any]) -> Tree:
    """The whole tree of a section class: what ``tree`` says, and defaults.

    Raises:
      ConfigError: a field or a name that there is not, or a value of another type or range.
    """
    return _fill(entries_of(cls), tree, "")


def _fill(entries: Entries, tree: Mapping[str, Any], where: str) -> Tree:
    _check_known(entries, tree, where)
    full: Tree = {}
    for key, entry in entries.items():
        place = _join(where, key)
        if entry.section is not None:
            full[key] = _fill(entries_of(entry.section), _mapping(tree.get(key, {}), place), place)
        elif entry.several:
            full[key] = _several(entry, tree.get(key, entry.default), place)
            for name, make in _optioned(entry).items():
                inner = _join(where, name)
                full[name] = _fill(entries_of(make, entry.given), _mapping(tree.get(name, {}), inner), inner)
        elif entry.table is not None:
            full[key] = _choose(entry, tree.get(key, {}), place)
        else:
            full[key] = _checked(entry, tree.get(key, entry.default), place)
    return full


def _choose(entry: Entry, spec: object, where: str) -> Tree:
    """A choice with all options of its member; a word alone is a name."""
    given = {"name": spec} if isinstance(spec, str) else _mapping(spec, where)
    name = given.get("name", entry.default)
    assert entry.table is not None
    make = member(entry.table, name, f"{where}.name")
    options = {key: value for key, value in given.items() if key != "name"}
    entries = entries_of(make, entry.given)
    for key in options:
        if key not in entries:
            raise ConfigError(_no_option(entry, str(name), key, where))
    return {"name": name, **_fill(entries, options, where)}


def _no_option(entry: Entry, name: str, key: str, where: str) -> str:
    """Which members have an option that the chosen one has not."""
    assert entry.table is not None
    own = entries_of(entry.table[name], entry.given)
    having = [n for n, make in entry.table.items() if key in entries_of(make, entry.given)]
    text = f"config.{where}.{key}: {name!r} has no option {key!r}"
    if having:
        return f"{text}; {', '.join(map(repr, having))} {'has' if len(having) == 1 else 'have'}"
    return f"{text}{nearest(key, own)} (options: {', '.join(own) or 'none'})"


def _several(entry: Entry, names: object, where: str) -> tuple[str, ...]:
    assert entry.table is not None
    chosen = cast(tuple[str, ...], _cast(tuple[str, ...], names, where))
    for name in chosen:
        member(entry.table, name, where)
    return chosen


def _optioned(entry: Entry) -> dict[str, Callable[..., object]]:
    """Members of ``several`` that have options: these have a section each."""
    table = entry.table or {}
    return {name: make for name, make in table.items() if entries_of(make, entry.given)}


def _checked(entry: Entry, value: object, where: str) -> object:
    result = _cast(entry.kind, value, where)
    items = result if isinstance(result, tuple) else (result,)
    if entry.check is not None:
        for item in items:
            if item is not None and not entry.check.passes(item):
                names = entry.check.allowed.split(": ")[-1].split(", ")
                hint = nearest(item, names) if isinstance(item, str) and item else ""
                raise ConfigError(f"config.{where} = {value!r}: must be {entry.check.allowed}{hint}")
    return result


def _cast(kind: object, value: object, where: str) -> object:
    try:
        return values.cast(value, kind)
    except ValueError as error:
        raise ConfigError(f"config.{where} = {value!r}: {error}") from error


def _mapping(spec: object, where: str) -> Mapping[str, Any]:
    if not isinstance(spec, Mapping):
        raise ConfigError(f"config.{where} = {spec!r}: must be a section")
    return spec


def _check_known(entries: Entries, tree: Mapping[str, Any], where: str) -> None:
    keys = _keys(entries)
    for key in tree:
        if key not in keys:
            place = f"config.{where}" if where else "config"
            raise ConfigError(
                f"{place} has no field {key!r}{nearest(str(key), keys)} (fields: {', '.join(keys)})"
            )


def _keys(entries: Entries) -> list[str]:
    """Names that a section may have."""
    keys = list(entries)
    for entry in entries.values():
        if entry.several:
            keys += _optioned(entry)
    return keys


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


# --- changes ----------------------------------------------------------------------------------------


def change(cls: type, tree: Tree, changes: Mapping[str, object], *, words: bool = False) -> Tree:
    """A whole tree with some fields changed.

    Naming a member, ``solver`` or ``solver.name``, resets its options to the member's defaults, and comes
    before the options whatever the order.

    Args:
      tree: whole, of ``fill``.
      changes: by dotted path.
      words: whether the new values are words of the command line.

    Raises:
      ConfigError: as ``fill``.
    """
    tree = fill(cls, tree)  # a copy
    for path in sorted(changes, key=lambda path: path.removesuffix(".name").count(".")):  # names come first
        holder, key, entry = _locate(cls, tree, path)
        new = changes[path]
        if entry.table is not None and not entry.several:
            where = path.removesuffix(".name")
            holder[key] = _choose(entry, new, where)
        elif entry.section is not None:
            if words:
                keys = ", ".join(_keys(entries_of(entry.section)))
                raise ConfigError(f"--config.{path} is a section; set one of its fields: {keys}")
            holder[key] = new
        else:
            holder[key] = _read(entry, str(new), path) if words else new
    return fill(cls, tree)


def _read(entry: Entry, word: str, path: str) -> object:
    try:
        return values.read(word, tuple[str, ...] if entry.several else entry.kind)
    except ValueError as error:
        raise ConfigError(f"config.{path} = {word}: {error}") from error


def _locate(cls: type, tree: Tree, path: str) -> tuple[Tree, str, Entry]:
    """The dictionary that holds a field, its key there, and what it is."""
    entries, holder, keys = entries_of(cls), tree, path.split(".")
    for depth, key in enumerate(keys):
        where, rest = ".".join(keys[:depth]), keys[depth + 1 :]
        single = _single(entries)
        if key in single and rest:
            entries, holder = entries_of(single[key]), holder[key]
            continue
        entry = entries.get(key)
        if entry is None:
            raise ConfigError(_no_field(cls, tree, entries, where, key))
        if not rest or (rest == ["name"] and entry.table is not None and not entry.several):
            return holder, key, entry
        if entry.section is not None:
            entries = entries_of(entry.section)
        elif entry.table is not None and not entry.several:
            name = holder[key]["name"]
            entries = entries_of(entry.table[name], entry.given)
            if rest[0] not in entries:
                raise ConfigError(_no_option(entry, name, rest[0], _join(where, key)))
        else:
            raise ConfigError(f"config.{path}: config.{_join(where, key)} is a value, it has no fields")
        holder = holder[key]
    raise ConfigError(f"config.{path} is a section; set one of its fields: {', '.join(_keys(entries))}")


def _no_field(cls: type, tree: Tree, entries: Entries, where: str, key: str) -> str:
    """That there is no such field; the nearest is one beside it, or one of that name elsewhere."""
    hint = nearest(key, _keys(entries))
    if not hint:
        paths = sorted([*_paths(tree), *_options(entries_of(cls), "")], key=lambda path: path.count("."))
        leaves: dict[str, str] = {}
        for path in paths:  # of equals, the first of the least depth
            leaves.setdefault(path.rpartition(".")[2], path)
        close = re.findall(r"'(.*)'", nearest(key, leaves))
        hint = f"; did you mean config.{leaves[close[0]]}?" if close else ""
    place = f"config.{where}" if where else "config"
    return f"--config.{_join(where, key)}: {place} has no field {key!r}{hint}"


def _paths(tree: Tree, where: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield _join(where, key)
        if isinstance(value, dict):
            yield from _paths(value, _join(where, key))


def _options(entries: Entries, where: str) -> Iterator[str]:
    """Paths of the options of every member of every choice."""
    for key, entry in entries.items():
        if entry.section is not None:
            yield from _options(entries_of(entry.section), _join(where, key))
        elif entry.table is not None and not entry.several:
            for make in entry.table.values():
                yield from (f"{_join(where, key)}.{name}" for name in entries_of(make, entry.given))


def check_read(cls: type, tree: Tree, paths: Iterable[str]) -> None:
    """Refuse fields that were set and that nothing reads, as another field beside them says.

    A field that has its default is as if it were not set.

    Raises:
      ConfigError: which field would have to have what value.
    """
    for path in paths:
        unread, set_to_default, entries, holder, where = "", False, entries_of(cls), tree, ""
        for key in path.split("."):
            for field, allowed in _readers(entries, key):
                unread = unread or _why_unread(holder[field], allowed, _join(where, field))
            entry, single = entries.get(key), _single(entries).get(key)
            set_to_default = entry is not None and _name(holder[key]) == entry.default
            if single is not None:
                entries = entries_of(single)
            elif entry is not None and entry.section is not None:
                entries = entries_of(entry.section)
            elif entry is not None and entry.table is not None and not entry.several:
                entries = entries_of(entry.table[holder[key]["name"]], entry.given)
            else:
                break
            holder, where = holder[key], _join(where, key)
        if unread and not set_to_default:
            raise ConfigError(f"config.{path} is set, and nothing reads it: {unread}")


def leaves(tree: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Paths of the values of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, _join(where, key))
        else:
            yield _join(where, key)


def _single(entries: Entries) -> dict[str, Callable[..., object]]:
    """Members of the fields of a section that have a section of their own beside them."""
    return {
        name: make for entry in entries.values() if entry.several for name, make in _optioned(entry).items()
    }


def _readers(entries: Entries, key: str) -> list[When]:
    """The fields of a section, and the values of each, for one of its entries to count."""
    entry = entries.get(key)
    if entry is not None:
        return [] if entry.when is None else [entry.when]
    return [(field, (key,)) for field, other in entries.items() if other.several and key in _optioned(other)]


def _name(chosen: object) -> object:
    """The name of a choice; another value as it is."""
    return chosen.get("name") if isinstance(chosen, Mapping) else chosen


def _why_unread(chosen: object, allowed: tuple[object, ...] | type[bool], field: str) -> str:
    """What another field would have to be; empty if it is."""
    value = _name(chosen)
    said = ", ".join(map(repr, value)) or "nothing" if isinstance(value, tuple) else repr(value)
    if not isinstance(allowed, tuple):
        return "" if value else f"config.{field} has to be on, and it is {said}"
    held = value if isinstance(value, tuple) else (value,)
    if any(one in allowed for one in held):
        return ""
    return f"it is for {' or '.join(map(repr, allowed))}, and config.{field} is {said}"


# --- typed ------------------------------------------------------------------------------------------


def typed(cls: type[T], tree: Mapping[str, Any]) -> T:
    """The section object of a tree, complete or not.

    Raises:
      ConfigError: as ``fill``; also fields that contradict each other.
    """
    return _typed(cls, entries_of(cls), fill(cls, tree), "")


def _typed(cls: type[T], entries: Entries, tree: Tree, where: str) -> T:
    try:
        return cls(**_arguments(entries, tree, where))
    except ConfigError:
        raise
    except ValueError as error:
        dot = "." if str(error).partition(" = ")[0] in entries else ": "
        raise ConfigError(f"config.{where}{dot if where else ''}{error}") from error


def _arguments(entries: Entries, tree: Tree, where: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, entry in entries.items():
        place = _join(where, key)
        if entry.section is not None:
            made[key] = _typed(entry.section, entries_of(entry.section), tree[key], place)
        elif entry.several:
            table = entry.table or {}
            every = {n: _choice(entry, n, tree.get(n, {}), _join(where, n)) for n in table}
            made[key] = Choices(tree[key], every)
        elif entry.table is not None:
            options = {k: v for k, v in tree[key].items() if k != "name"}
            made[key] = _choice(entry, tree[key]["name"], options, place)
        else:
            made[key] = tree[key]
    return made


def _choice(entry: Entry, name: str, options: Tree, where: str) -> Choice[object]:
    assert entry.table is not None
    make = entry.table[name]
    return Choice(where, name, _arguments(entries_of(make, entry.given), options, where), make)


def as_tree(section: object) -> Tree:
    """A section object, or a choice, as a tree again."""
    if isinstance(section, Choice):
        return {"name": section.name, **{key: _plain(value) for key, value in section.options.items()}}
    tree: Tree = {}
    for key in entries_of(type(section)):
        value = getattr(section, key)
        if isinstance(value, Choices):
            tree[key] = value.names
            tree |= {n: dict(c.options) for n, c in value.every.items() if c.options}
        else:
            tree[key] = _plain(value)
    return tree


def _plain(value: object) -> object:
    return as_tree(value) if isinstance(value, Choice) or _is_section(value) else value


def _is_section(value: object) -> bool:
    return hasattr(type(value), "__dataclass_fields__")
