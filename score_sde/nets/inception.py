"""Inception-v3 as the Frechet Inception distance knows it: the graph of 2015-12-05.

Szegedy et al. 2016, arXiv:1512.00567. The graph that TensorFlow released, on which published FIDs rest,
differs from later ones: average pooling leaves the padding out of the mean, the last block pools by
maximum, and there are 1008 classes. Submodules have the names of the PyTorch port of its weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from score_sde.arrays import Params, Tree

SIDE = 299  # pixels of the images it takes
CLASSES = 1008
_UNUSED = ("num_batches_tracked", "AuxLogits")  # suffix and prefix of what other files hold besides


class Taps(NamedTuple):
    """What is read off the network, each ``(B, d)``.

    Attributes:
      pool_1, pool_2, mixed_6: spatial means of 64, 192 and 768 channels on the way.
      spatial: the 17x17 positions of 7 channels of "mixed_6/conv", 2023 numbers: the features of sFID (Nash
        et al. 2021, arXiv:2103.03841; the channels are those of Dhariwal and Nichol 2021).
      pool_3: the 2048 features of FID.
      logits: ``(B, 1008)`` class scores without the bias, of which the Inception Score is made.
      biased_logits: the same with the bias.
    """

    pool_1: Array
    pool_2: Array
    mixed_6: Array
    spatial: Array
    pool_3: Array
    logits: Array
    biased_logits: Array


class ConvUnit(nn.Module):
    """Convolution, batch normalisation with stored statistics, ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape, zeros, ones = (self.features,), nn.initializers.zeros, nn.initializers.ones
        kernel = self.param("kernel", zeros, (*self.kernel, x.shape[-1], self.features))
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean, variance = self.param("mean", zeros, shape), self.param("variance", ones, shape)
        y = lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
        gain = (scale * lax.rsqrt(variance + 1e-3)).reshape(1, 1, 1, -1)
        return jax.nn.relu((y - mean.reshape(1, 1, 1, -1)) * gain + bias.reshape(1, 1, 1, -1))


def _max_pool(x: Array, stride: int = 2, padding: str = "VALID") -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), padding)


def _mean_pool(x: Array) -> Array:
    """Mean of the 3x3 neighbours that exist."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _same_max_pool(x: Array) -> Array:
    return _max_pool(x, 1, "SAME")


class Branches(nn.Module):
    """Parallel chains of convolutions, joined along the channels.

    Attributes:
      chains: for each branch its units ``(name, features, kernel)`` in order.  A last entry that is itself a
        tuple of units forks: all of them take the same input.
      pooled: features of the branch ``branch_pool`` after ``pool``.
      pool: "mean" or "max".
    """

    chains: tuple[Any, ...]
    pooled: int
    pool: str = "mean"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        out = []
        for chain in self.chains:
            h = x
            for link in chain:
                fork = link if isinstance(link[0], tuple) else (link,)
                ends = [ConvUnit(width, kernel, name=name)(h) for name, width, kernel in fork]
                h = jnp.concatenate(ends, axis=-1)
            out.append(h)
        h = _mean_pool(x) if self.pool == "mean" else _same_max_pool(x)
        out.append(ConvUnit(self.pooled, name="branch_pool")(h))
        return jnp.concatenate(out, axis=-1)


def _block_a(pooled: int, name: str) -> Branches:
    """35x35 pixels: 64, 64, 96 and ``pooled`` channels."""
    return Branches(
        (
            (("branch1x1", 64, (1, 1)),),
            (("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
            (
                ("branch3x3dbl_1", 64, (1, 1)),
                ("branch3x3dbl_2", 96, (3, 3)),
                ("branch3x3dbl_3", 96, (3, 3)),
            ),
        ),
        pooled,
        name=name,
    )


def _block_c(width: int, name: str) -> Branches:
    """17x17 pixels: 7x7 convolutions as rows and columns, ``width`` channels inside."""
    return Branches(
        (
            (("branch1x1", 192, (1, 1)),),
            (
                ("branch7x7_1", width, (1, 1)),
                ("branch7x7_2", width, (1, 7)),
                ("branch7x7_3", 192, (7, 1)),
            ),
            (
                ("branch7x7dbl_1", width, (1, 1)),
                ("branch7x7dbl_2", width, (7, 1)),
                ("branch7x7dbl_3", width, (1, 7)),
                ("branch7x7dbl_4", width, (7, 1)),
                ("branch7x7dbl_5", 192, (1, 7)),
            ),
        ),
        192,
        name=name,
    )


def _block_e(pool: str, name: str) -> Branches:
    """8x8 pixels: branches that fork into a row and a column."""
    return Branches(
        (
            (("branch1x1", 320, (1, 1)),),
            (
                ("branch3x3_1", 384, (1, 1)),
                (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))),
            ),
            (
                ("branch3x3dbl_1", 448, (1, 1)),
                ("branch3x3dbl_2", 384, (3, 3)),
                (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
            ),
        ),
        192,
        pool,
        name=name,
    )


class Reduction(nn.Module):
    """Half the resolution: chains whose last unit has stride 2, beside a maximum pool."""

    chains: tuple[tuple[tuple[str, int, tuple[int, int]], ...], ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        out = []
        for chain in self.chains:
            h = x
            for i, (name, width, kernel) in enumerate(chain):
                last = i == len(chain) - 1
                h = ConvUnit(width, kernel, 2 if last else 1, "VALID" if last else "SAME", name=name)(h)
            out.append(h)
        return jnp.concatenate([*out, _max_pool(x)], axis=-1)


class InceptionV3(nn.Module):
    """``(B, 299, 299, 3)`` in [-1, 1] to the taps."""

    @nn.compact
    def __call__(self, x: Array) -> Taps:
        x = ConvUnit(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = ConvUnit(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = ConvUnit(64, (3, 3), name="Conv2d_2b_3x3")(x)
        pool_1 = x = _max_pool(x)
        x = ConvUnit(80, name="Conv2d_3b_1x1")(x)
        x = ConvUnit(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        pool_2 = x = _max_pool(x)
        for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
            x = _block_a(pooled, f"Mixed_5{letter}")(x)
        double = (
            ("branch3x3dbl_1", 64, (1, 1)),
            ("branch3x3dbl_2", 96, (3, 3)),
            ("branch3x3dbl_3", 96, (3, 3)),
        )
        x = Reduction(((("branch3x3", 384, (3, 3)),), double), name="Mixed_6a")(x)
        for letter, width in (("b", 128), ("c", 160), ("d", 160)):
            x = _block_c(width, f"Mixed_6{letter}")(x)
        # That was "mixed_6" of the released graph; its first branch is "mixed_6/conv".
        spatial = x[..., :7].reshape(len(x), -1)
        mixed_6 = x = _block_c(192, "Mixed_6e")(x)
        single = (("branch3x3_1", 192, (1, 1)), ("branch3x3_2", 320, (3, 3)))
        seven = (
            ("branch7x7x3_1", 192, (1, 1)),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, (3, 3)),
        )
        x = Reduction((single, seven), name="Mixed_7a")(x)
        x = _block_e("mean", "Mixed_7b")(x)
        x = _block_e("max", "Mixed_7c")(x)
        pool_3 = jnp.mean(x, axis=(1, 2))
        kernel = self.param("fc_kernel", nn.initializers.zeros, (pool_3.shape[-1], CLASSES))
        bias = self.param("fc_bias", nn.initializers.zeros, (CLASSES,))
        logits = jnp.dot(pool_3, kernel, precision=lax.Precision.HIGHEST)
        return Taps(
            jnp.mean(pool_1, axis=(1, 2)),
            jnp.mean(pool_2, axis=(1, 2)),
            jnp.mean(mixed_6, axis=(1, 2)),
            spatial,
            pool_3,
            logits,
            logits + bias.reshape(1, -1),
        )


@dataclass(frozen=True)
class Inception:
    """The network without its parameters."""

    def shapes(self) -> Tree:
        """A tree of the shapes and types of its parameters."""
        image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
        return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)["params"]

    def __call__(self, params: Params, x: Array) -> Taps:
        """``(B, 299, 299, 3)`` float32 in [-1, 1] to the taps, float32."""
        taps: Any = InceptionV3().apply({"params": params}, x)
        return taps


_LEAVES = {
    "conv.weight": "kernel",
    "bn.weight": "scale",
    "bn.bias": "bias",
    "bn.running_mean": "mean",
    "bn.running_var": "variance",
}


def from_torch_names(tensors: Mapping[str, np.ndarray]) -> dict[str, Tree]:
    """Parameters from the tensors of a PyTorch file, as pytorch-fid and torch-fidelity have them.

    Args:
      tensors: ``Mixed_5b.branch1x1.conv.weight`` and so on; convolutions ``(out, in, H, W)``.

    Raises:
      ValueError: a name that does not belong to this network.  What is missing, or of another shape,
        ``score_sde.nets.check_spec`` tells.
    """
    params: dict[str, Tree] = {}
    for name, tensor in tensors.items():
        if name.endswith(_UNUSED[0]) or name.startswith(_UNUSED[1]):
            continue
        array = np.asarray(tensor, np.float32)
        if name in ("fc.weight", "fc.bias"):
            params[name.replace("fc.weight", "fc_kernel").replace("fc.bias", "fc_bias")] = array.T
            continue
        *path, kind, leaf = name.split(".")
        if f"{kind}.{leaf}" not in _LEAVES or not 1 <= len(path) <= 2:
            raise ValueError(f"{name!r} is no tensor of the Inception network of FID")
        place = params
        for part in path:
            place = place.setdefault(part, {})
        place[_LEAVES[f"{kind}.{leaf}"]] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return params
