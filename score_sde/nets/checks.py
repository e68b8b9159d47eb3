"""Refuse what a network cannot work with, before anything is compiled."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

Requirement = tuple[str, Any, str, bool]  # the field, its value, what is allowed, whether it holds


def require(requirements: Iterable[Requirement]) -> None:
    """Raise for the first requirement that does not hold.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    for field, value, allowed, holds in requirements:
        if not holds:
            raise ValueError(f"{field}={value!r}: must be {allowed}")


def choices(net: Any, table: Mapping[str, tuple[Any, ...]]) -> list[Requirement]:
    """Fields of ``net`` that have one of the values in ``table``."""
    rows = [(field, getattr(net, field), allowed) for field, allowed in table.items()]
    return [(field, value, f"one of {allowed}", value in allowed) for field, value, allowed in rows]


def input_range(bounds: tuple[float, ...]) -> Requirement:
    """The data range, two finite numbers in order."""
    holds = len(bounds) == 2 and all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]
    return ("input_range", bounds, "(low, high) with low < high", holds)


def arguments(shape: tuple[int, ...], noise_shape: tuple[int, ...], divisor: int) -> list[Requirement]:
    """``x`` of ``(B, *S, C)``, every size in S divisible by ``divisor``; ``c_noise`` of ``(B,)``."""
    batch = tuple(shape[:1])
    return [
        ("x", shape, "(B, *S, C) with at least one spatial axis", len(shape) >= 3),
        (
            "x",
            shape,
            f"of spatial sizes divisible by {divisor}",
            all(size > 0 and size % divisor == 0 for size in shape[1:-1]),
        ),
        ("c_noise", noise_shape, f"of shape {batch}, one value per example", tuple(noise_shape) == batch),
    ]


def no_condition(cond: Any) -> Requirement:
    """``cond`` of a network that takes none."""
    return ("cond", type(cond).__name__, "None: this network takes no condition", cond is None)
