"""Networks: only this package knows which neural-network library it uses.

Outside, a network is ``net(params, x, c_noise, cond, key=key)`` and its parameters are a nested
dictionary of float32 arrays with readable names.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params, Tree
from score_sde.conditions import Conditions, fill
from score_sde.nets import initial
from score_sde.nets.checks import attention, require
from score_sde.nets.mlp import MLP
from score_sde.nets.unets.adm import ADM
from score_sde.nets.unets.ddpm import DDPM
from score_sde.nets.unets.ncsn import NCSN, NCSNv2, NCSNv2For128, NCSNv2For256
from score_sde.nets.unets.ncsnpp import NCSNpp
from score_sde.nets.unets.ncsnpp_diffusers import NCSNppDiffusers
from score_sde.nets.unets.songunet import SongUNet
from score_sde.nets.wideresnet import WideResNet

NETS = {
    "ncsnpp": NCSNpp,
    "ncsnpp_diffusers": NCSNppDiffusers,
    "ddpm": DDPM,
    "songunet": SongUNet,
    "adm": ADM,
    "ncsn": NCSN,
    "ncsnv2_64": NCSNv2,
    "ncsnv2_128": NCSNv2For128,
    "ncsnv2_256": NCSNv2For256,
    "mlp": MLP,
}
# From a noisy example to logits ``(B, num_classes)``, not to its own shape.
CLASSIFIERS = {"wideresnet": WideResNet}


@dataclass(frozen=True)
class Net:
    """A network without its parameters: hashable, so it can be a static argument of ``jit``."""

    module: nn.Module

    @property
    def conditions(self) -> Conditions:
        """What the network takes; a module without the field ``conditions`` takes none."""
        return getattr(self.module, "conditions", ())

    def init(self, key: Array, shape: tuple[int, ...]) -> Params:
        """Fresh parameters.

        Works under ``jit`` (with ``shape`` static) and ``eval_shape``.

        Args:
          key: a random key; the parameters are a function of it.
          shape: of one example, ``(*S, C)``.

        Returns:
          A nested dictionary of float32 arrays.

        Raises:
          ValueError: the network cannot work with the shape.
        """
        return initial.draw(key, _described(self, shape))

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse examples of a shape that the network cannot work with, or whose options it would not read.

        Raises:
          ValueError: names the field, its value and what is allowed.
        """
        self.shapes(shape)
        module: Any = self.module
        if hasattr(module, "attn_resolutions"):
            chosen = module.attn_resolutions
            if chosen != type(module).attn_resolutions:  # a default is for any shape
                require([attention(chosen, module.ch_mult, shape)])

    def shapes(self, shape: tuple[int, ...]) -> Tree:
        """The tree of ``init`` with a ``jax.ShapeDtypeStruct`` in place of each array; raises as it does."""
        return initial.shapes(_described(self, shape))

    def describe(self, shape: tuple[int, ...]) -> Tree:
        """The tree of ``init`` with an ``initial.Initial`` in place of each array; raises as ``init`` does.

        Traces the network each time; ``init`` and ``shapes`` remember what they have asked for.
        """

        def describe() -> Tree:
            x = jnp.zeros((1, *shape), jnp.float32)
            c_noise, cond = jnp.zeros((1,), jnp.float32), fill(self.conditions, {}, x)
            return self.module.init(jax.random.key(0), x, c_noise, cond)

        return jax.eval_shape(describe)["params"]

    def __call__(
        self,
        params: Params,
        x: Array,
        c_noise: Array | float,
        cond: Mapping[str, Array] = {},
        *,
        key: Array | None = None,
    ) -> Array:
        """The raw output of the network.

        Args:
          params: as ``init`` returns them.
          x: ``(B, *S, C)`` float32.
          c_noise: ``()`` or ``(B,)``, the noise level in the units that the network embeds.
          cond: ``(B, *shape)`` each, by the names of ``conditions``; what is left out has its null value.
          key: a random key for dropout; None for no dropout.

        Returns:
          ``(B, *S, C)`` float32.

        Raises:
          ValueError: the network cannot work with these shapes; a condition that it does not take, or of
            another shape, by name.
        """
        c_noise, cond = _per_example(c_noise, x), fill(self.conditions, cond, x)
        rngs = {} if key is None else {"dropout": key}
        output: Any = self.module.apply(
            {"params": params}, x, c_noise, cond, train=key is not None, rngs=rngs
        )
        return output

    def features(
        self,
        params: Params,
        x: Array,
        c_noise: Array | float,
        cond: Mapping[str, Array] = {},
    ) -> dict[str, Array]:
        """Feature maps inside the network, without dropout; arguments and errors as of a call.

        Returns:
          ``(B, *S', C')`` float32 by the names of the outermost layers, in the order in which they act; a
          layer that puts out anything else, such as the embedded noise level, is left out.
        """

        def outermost(module: nn.Module, method: str) -> bool:
            return method == "__call__" and len(module.path) == 1

        _, state = self.module.apply(
            {"params": params},
            x,
            _per_example(c_noise, x),
            fill(self.conditions, cond, x),
            train=False,
            capture_intermediates=outermost,
            mutable=["intermediates"],
        )
        kept = {name: layer["__call__"][-1] for name, layer in state["intermediates"].items()}
        return {
            name: value.astype(jnp.float32)
            for name, value in kept.items()
            if isinstance(value, jax.Array) and value.ndim == x.ndim
        }


def _per_example(c_noise: Array | float, x: Array) -> Array:
    c_noise = jnp.asarray(c_noise, jnp.float32)
    return jnp.full(x.shape[:1], c_noise) if c_noise.ndim == 0 else c_noise


@functools.lru_cache(maxsize=64)
def _described(net: Net, shape: tuple[int, ...]) -> Tree:
    """``net.describe(shape)``, remembered; not to be changed."""
    return net.describe(shape)


def parameter_count(params: Tree) -> int:
    """The number of scalars in a tree of arrays, or of their shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def check_spec(got: Tree, want: Tree) -> None:
    """Refuse a tree whose paths, shapes or dtypes differ from those wanted, in either direction.

    Args:
      got: a tree of arrays (or shapes), for example read from a file.
      want: a tree of arrays or ``jax.ShapeDtypeStruct``.

    Raises:
      ValueError: shows the first ten differing paths with what each side has, and their number.
    """
    sides = [
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for tree in (got, want)
    ]
    differing = [
        f"  {path}: got {sides[0].get(path, 'nothing')}, want {sides[1].get(path, 'nothing')}"
        for path in sorted(sides[0].keys() | sides[1].keys())
        if sides[0].get(path) != sides[1].get(path)
    ]
    if differing:
        more = ["  ..."] if len(differing) > 10 else []
        lines = [f"{len(differing)} parameters differ:", *differing[:10], *more]
        raise ValueError("\n".join(lines))


def digest(params: Tree) -> str:
    """SHA-256 of a tree of arrays: of each path and its little-endian float32 bytes, paths sorted."""
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    total = hashlib.sha256()
    for path in sorted(flat):
        total.update(path.encode())
        total.update(np.ascontiguousarray(np.asarray(flat[path], "<f4")).tobytes())
    return total.hexdigest()
