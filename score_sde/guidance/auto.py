"""Autoguidance: away from a weaker model (Karras et al. 2024, arXiv:2406.02507)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jax import Array

from score_sde.arrays import Parts
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.change_process import ChangeProcess
from score_sde.guidance.strength import Scaled
from score_sde.sde import SDE

GUIDE = "guide"  # the part that holds the parts of the weaker model


class Guide(NamedTuple):
    """A weaker model: its process, its ``bind``, and its parts."""

    sde: SDE
    bind: Bind
    parts: Parts


@dataclass(frozen=True, kw_only=True)
class Auto(Scaled):
    """``guide + scale (model - guide)``, for x0 and noise alike (arXiv:2406.02507, eq. 4).

    Scale 1 is the model itself. The guide is a model of the same data that is worse in the same way: a
    smaller one, or one that was trained for less time. It gets the conditions of the model that it takes,
    so that an unconditional guide of a conditional model gives classifier-free guidance by two networks.
    Its process may be another.

    The parameters of the guide are the part ``guide``: an input of the compiled program.

    Attributes:
      open_guide: ``(workdir, step)`` to the weaker model.
      workdir: of the weaker model.
      step: of its checkpoint; none: the newest.
    """

    open_guide: Callable[[str, int | None], Guide]
    workdir: str
    step: int | None = None

    def frozen(self) -> Parts:
        return {GUIDE: self.open_guide(self.workdir, self.step).parts}

    def __call__(self, bind: Bind) -> Bind:
        guide = self.open_guide(self.workdir, self.step)
        weaker = guide.bind
        if guide.sde != self.sde:
            weaker = ChangeProcess(trained=guide.sde, sampled=self.sde)(weaker)

        def bind_guided(parts: Parts, cond: Cond) -> Denoise:
            strength, given = self.taken(cond)
            strong, weak = bind(parts, given), weaker(parts[GUIDE], given)  # type: ignore[arg-type]

            def guided(x: Array, t: Array) -> Estimate:
                plain = strong(x, t)
                return self.within(strength.interval, weak(x, t).toward(plain, strength.scale), plain, t)

            return guided

        return bind_guided
