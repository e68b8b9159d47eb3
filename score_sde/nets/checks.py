"""Refuse what a network cannot work with, before anything is compiled."""

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from score_sde.conditions import Conditions

Requirement = tuple[str, object, str, bool]  # the field, its value, what is allowed, whether it holds


class UNet(Protocol):
    """The fields that every U-Net has."""

    nf: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    dropout: float
    input_range: tuple[float, float]


class Conditioned(Protocol):
    """A network that takes conditions."""

    conditions: Conditions


def require(requirements: Iterable[Requirement]) -> None:
    """Raise for the first requirement that does not hold.

    Raises:
      ValueError: names the field, its value and what is allowed.
    """
    for field, value, allowed, holds in requirements:
        if not holds:
            raise ValueError(f"{field}={value!r}: must be {allowed}")


def choices(net: object, table: Mapping[str, tuple[object, ...]]) -> list[Requirement]:
    """Fields of ``net`` that have one of the values in ``table``."""
    rows = [(field, getattr(net, field), allowed) for field, allowed in table.items()]
    return [(field, value, f"one of {allowed}", value in allowed) for field, value, allowed in rows]


def unet(net: UNet) -> list[Requirement]:
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


def attention(
    attn_resolutions: tuple[int, ...], ch_mult: tuple[int, ...], shape: tuple[int, ...]
) -> Requirement:
    """Feature maps with attention, of a network that halves examples of ``shape`` level by level."""
    sizes = [shape[0] // 2**level for level in range(len(ch_mult))]
    allowed = f"empty, or some of the first sizes of the feature maps, {', '.join(map(str, sizes))}"
    return ("attn_resolutions", attn_resolutions, allowed, set(attn_resolutions) <= set(sizes))


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


def embeds_conditions(net: Conditioned, embeds: bool) -> Requirement:
    """Classes and vectors, which enter through the embedded noise level, of a network that may have none."""
    names = tuple(name for name, condition in net.conditions if condition.kind != "image")
    return ("conditions", names, "images only when noise_conditional=False", embeds or not names)
