"""What a model knows beside a noisy example: class labels, vectors, images.

A condition is data: a name, a kind, a shape, and a null value that stands for "none".  A data source says
which conditions its examples have, a network which ones it takes, and everything between them carries a
mapping of arrays by name that it does not look into.

Training drops a condition to its null value now and then, so that one network learns the distribution of
the data with and without it (classifier-free guidance, Ho and Salimans 2022, arXiv:2207.12598).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

# Arrays ``(B, *shape)`` by name.  An empty mapping conditions on nothing; so do null values.
Cond = Mapping[str, Array]
Given = Mapping[str, np.ndarray]  # the same on the host
Value = np.ndarray | float | int | str | list[float]  # of a condition, as users give it
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Kind(NamedTuple):
    """What conditions of one kind have in common.  To add one: a line in ``KINDS``.

    Attributes:
      axes: the fewest and the most axes of one value.
      dtype: of the arrays.
      null: every entry of the value that stands for "none".
      counted: whether values are numbers of ``Condition.classes``.
      check: a condition and ``(B, *shape)`` numbers to which of them are wrong, and to what is allowed.
      parse: a condition, its name and a text of the command line to one value; raises ``ValueError``.
    """

    axes: tuple[int, int]
    dtype: str
    null: int
    counted: bool
    check: "Callable[[Condition, np.ndarray], tuple[np.ndarray, str]]"
    parse: "Callable[[Condition, str, str], np.ndarray]"


@dataclass(frozen=True)
class Condition:
    """One condition, without its name.

    Attributes:
      kind: ``class``, ``vector`` or ``image``.
      shape: of one value: ``()`` for a class, ``(n,)`` for a vector, ``(*S, C)`` for an image.
      classes: number of classes; values are ``0 .. classes - 1``.  Zero for other kinds.
      names: of the classes, in order; empty where they have none.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """

    kind: str
    shape: tuple[int, ...] = ()
    classes: int = 0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}: must be one of {', '.join(KINDS)}")
        least, most = self._kind.axes
        if not least <= len(self.shape) <= most or any(size < 1 for size in self.shape):
            raise ValueError(f"shape = {self.shape}: kind {self.kind!r} has {least} to {most} positive sizes")
        if (self.classes > 0) != self._kind.counted:
            allowed = "positive" if self._kind.counted else "0"
            raise ValueError(f"classes = {self.classes}: must be {allowed} for kind {self.kind!r}")
        if self.names and len(set(self.names)) != self.classes:
            raise ValueError(f"names = {self.names}: must be {self.classes} different names")

    @property
    def dtype(self) -> np.dtype:
        """Of its arrays."""
        return np.dtype(self._kind.dtype)

    @property
    def null(self) -> np.ndarray:
        """The value that stands for "none": -1 for a class, zeros for others."""
        return np.full(self.shape, self._kind.null, self.dtype)

    def nulls(self, count: int) -> np.ndarray:
        """``count`` null values: ``(count, *shape)``."""
        return np.broadcast_to(self.null, (count, *self.shape)).copy()

    def check(self, name: str, values: np.ndarray) -> np.ndarray:
        """``(B, *shape)`` values on the host as they must be, of ``dtype``; null values are allowed.

        Args:
          name: of the condition, for messages.

        Raises:
          ValueError: names the condition, the first wrong value and what is allowed.
        """
        values = np.asarray(values)
        if values.shape[1:] != self.shape or values.ndim != len(self.shape) + 1:
            raise ValueError(f"{name} has shape {values.shape}: must be {_batched(self.shape)}")
        whole = np.issubdtype(values.dtype, np.integer)
        if not whole and (self._kind.counted or not np.issubdtype(values.dtype, np.floating)):
            allowed = "integers" if self._kind.counted else "numbers"
            raise ValueError(f"{name} has type {values.dtype}: must be {allowed}")
        wrong, allowed = self._kind.check(self, values)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"{name} of example {place[0]} holds {values[place]}: must be {allowed}")
        return values.astype(self.dtype)

    def parse(self, name: str, text: str) -> np.ndarray:
        """One value from the command line: a class by number or name, a vector as ``0.5,-1,...``.

        Raises:
          ValueError: names the condition, the text and what is allowed.
        """
        return self._kind.parse(self, name, text)

    @property
    def _kind(self) -> Kind:
        return KINDS[self.kind]

    def to_json(self) -> dict[str, Json]:
        """For a file; ``from_json`` reads it."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "classes": self.classes,
            "names": list(self.names),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Condition":
        """What ``to_json`` has written.

        Raises:
          ValueError: it is not such a value.
        """
        match dict(value):
            case {"kind": str(kind), "shape": list(shape), "classes": int(classes), "names": list(names)}:
                sizes = tuple(size for size in shape if isinstance(size, int))
                return cls(kind, sizes, classes, tuple(str(name) for name in names))
        raise ValueError(f"{value}: does not describe a condition")


def _check_class(of: Condition, values: np.ndarray) -> tuple[np.ndarray, str]:
    return (values < -1) | (values >= of.classes), f"a class from 0 to {of.classes - 1}, or -1 for none"


def _check_finite(of: Condition, values: np.ndarray) -> tuple[np.ndarray, str]:
    return ~np.isfinite(values), "finite"


def _parse_class(of: Condition, name: str, text: str) -> np.ndarray:
    if text in of.names:
        return np.asarray(of.names.index(text), of.dtype)
    if text.isdecimal() and int(text) < of.classes:
        return np.asarray(int(text), of.dtype)
    known = f", or one of {', '.join(of.names)}" if of.names else ""
    raise ValueError(f"{name}={text}: must be one of the classes 0 to {of.classes - 1}{known}")


def _parse_vector(of: Condition, name: str, text: str) -> np.ndarray:
    try:
        value = np.array([float(part) for part in text.split(",")])
        return of.check(name, value[None])[0]
    except ValueError:
        raise ValueError(f"{name}={text}: must be {of.shape[0]} finite numbers with commas between") from None


def _parse_image(of: Condition, name: str, text: str) -> np.ndarray:
    raise ValueError(f"{name}={text}: an image cannot be written on the command line")


# An image has the grid of the example, with channels of its own.
KINDS: dict[str, Kind] = {
    "class": Kind((0, 0), "int32", -1, True, _check_class, _parse_class),
    "vector": Kind((1, 1), "float32", 0, False, _check_finite, _parse_vector),
    "image": Kind((1, 5), "float32", 0, False, _check_finite, _parse_image),
}


# By name, in an order that is kept.  A tuple, so that what holds it can be hashed.
Conditions = tuple[tuple[str, Condition], ...]


def labelled(classes: int, names: Iterable[str] = ()) -> Conditions:
    """The condition of data with one class label each, ``"label"``; no condition for 0 classes."""
    return (("label", Condition("class", (), classes, tuple(names))),) if classes else ()


def conditions_to_json(conditions: Conditions) -> dict[str, Json]:
    """For a file; ``conditions_from_json`` reads it."""
    return {name: condition.to_json() for name, condition in conditions}


def conditions_from_json(value: Mapping[str, Mapping[str, Json]]) -> Conditions:
    """What ``conditions_to_json`` has written.

    Raises:
      ValueError: it is not such a value.
    """
    return tuple((name, Condition.from_json(condition)) for name, condition in value.items())


def first_class(conditions: Conditions) -> tuple[str, Condition] | None:
    """The first condition of kind class and its name: what "the class of an example" means; None for none."""
    return next(((name, one) for name, one in conditions if one.classes), None)


def check_meaning(trained: Conditions, found: Conditions, names: Iterable[str], where: str) -> None:
    """Refuse data whose conditions mean something else than those that a model was trained with.

    Args:
      trained: of the data of the training; what is not among them, as of an imported model, is not compared.
      found: of the data at hand.
      names: of the conditions that the model takes.
      where: names the data at hand.

    Raises:
      ValueError: a condition that is missing or another; lists both.
    """
    known, have = dict(trained), dict(found)
    for name in names:
        if name not in known:
            continue
        if name not in have:
            raise ValueError(f"{where}: has no condition {name!r}, which the model takes")
        old, new = known[name], have[name]
        unnamed = not (old.names and new.names)
        if old == (replace(new, names=old.names) if unnamed else new):
            continue
        raise ValueError(
            f"{where}: condition {name!r} is another than the model was trained with: {_said(new)} here, and "
            f"{_said(old)} then; use the data as they were, or train in another workdir"
        )


def _said(one: Condition) -> str:
    if not one.classes:
        return f"{one.kind} of shape {one.shape}"
    return f"{one.classes} classes{': ' if one.names else ''}{', '.join(one.names)}"


def fill(conditions: Conditions, cond: Cond, x: Array) -> dict[str, Array]:
    """Every condition of a batch in order: what is given, and null values for what is left out.

    Args:
      conditions: that a network takes.
      cond: ``(B, *shape)`` each.
      x: ``(B, *S, C)``, the examples that they belong to.

    Raises:
      ValueError: a condition that there is not, or of another shape; names it and what is allowed.
    """
    known, count = dict(conditions), x.shape[0]
    for name, values in cond.items():
        if name not in known:
            takes = f"takes only {', '.join(known)}" if known else "takes no condition"
            raise ValueError(f"cond {name}: must be left out: the network {takes}")
        want = (count, *known[name].shape)
        if values.shape != want:
            raise ValueError(f"cond {name} has shape {values.shape}: must be {want}")
    for name, one in conditions:
        if one.kind == "image" and one.shape[:-1] != x.shape[1:-1]:
            raise ValueError(
                f"cond {name} lies on a grid of {one.shape[:-1]} and x on one of {x.shape[1:-1]}: must be "
                "the same"
            )
    return {name: cond[name] if name in cond else jnp.asarray(one.nulls(count)) for name, one in conditions}


def drop(conditions: Conditions, cond: Cond, rates: Mapping[str, float], key: Array) -> dict[str, Array]:
    """Each condition dropped to its null value with a probability of its own, example by example.

    Args:
      conditions: of ``cond``.
      cond: ``(B, *shape)`` each; what has no condition is kept as it is.
      rates: probabilities in [0, 1] by name; 0 for a name that is left out.
      key: for all of them.
    """
    known, dropped = dict(conditions), dict(cond)
    keys = jax.random.split(key, max(len(rates), 1))
    for own, name in zip(keys, sorted(rates), strict=False):
        if name not in dropped or not rates[name]:
            continue
        values, null = dropped[name], known[name].null
        gone = jax.random.bernoulli(own, rates[name], (values.shape[0], *(1 for _ in null.shape)))
        dropped[name] = jnp.where(gone, jnp.asarray(null)[None], values)
    return dropped


def null_of(conditions: Conditions, cond: Cond) -> dict[str, Array]:
    """``cond`` with every condition at its null value: the unconditional side of guidance."""
    known = dict(conditions)
    return {name: jnp.asarray(known[name].nulls(values.shape[0])) for name, values in cond.items()}


def against(conditions: Conditions, words: Iterable[str], cond: Cond) -> dict[str, Array]:
    """Values ``NAME=VALUE`` for every row of ``cond``.

    Raises:
      ValueError: a condition that there is not, or a value that it cannot have.
    """
    known, found = dict(conditions), {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or name not in known:
            raise ValueError(f"negative = {word}: must be NAME=VALUE of {', '.join(known) or 'no condition'}")
        value = jnp.asarray(known[name].parse(name, text))
        found[name] = jnp.broadcast_to(value[None], cond[name].shape)
    return found


@dataclass(frozen=True)
class Chosen:
    """Which conditions samples get: a function of a sample's number.

    Attributes:
      conditions: all of which every sample has.
      rule: ``(B,)`` numbers to ``(B, *shape)`` values of some of them; the others are null.
      about: what identifies the choice, for records of what was drawn.
    """

    conditions: Conditions
    rule: Callable[[np.ndarray], Given]
    about: Json

    @classmethod
    def every_class(cls, conditions: Conditions) -> "Chosen":
        """Sample i has class ``i % classes`` of each condition of kind class; other kinds are null."""
        return cls.fixed(conditions, {})

    @classmethod
    def fixed(cls, conditions: Conditions, values: Mapping[str, Value]) -> "Chosen":
        """All samples have these values; conditions that are left out are as in ``every_class``.

        Raises:
          ValueError: a condition that the model does not take, or a value that it cannot have.
        """
        known = dict(conditions)
        for name in values:
            if name not in known:
                raise ValueError(f"{name}: the model takes {', '.join(known) or 'no condition'}")
        held = {name: known[name].check(name, np.asarray(v)[None])[0] for name, v in values.items()}
        turns = {name: one.classes for name, one in conditions if one.classes and name not in held}

        def rule(indices: np.ndarray) -> Given:
            spread = {name: np.broadcast_to(v, (len(indices), *v.shape)) for name, v in held.items()}
            return {**spread, **{name: indices % classes for name, classes in turns.items()}}

        return cls(conditions, rule, {name: v.tolist() for name, v in held.items()})

    @classmethod
    def of_data(cls, conditions: Conditions, read: Callable[[np.ndarray], Given], about: Json) -> "Chosen":
        """Sample i has the conditions of example i.

        Args:
          read: numbers to a batch, as a data source does.
          about: names the data.
        """
        names = {name for name, _ in conditions}
        return cls(conditions, lambda i: {k: v for k, v in read(i).items() if k in names}, about)

    def of(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Conditions of samples ``(B,)``: ``(B, *shape)`` each.

        Raises:
          ValueError: a value that the condition cannot have.
        """
        given = self.rule(indices)
        return {
            name: one.check(name, given[name]) if name in given else one.nulls(len(indices))
            for name, one in self.conditions
        }


NONE_CHOSEN = Chosen.every_class(())
"""For a model that takes no condition."""


def bytes_of(conditions: Conditions) -> int:
    """Bytes that the conditions of one example take in memory."""
    return sum(math.prod(one.shape) * one.dtype.itemsize for _, one in conditions)


def _batched(shape: tuple[int, ...]) -> str:
    return f"(B, {', '.join(map(str, shape))})" if shape else "(B,)"
