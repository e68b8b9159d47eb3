"""What a network keeps of its forward pass for the gradient, and what it computes again.

Training memory is mostly feature maps kept for the backward pass.  A block that is rematerialised keeps its
input and little else, and runs again when its gradient is due (Chen et al. 2016, arXiv:1604.06174).  Values
and gradients are those of the plain block.
"""

from collections.abc import Callable
from typing import TypeVar

import flax.linen as nn
import jax
from jax import lax
from jax.extend.core import Primitive

from score_sde.nets.convolution import PRIMITIVES

M = TypeVar("M", bound=nn.Module)
_PRODUCTS = {lax.dot_general_p, *PRIMITIVES}


def _products(primitive: Primitive, *_: object, **__: object) -> bool:
    """Keep what convolutions and matrix products return; norms and activations are cheap to repeat."""
    return primitive in _PRODUCTS


# By the name of the field ``remat`` of the networks.  None: keep everything.
POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "products": _products,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def rematerialised(block: type[M], remat: str, static: tuple[int, ...] = ()) -> type[M]:
    """``block`` under one of ``POLICIES``, its parameters under the same names.

    Args:
      static: positions of arguments of its call that are no arrays; ``self`` is 0.
    """
    policy = POLICIES[remat]
    return block if policy is None else nn.remat(block, policy=policy, static_argnums=static)
