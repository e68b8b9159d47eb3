"""How long a task is trained, and what is kept on the way."""

from typing import Protocol


class Schedule(Protocol):
    """The numbers of a run, as the config's section ``training`` has them.

    Attributes:
      steps: updates in all.
      batch_size: examples an update.
      steps_per_dispatch: updates of one call of the compiled program.
      accumulate_steps: shares of a batch whose gradients are summed.
      checkpoint_every_steps, log_every_steps: what happens at multiples of these, and at the end.
      keep_last, keep_every_steps: which checkpoints are kept; 0: none by the second rule.
      best_metric: name of what decides which checkpoint is kept as the best; empty: none is.
    """

    @property
    def steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def steps_per_dispatch(self) -> int: ...
    @property
    def accumulate_steps(self) -> int: ...
    @property
    def checkpoint_every_steps(self) -> int: ...
    @property
    def log_every_steps(self) -> int: ...
    @property
    def keep_last(self) -> int: ...
    @property
    def keep_every_steps(self) -> int: ...
    @property
    def best_metric(self) -> str: ...
