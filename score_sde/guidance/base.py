"""What a guidance is: a function from one way of binding a model to another."""

import abc
from dataclasses import dataclass

import numpy as np

from score_sde.denoiser import Bind


class Guidance(abc.ABC):
    """``Bind -> Bind``: takes ``(parts, cond) -> denoise`` and gives another.

    What it returns is bound to conditions as the model is, so that guidances compose and a solver sees one
    ``Denoise``.  Members are frozen dataclasses.  A number that may differ from sample to sample is an entry
    of ``cond`` (see ``inputs``), hence an input of the compiled program and no constant in it.
    """

    @abc.abstractmethod
    def __call__(self, bind: Bind) -> Bind:
        """The guided model."""

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        """Entries of ``cond`` that it needs beside the model's conditions, ``(count, ...)`` each.

        The values are those of its options; a caller may put others in their place.
        """
        return {}


@dataclass(frozen=True)
class Unchanged(Guidance):
    """No guidance: the model itself."""

    def __call__(self, bind: Bind) -> Bind:
        return bind


@dataclass(frozen=True)
class Composed(Guidance):
    """Several, one after the other; the first is the innermost.  See ``compose``."""

    parts: tuple[Guidance, ...]

    def __call__(self, bind: Bind) -> Bind:
        for part in self.parts:
            bind = part(bind)
        return bind

    def inputs(self, count: int) -> dict[str, np.ndarray]:
        return {name: value for part in self.parts for name, value in part.inputs(count).items()}


def compose(*parts: Guidance) -> Guidance:
    """All of ``parts``, the first next to the model: a threshold stands after what it is to limit."""
    return Composed(parts)
