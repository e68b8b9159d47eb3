"""What a guidance is: a function from one way of binding a model to another."""

import abc
from dataclasses import dataclass

import numpy as np

from score_sde.arrays import Parts
from score_sde.conditions import Conditions
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

    def frozen(self) -> Parts:
        """Parameters of other models by part, which are added to those of the model: inputs of the compiled
        program, and no constants in it."""
        return {}

    @property
    def conditions(self) -> Conditions:
        """Conditions that samples get for its sake, whether the model takes them or not."""
        return ()


@dataclass(frozen=True)
class Unchanged(Guidance):
    """No guidance: the model itself."""

    def __call__(self, bind: Bind) -> Bind:
        return bind


UNCHANGED = Unchanged()


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

    def frozen(self) -> Parts:
        return {name: value for part in self.parts for name, value in part.frozen().items()}

    @property
    def conditions(self) -> Conditions:
        return tuple({name: one for part in self.parts for name, one in part.conditions}.items())


def compose(*parts: Guidance) -> Guidance:
    """All of ``parts``, the first next to the model: a threshold stands after what it is to limit.

    Raises:
      ValueError: two of them have an input, or a part, of one name; names it.
    """
    for what in ("inputs", "frozen"):
        names = [name for part in parts for name in (part.inputs(0) if what == "inputs" else part.frozen())]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two guidances have {name!r} among their {what}: give one another prefix")
    return Composed(parts)
