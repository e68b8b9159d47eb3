"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598)."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Parts, expand
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.strength import Scaled

GUIDANCE_SCALE = "guidance_scale"  # entries of ``cond``, each with a row for every sample: ``(B,)``,
GUIDANCE_INTERVAL = "guidance_interval"  # ``(B, 2)``,
GUIDANCE_RESCALE = "guidance_rescale"  # and ``(B,)``


@dataclass(frozen=True, kw_only=True)
class ClassifierFree(Scaled):
    """``null + scale (conditional - null)``, for x0 and noise alike, hence for score and velocity.

    Scale 1 is the conditional model, 0 the unconditional one; above 1 samples fit their condition better and
    vary less.  It is the scale of Imagen (arXiv:2205.11487, eq. 2), Stable Diffusion and diffusers; the
    paper's ``w`` (arXiv:2207.12598, eq. 6) is one less: ``scale = 1 + w``.

    Both estimates come from one pass of the network over a batch of twice the size, in pairs, so that a batch
    that is split over devices stays where it is.  A model must have been trained with conditions dropped.

    The numbers that act are entries of ``cond``, with a row for every sample: ``guidance_scale``, and
    ``guidance_interval`` and ``guidance_rescale`` if they are there.  ``inputs`` makes them of the options
    below, and other values compile nothing.

    Attributes:
      null: a batch of conditions, and ``negative``, to what takes their place; a condition that is left out
        stays as it is.
      rescale: share, 0 to 1, of ``x0`` that is brought to the standard deviation that the conditional one has
        over all its dimensions (arXiv:2305.08891, eq. 15 and 16, there for the prediction of the network).
      negative: conditions ``NAME=VALUE`` in place of null values: samples go away from them.
    """

    null: Callable[[Cond, tuple[str, ...]], Cond]
    rescale: float = 0.0
    negative: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"rescale = {self.rescale}: must be in [0, 1]")

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        return {**super().inputs(count), GUIDANCE_RESCALE: np.full(count, self.rescale, np.float32)}

    def __call__(self, bind: Bind) -> Bind:
        """The guided model.

        Raises (when it is bound):
          ValueError: there is no scale among the conditions.
        """

        def bind_guided(parts: Parts, cond: Cond) -> Denoise:
            if GUIDANCE_SCALE not in cond:
                raise ValueError(f"cond has no {GUIDANCE_SCALE!r}: add the guidance's inputs(count)")
            count = len(cond[GUIDANCE_SCALE])
            own = {name: jnp.asarray(value) for name, value in self.inputs(count).items()}
            strength, rest = self.taken({**own, **cond})
            given = {name: value for name, value in rest.items() if name != GUIDANCE_RESCALE}
            share = rest[GUIDANCE_RESCALE]
            null = {**given, **self.null(given, self.negative)}
            denoise = bind(parts, {name: _paired(value, null[name]) for name, value in given.items()})

            def guided(x: Array, t: Array) -> Estimate:
                times = jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
                both = denoise(_paired(x, x), _paired(times, times))
                conditional, unconditional = (Estimate(*(half[i::2] for half in both)) for i in (0, 1))
                estimate = unconditional.toward(conditional, strength.scale)
                estimate = self._rescaled(estimate, conditional, times, share)
                return self.within(strength.interval, estimate, conditional, times)

            return guided

        return bind_guided

    def _rescaled(self, estimate: Estimate, conditional: Estimate, t: Array, share: Array) -> Estimate:
        """``x0`` with a standard deviation nearer that of the conditional one, for the same ``x``."""
        axes = tuple(range(1, estimate.x0.ndim))
        ratio = jnp.std(conditional.x0, axis=axes) / jnp.maximum(jnp.std(estimate.x0, axis=axes), 1e-12)
        shift = expand(share * (ratio - 1.0), estimate.x0) * estimate.x0
        moved = estimate.shifted(self.sde, t, shift)
        return Estimate(
            *(jnp.where(expand(share > 0, a), b, a) for a, b in zip(estimate, moved, strict=True))
        )


def _paired(first: Array, second: Array) -> Array:
    """Rows of both in turn: ``(B, ...)`` twice to ``(2 B, ...)``."""
    return jnp.stack([first, second], axis=1).reshape(2 * first.shape[0], *first.shape[1:])
