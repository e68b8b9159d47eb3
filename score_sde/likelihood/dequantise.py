"""Dequantisation: a density of the noise ``u`` on [0, 1)^D that makes integers ``k`` into ``k + u``.

For any such density ``q(u | k)`` the bound ``log P(k) >= E_q[log p(k + u) - log q(u | k)]`` holds.  Uniform
noise (Theis et al. 2016, arXiv:1511.01844) has ``log q = 0``.  A learned density (Flow++, Ho et al. 2019,
arXiv:1902.00275, section 3.1) is made for the model ``p`` at hand and tightens the bound.

The learned density is a flow.  A logistic variable, ``logit`` of a uniform one, goes through affine couplings
(arXiv:1605.08803) and back through the sigmoid:

    w = logit(v),  y = flow(w; k),  u = v + sigmoid(y) - sigmoid(w)
    log q(u | k) = log f(w) - log |dy/dw| - log f(y),   f the logistic density

Written so, a flow that is the identity gives ``u = v`` and ``log q = 0`` to the last bit.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Params, sum_dims
from score_sde.codecs import Levels
from score_sde.nets.dequantiser import CouplingNet


class Dequantiser(Protocol):
    """A density of the noise: what becomes of uniform noise."""

    def move(self, params: Params, raw: Array, v: Array) -> tuple[Array, Array]:
        """Integers and uniform noise, ``(B, *D)`` each, to the noise ``u`` in [0, 1), ``(B, *D)``, and
        ``log q(u | k)``, nats ``(B,)``."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Noise that does not look at the data; ``params`` is not used."""

    levels: Levels

    def move(self, params: Params, raw: Array, v: Array) -> tuple[Array, Array]:
        """``u`` is ``v``, and ``log q`` zero."""
        return v, jnp.zeros(raw.shape[:1])


@dataclass(frozen=True)
class Coupled:
    """The flow above; couplings move the pixels of one colour of a checkerboard, then of the other.

    Attributes:
      levels: of the codec of integer data.
      net: says how far, given the data and the other pixels.
    """

    levels: Levels
    net: CouplingNet

    def init(self, key: Array, shape: tuple[int, ...]) -> Params:
        """Fresh parameters, with which the density is uniform."""
        return self.net.init(key, shape)

    def move(self, params: Params, raw: Array, v: Array) -> tuple[Array, Array]:
        """See ``Dequantiser``; differentiable in ``params``."""
        x = 2.0 * self.levels.unit(raw) - 1.0
        w = jnp.log(v) - jnp.log1p(-v)
        y, log_slope = self.flow(params, x, w)
        log_q = sum_dims(_log_logistic(w) - _log_logistic(y)) - log_slope
        u = v + (jax.nn.sigmoid(y) - jax.nn.sigmoid(w))
        return jnp.clip(u, 0.0, 1.0 - 2.0**-24), log_q

    def flow(self, params: Params, x: Array, w: Array) -> tuple[Array, Array]:
        """``y`` and ``log |dy/dw|`` ``(B,)``; ``x``: levels on [-1, 1], ``(B, *D)`` like ``w`` and ``y``."""
        log_slope = jnp.zeros(x.shape[:1])
        parity = jnp.asarray(np.sum(np.indices(x.shape[1:]), axis=0) % 2, jnp.float32)[None]
        for i in range(self.net.couplings):
            moved = parity if i % 2 == 0 else 1.0 - parity
            seen = (1.0 - moved) * (2.0 * jax.nn.sigmoid(w) - 1.0)
            shift, log_scale = self.net(params, x, seen, i)
            shift, log_scale = moved * shift, moved * log_scale
            w = w * jnp.exp(log_scale) + shift
            log_slope += sum_dims(log_scale)
        return w, log_slope


def _log_logistic(y: Array) -> Array:
    return jax.nn.log_sigmoid(y) + jax.nn.log_sigmoid(-y)


def encode(
    dequantiser: Dequantiser, params: Params, levels: Levels, raw: Array, key: Array
) -> tuple[Array, Array]:
    """Integer data to the model's range, and ``log q``: ``(B, *D) -> (B, *D), (B,)``.

    The bound on ``log P(raw)`` is ``log p(x) + D codec.log_volume() - log q``.
    """
    u, log_q = dequantiser.move(params, raw, levels.noise(key, raw.shape))
    return levels.place(raw, u), log_q
