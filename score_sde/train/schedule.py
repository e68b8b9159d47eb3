"""How long a task is trained, and what is kept on the way."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The numbers of a run; the config's section ``training``.

    Attributes:
      steps: updates in all.
      batch_size: examples an update.
      steps_per_dispatch: updates of one call of the compiled program.
      accumulate_steps: shares of a batch whose gradients are summed.
      best_metric: name of what decides which checkpoint is kept as the best; empty: none is.
    """

    steps: int
    batch_size: int
    checkpoint_every_steps: int
    log_every_steps: int = 50
    keep_last: int = 2
    keep_every_steps: int = 0
    steps_per_dispatch: int = 1
    accumulate_steps: int = 1
    best_metric: str = ""
