"""What a task is: named parts, what is drawn of a batch, and a loss.

One trainer fits every task.  A task names its parameters by part, says which parts it trains, draws what is
random about a batch, and gives a loss for each example.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from jax import Array
from jax.sharding import Mesh

from score_sde.arrays import Parts
from score_sde.data import Source

Batch = dict[str, Array]
Metrics = dict[str, Array]
Value = float | list[float] | str
Logged = Mapping[str, Any]  # a line of the log, as it was read
Examples = TypeVar("Examples")


class Task(Protocol[Examples]):
    """What training fits: some parts are trained, others frozen.

    Frozen parts are inputs of the compiled step, never constants in it, and are stored once.

    Attributes:
      denoises: whether ``Architecture.bind`` makes a denoiser of the trained parts, so that the run can be
        sampled and measured as a score model.  A property of the class.
    """

    denoises: bool

    def frozen(self) -> Parts:
        """The frozen parts as arrays, with which a new run begins; a resumed run reads what it has stored."""
        ...

    def init(self, frozen: Parts, key: Array) -> Parts:
        """The parts that are trained, fresh.  Traceable."""
        ...

    def draw(self, frozen: Parts, batch: Batch, key: Array) -> Examples:
        """What the loss sees of a raw batch, with everything random but dropout.

        Args:
          batch: raw examples and conditions, ``(B, ...)`` each.
          key: one key for the whole global batch.

        Returns:
          A pytree whose arrays have ``B`` rows, so that shares of it can be taken one by one.
        """
        ...

    def loss(
        self, trained: Parts, frozen: Parts, ema: Parts, examples: Examples, key: Array
    ) -> tuple[Array, Metrics]:
        """Loss of each example, ``(B,)``, and what may be logged; what is scalar in it is.

        Args:
          trained: the parts that are trained; the gradient is by these.
          ema: their moving average, a constant.
          key: for dropout.
        """
        ...

    def measures(self, setting: "Setting") -> "tuple[Measure, ...]":
        """What is measured now and then while the task is trained."""
        ...


class Averaged(Protocol):
    """What a measurement sees of a state of training."""

    @property
    def params(self) -> Parts: ...

    @property
    def ema(self) -> Parts: ...


Note = Callable[[int, int, str], None]
"""Called between the chunks of a measurement with what is done, of how many, and a text.  It does not return
where the measurement is to be left."""


@dataclass(frozen=True)
class Measure:
    """Something that is measured at multiples of ``every_steps`` (0: never) and, if asked, at the end.

    Attributes:
      act: ``(step, state, frozen, note)`` to the values that are logged.
      logs: a name that it returns a value under, from which a resumed run sees that it was done; without one
        it is done again.
    """

    every_steps: int
    act: "Callable[[int, Averaged, Parts, Note], dict[str, Value]]"
    at_end: bool = False
    logs: str = ""

    def due(self, before: int, after: int, last: int) -> bool:
        """Whether a multiple of ``every_steps`` lies in ``(before, after]``, or the end is reached."""
        if not self.every_steps:
            return False
        crossed = after // self.every_steps > before // self.every_steps
        return crossed or (self.at_end and after >= last)


@dataclass(frozen=True)
class Setting:
    """Where a task is measured.

    Attributes:
      source, held_out: raw training and held-out examples.
      workdir: where pictures go.
      seed: root of the run.
    """

    source: Source
    held_out: Source
    mesh: Mesh
    workdir: Path
    seed: int
