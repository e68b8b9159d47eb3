"""What was read from a file, before it is known which network it belongs to."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from score_sde.arrays import HostParams, Tree
from score_sde.convert.errors import CheckpointError
from score_sde.data import Spec
from score_sde.nets import Net

Arrays = Mapping[str, Tree]
Section = dict[str, Any]  # of a config, as a file tells it: values are looked at where it becomes typed
Rename = Callable[[Arrays, Net, tuple[int, ...]], HostParams]
_SIDE = 2**14  # pixels
_STEPS = 10**6


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
    rename: Rename
    average: Arrays
    raw: Arrays | None = None
    step: int = 0
    moments: tuple[Arrays, Arrays] | None = None
    config: dict[str, Section] | None = None
    spec: Spec | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the parameters."""
        return [leaf.shape for leaf in leaves(self.average)]


def check_claims(release: Release) -> None:
    """Refuse what a file says of its network and data where building it would exhaust the memory.

    Raises:
      CheckpointError: names the claim and its bound; for the network, these follow from the arrays.
    """
    config, shapes = release.config or {}, release.shapes
    model, steps = config.get("model", {}), f"at most {_STEPS}"
    widest = max((size for shape in shapes for size in shape), default=1)
    sides = () if release.spec is None else release.spec.shape
    claims = [
        *(("the size of its images", side, 1, _SIDE, f"at most {_SIDE}") for side in sides),
        ("model.nf", model.get("nf", 1), 1, widest, f"at most {widest}, the widest of its arrays"),
        *(
            (f"model.{name}", count, 1, len(shapes), f"at most {len(shapes)}, the number of its arrays")
            for name, count in (
                ("num_res_blocks", model.get("num_res_blocks", 1)),
                ("ch_mult levels", len(model.get("ch_mult", (1,)))),
            )
        ),
        *(
            (f"{section}.steps", config.get(section, {}).get("steps", 1), 0, _STEPS, steps)
            for section in ("sde", "sampling")
        ),
    ]
    for name, value, low, high, allowed in claims:
        if not low <= value <= high:
            raise CheckpointError(f"it claims {name} = {value}: must be {allowed}, and at least {low}")


def leaves(tree: Tree) -> Iterator[np.ndarray]:
    """The arrays of nested dictionaries."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    else:
        yield np.asarray(tree)
