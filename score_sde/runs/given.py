"""What a user gives, as sources."""

from collections.abc import Mapping

import numpy as np

from score_sde.conditions import Chosen
from score_sde.data import Spec
from score_sde.runs.inputs import from_user


class Given:
    """Examples that a user gives, as a source of the model's raw examples."""

    def __init__(self, spec: Spec, examples: np.ndarray, chosen: Chosen):
        self.spec = spec
        self._x, self._chosen = from_user(examples, spec), chosen

    def __len__(self) -> int:
        return len(self._x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Raw examples, and conditions: those of the data that the model does not take are null."""
        nulls = {name: one.nulls(len(indices)) for name, one in self.spec.conditions}
        return {"x": self._x[indices], **nulls, **self._chosen.of(indices)}


class Latents:
    """Latents as examples.

    Args:
      x: ``(N, *D)``.
      conditions: of each, ``(N, *shape)`` by name.
    """

    def __init__(self, x: np.ndarray, conditions: Mapping[str, np.ndarray]):
        self._x, self._conditions = np.asarray(x, np.float32), conditions

    def __len__(self) -> int:
        return len(self._x)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """``x``, ``(n, *D)``, and its conditions."""
        return {"x": self._x[indices], **{name: a[indices] for name, a in self._conditions.items()}}
