"""What is known of an example beforehand, as a condition: its seen entries, and which they are.

A network that is given them learns the distribution of the rest, as for series in CSDI (Tashiro et al. 2021,
arXiv:2107.03502) and for tables in TabCSDI (Zheng and Charoenphakdee 2022, arXiv:2210.17128).
"""

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.conditions import Condition, Conditions
from score_sde.data.columns import Columns

KNOWN = "known"


def known_condition(shape: tuple[int, ...]) -> Conditions:
    """The condition of states ``(*S, W)``: ``(*S, 2 W)``; null: nothing is known."""
    return ((KNOWN, Condition("image", (*shape[:-1], 2 * shape[-1]))),)


def known(x0: Array, mask: Array) -> Array:
    """Its value: ``x0`` where ``mask`` is 1, zero elsewhere, and ``mask``, ``(B, *S, W)`` each."""
    return jnp.concatenate([mask * x0, mask], axis=-1)


def draw_mask(key: Array, shape: tuple[int, ...], columns: Columns, blank: float) -> Array:
    """Which entries of states are seen: float32 ones and zeros of ``shape``, ``(B, *S, W)``.

    Of every example a share that is uniform on [0, 1] is hidden, cell by cell: a column of categories as a
    whole, and without columns all channels of a place.

    Args:
      key: for the whole batch.
      blank: probability with which nothing of an example is seen.
    """
    key_share, key_cells, key_blank = jax.random.split(key, 3)
    each = (shape[0], *(1 for _ in shape[1:]))
    share = jax.random.uniform(key_share, each)
    cells = (*shape[:-1], len(columns) or 1)
    seen = jax.random.uniform(key_cells, cells) >= share
    seen &= ~jax.random.bernoulli(key_blank, blank, each)
    widths = jnp.array([column.width for column in columns] or [shape[-1]])
    return jnp.repeat(seen, widths, axis=-1, total_repeat_length=shape[-1]).astype(jnp.float32)
