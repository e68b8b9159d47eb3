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


def unet(net: Any) -> list[Requirement]:
    """The fields that every U-Net has."""
    return [
        ("nf", net.nf, "even and at least 4", net.nf >= 4 and net.nf % 2 == 0),
        ("ch_mult", net.ch_mult, "one or more positive integers", min(net.ch_mult, default=0) > 0),
        ("num_res_blocks", net.num_res_blocks, "at least 1", net.num_res_blocks >= 1),
        ("dropout", net.dropout, "in [0, 1)", 0 <= net.dropout < 1),
        input_range(net.input_range),
    ]


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


def conditions(net: Any, cond: Mapping[str, Any] | None, batch: tuple[int, ...]) -> list[Requirement]:
    """``cond`` of a network with ``num_classes`` and perhaps ``augment_dim``; see ``Net``."""
    if cond is not None and not isinstance(cond, Mapping):
        return [("cond", type(cond).__name__, "None, or arrays by name", False)]
    shapes = {key: tuple(value.shape) for key, value in (cond or {}).items()}
    classes, width = net.num_classes, getattr(net, "augment_dim", 0)
    rows: list[Requirement] = [("num_classes", classes, "zero or positive", classes >= 0)]
    for key, shape in shapes.items():
        if key == "label":
            rows += [
                ("num_classes", classes, "positive when labels are given", classes > 0),
                ("cond label", shape, f"of shape {batch}, one label per example", shape == batch),
            ]
        else:
            known = key == "augment" and width > 0
            rows.append((f"cond {key}", shape, "left out: the network has no such input", known))
            if known:
                rows.append((f"cond {key}", shape, f"of shape {(*batch, width)}", shape == (*batch, width)))
    return rows


def no_condition(cond: Any) -> Requirement:
    """``cond`` of a network that takes none."""
    holds = cond is None or (isinstance(cond, Mapping) and not cond)
    return ("cond", type(cond).__name__, "empty: this network takes no condition", holds)
