"""Feature extractors: raw pixels, a classifier trained on the user's data, Inception."""

from collections.abc import Callable, Mapping
from typing import Any
from typing import Protocol as TypingProtocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from score_sde.arrays import HostParams, Params, Tree
from score_sde.evaluate.protocol import Protocol
from score_sde.evaluate.resize import RESIZES
from score_sde.evaluate.scores import Sampled
from score_sde.nets import check_spec, digest
from score_sde.nets.classifier import Classifier
from score_sde.nets.inception import Inception, from_torch_names
from score_sde.runtime.mesh import batch_sharding, make_mesh, replicated, round_up

INCEPTION_FILE = (
    "pt_inception-2015-12-05-6726825d.pth (as pytorch-fid keeps it; torch-fidelity keeps the same file as "
    "weights-inception-2015-12-05-6726825d.pth; 95628359 bytes, SHA-256 "
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2)"
)
_MOST_PIXELS = 4096  # a covariance of more dimensions takes minutes and says little


class Extractor(TypingProtocol):
    """Examples to features."""

    name: str

    def protocol(self, shape: tuple[int, ...], dtype: np.dtype) -> Protocol:
        """How it treats raw examples of this shape and type.

        Raises:
          ValueError: it cannot take them.
        """
        ...

    def __call__(self, x: np.ndarray) -> Sampled:
        """``(B, *D)`` uint8 pictures in 0..255, or float32 data, to ``(B, d)`` features."""
        ...


def values_of(dtype: np.dtype) -> str:
    """What a protocol calls the values of raw examples."""
    return "uint8 0..255" if dtype == np.uint8 else "float32"


class Pixels:
    """The values themselves, flattened; pictures are divided by 255."""

    name = "pixels"

    def protocol(self, shape: tuple[int, ...], dtype: np.dtype) -> Protocol:
        """Refuses examples of more than 4096 values."""
        if np.prod(shape) > _MOST_PIXELS:
            raise ValueError(
                f"evaluate.features = 'pixels': examples of shape {shape} have {np.prod(shape)} values, more "
                f"than {_MOST_PIXELS}; use 'classifier' or 'inception'"
            )
        return Protocol("pixels", "none", "none", values_of(dtype), str(shape))

    def __call__(self, x: np.ndarray) -> Sampled:
        """``(B, *D)`` to ``(B, prod(D))``."""
        flat = x.reshape(len(x), -1).astype(np.float32)
        return Sampled(flat / 255 if x.dtype == np.uint8 else flat)


Apply = Callable[[Tree, Array], tuple[Array, Array | None]]


class Compiled:
    """A network on batches of one size, split over all devices."""

    def __init__(self, apply: Apply, params: Tree, batch_size: int):
        mesh: Mesh = make_mesh()
        self._params = jax.device_put(params, replicated(mesh))
        self._size = round_up(batch_size, mesh)
        split = batch_sharding(mesh)
        self._apply = jax.jit(apply, in_shardings=(replicated(mesh), split), out_shardings=replicated(mesh))

    def __call__(self, x: np.ndarray) -> Sampled:
        """``(B, *D)`` for any B; the last batch is filled up with zeros and cut."""
        features, logits = [], []
        for start in range(0, len(x), self._size):
            part = x[start : start + self._size]
            full = np.zeros((self._size, *x.shape[1:]), np.float32)
            full[: len(part)] = part
            both = jax.device_get(self._apply(self._params, full))
            features.append(np.asarray(both[0])[: len(part)])
            if both[1] is not None:
                logits.append(np.asarray(both[1])[: len(part)])
        return Sampled(np.concatenate(features), np.concatenate(logits) if logits else None)


def as_input(x: Array | np.ndarray, dtype: np.dtype) -> Array:
    """Raw examples as the classifier sees them: pictures in [-1, 1], other data as they are."""
    x = jnp.asarray(x, jnp.float32)
    return x / 127.5 - 1 if dtype == np.uint8 else x


class ClassifierFeatures:
    """The last hidden layer of a classifier of the user's own data."""

    name = "classifier"

    def __init__(self, params: Params | HostParams, meta: Mapping[str, Any], batch_size: int = 128):
        net = Classifier(tuple(meta["widths"]), int(meta["num_classes"]))
        self._shape, self._values = tuple(meta["shape"]), str(meta["values"])
        dtype = np.dtype(np.uint8 if self._values.startswith("uint8") else np.float32)
        check_spec(params, jax.eval_shape(lambda key: net.init(key, self._shape), jax.random.key(0)))
        self._digest = digest(params)
        self._run = Compiled(lambda p, x: net(p, as_input(x, dtype)), params, batch_size)

    def protocol(self, shape: tuple[int, ...], dtype: np.dtype) -> Protocol:
        """Refuses examples of another shape or type than those it was trained on."""
        if shape != self._shape or values_of(dtype) != self._values:
            raise ValueError(
                f"the classifier was trained on {self._values} of shape {self._shape}, these examples are "
                f"{values_of(dtype)} of shape {shape}"
            )
        return Protocol("classifier", self._digest, "none", self._values, str(shape))

    def __call__(self, x: np.ndarray) -> Sampled:
        """``(B, *shape)`` to features and class scores."""
        return self._run(x)


class InceptionFeatures:
    """The 2048 features of FID, or the 2023 of sFID, and the class scores of the Inception Score.

    Args:
      tensors: the tensors of the weight file, by their PyTorch names.
      resize: "clean", "tensorflow" or "pytorch_fid".
      batch_size: pictures computed together, over all devices.
      spatial: the features of sFID.

    Raises:
      ValueError: an unknown resize, or tensors that are not those of the network.
    """

    def __init__(
        self,
        tensors: Mapping[str, np.ndarray],
        resize: str = "tensorflow",
        batch_size: int = 64,
        *,
        spatial: bool = False,
    ):
        self.name = "inception_spatial" if spatial else "inception"
        if resize not in RESIZES:
            raise ValueError(f"evaluate.features.resize = {resize!r}: must be one of {', '.join(RESIZES)}")
        net, params = Inception(), from_torch_names(tensors)
        check_spec(params, net.shapes())
        self._resize, self._digest = resize, digest(params)
        self._host, device = RESIZES[resize]

        def apply(params: Tree, x: Array) -> tuple[Array, Array]:
            taps = net(params, device(x))
            return taps.spatial if spatial else taps.pool_3, taps.logits

        self._run = Compiled(apply, params, batch_size)

    def protocol(self, shape: tuple[int, ...], dtype: np.dtype) -> Protocol:
        """Refuses what is not a grey or RGB picture."""
        if len(shape) != 3 or shape[-1] not in (1, 3) or dtype != np.uint8:
            raise ValueError(
                f"evaluate.features = 'inception' takes uint8 pictures of 1 or 3 channels, these examples "
                f"are {np.dtype(dtype).name} of shape {shape}; use 'pixels' or 'classifier'"
            )
        return Protocol(self.name, self._digest, self._resize, values_of(dtype), "any")

    def __call__(self, x: np.ndarray) -> Sampled:
        """``(B, H, W, 1 | 3)`` uint8; a grey picture counts as three equal channels."""
        if x.shape[-1] == 1:
            x = np.repeat(x, 3, axis=-1)
        return self._run(self._host(x))


class NetworkFeatures:
    """The features of any network: ``apply`` of a Flax module, or another pure function.

    Args:
      apply: ``(params, x)`` to features ``(B, d)`` and class scores ``(B, K)`` or None; ``x`` is ``(B, *D)``
        float32, pictures with values 0..255.
      params: a tree of arrays; its SHA-256 is part of the protocol.
      name: starts the names of the scores; the names of Inception are refused.
      batch_size: examples computed together, over all devices.
    """

    def __init__(self, apply: Apply, params: Tree, *, name: str, batch_size: int = 64):
        if name.startswith("inception") or not name.isidentifier():
            raise ValueError(f"name = {name!r}: must be an identifier that does not begin with 'inception'")
        self.name, self._digest = name, digest(params)
        self._run = Compiled(apply, params, batch_size)

    def protocol(self, shape: tuple[int, ...], dtype: np.dtype) -> Protocol:
        """Takes examples of any shape; the network may not."""
        return Protocol(self.name, self._digest, "none", values_of(dtype), str(shape))

    def __call__(self, x: np.ndarray) -> Sampled:
        """``(B, *D)`` to features and, where the network has them, class scores."""
        return self._run(x)
