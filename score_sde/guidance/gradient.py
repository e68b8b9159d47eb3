"""Guidance by the gradient of a loss on the denoised estimate."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts, expand
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.strength import Scaled


@dataclass(frozen=True, kw_only=True)
class Gradient(Scaled):
    """``-scale grad_x loss(E[x0 | x_t = x])`` is added to the score, sample by sample.

    It takes ``exp(-scale loss(x0))`` as a likelihood of the sample, at its estimate (arXiv:2209.14687,
    eq. 11; arXiv:2302.07121, eq. 6).  That is exact for a linear loss and Gaussian data.

    The loss sees one sample, ``(*D)`` in the model's range, so that the others of a batch do not count. One
    evaluation costs a network evaluation and its gradient.

    Attributes:
      loss: ``(*D) -> ()``, any function that JAX differentiates.
      prefix: of its entries of ``cond``: ``gradient_scale``, ``gradient_interval``.
    """

    loss: Callable[[Array], Array] = field(kw_only=False)
    prefix: str = "gradient"

    def __call__(self, bind: Bind) -> Bind:
        def bind_guided(parts: Parts, cond: Cond) -> Denoise:
            strength, given = self.taken(cond)
            denoise = bind(parts, given)

            def guided(x: Array, t: Array) -> Estimate:
                t = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
                plain, pull = jax.vjp(lambda x: denoise(x, t), x)
                outer = jax.vmap(jax.grad(self.loss))(plain.x0)
                slope = -expand(strength.scale, x) * pull(Estimate(outer, jnp.zeros_like(plain.noise)))[0]
                return self.within(strength.interval, plain.with_score(self.sde, t, slope), plain, t)

            return guided

        return bind_guided
