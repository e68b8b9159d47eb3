"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Parts
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.base import Guidance

GUIDANCE_SCALE = "guidance_scale"  # the entry of ``cond`` that holds the scale of each sample, ``(B,)``


@dataclass(frozen=True, kw_only=True)
class ClassifierFree(Guidance):
    """``null + scale (conditional - null)``, for x0 and noise alike, hence for score and velocity.

    Scale 1 is the conditional model, 0 the unconditional one; above 1 samples fit their condition better and
    vary less.  It is the scale of Imagen (arXiv:2205.11487, eq. 2), Stable Diffusion and diffusers; the
    paper's ``w`` (arXiv:2207.12598, eq. 6) is one less: ``scale = 1 + w``.

    Both estimates come from one pass of the network over a batch of twice the size, in pairs, so that a batch
    that is split over devices stays where it is.  A model must have been trained with conditions dropped.

    Attributes:
      null: a batch of conditions to its null values, by name; a condition that is left out stays as it is.
      scale: what ``inputs`` asks for.  The scale that acts is the entry ``guidance_scale`` of ``cond``,
        ``(B,)``.
    """

    null: Callable[[Cond], Cond]
    scale: float = 1.0

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        return {GUIDANCE_SCALE: np.full(count, self.scale, np.float32)}

    def __call__(self, bind: Bind) -> Bind:
        """The guided model.

        Raises (when it is bound):
          ValueError: there is no scale among the conditions.
        """

        def bind_guided(parts: Parts, cond: Cond) -> Denoise:
            if GUIDANCE_SCALE not in cond:
                raise ValueError(f"cond has no {GUIDANCE_SCALE!r}: add the guidance's inputs(count)")
            given = {name: value for name, value in cond.items() if name != GUIDANCE_SCALE}
            null = {**given, **self.null(given)}
            denoise = bind(parts, {name: _paired(value, null[name]) for name, value in given.items()})

            def guided(x: Array, t: Array) -> Estimate:
                times = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
                both = denoise(_paired(x, x), _paired(times, times))
                conditional, unconditional = (Estimate(*(half[i::2] for half in both)) for i in (0, 1))
                return unconditional.toward(conditional, cond[GUIDANCE_SCALE])

            return guided

        return bind_guided


def _paired(first: Array, second: Array) -> Array:
    """Rows of both in turn: ``(B, ...)`` twice to ``(2 B, ...)``."""
    return jnp.stack([first, second], axis=1).reshape(2 * first.shape[0], *first.shape[1:])
