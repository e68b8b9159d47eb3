"""What was read from a file, before it is known which network it belongs to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from score_sde.data import Spec
from score_sde.nets import Net

Arrays = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Release:
    """The contents of a checkpoint of others.

    Attributes:
      what: the format, for messages.
      rename: ``(arrays, net, shape) -> params``: to our names and layout.
      average: the averaged parameters, named as in the file (flat or nested).
      raw: the parameters themselves; None where the file has only the average.
      moments: first and second moments of Adam; None where the file has none.
      config: sections of a config as the file tells them; None where it tells nothing.
      spec: of the data, where the file tells it.
    """

    what: str
    rename: Callable[[Arrays, Net, tuple[int, ...]], dict[str, Any]]
    average: Arrays
    raw: Arrays | None = None
    step: int = 0
    moments: tuple[Arrays, Arrays] | None = None
    config: dict[str, Any] | None = None
    spec: Spec | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the parameters."""
        return [leaf.shape for leaf in leaves(self.average)]


def leaves(tree: Any) -> Iterator[np.ndarray]:
    """The arrays of nested dictionaries."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    else:
        yield np.asarray(tree)
