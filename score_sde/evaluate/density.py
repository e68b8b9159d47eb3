"""Log density of a whole data set, example by example."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from score_sde.data import Scaling, Source
from score_sde.denoiser import Cond
from score_sde.evaluate.batches import Encode, Note, encoded_batches, to_host
from score_sde.likelihood import LogProb, bits_per_dim
from score_sde.mesh import BATCH


@dataclass(frozen=True)
class Density:
    """Log density of every example of a set, in its order.

    Attributes:
      nats: log density in the units of the data, ``(N,)``: of integer data, a lower bound on the log
        probability (uniform dequantisation, Theis et al. 2016, arXiv:1511.01844, section 3.1).
      evaluations: evaluations of the velocity and its divergence, ``(N,)``.
      size: dimensions of one example.
    """

    nats: np.ndarray
    evaluations: np.ndarray
    size: int

    @property
    def bits(self) -> np.ndarray:
        """Bits per dimension, ``(N,)``."""
        return np.asarray(bits_per_dim(self.nats, self.size))  # type: ignore[arg-type]

    @property
    def mean_bits(self) -> float:
        return float(np.mean(self.bits))

    @property
    def standard_error_bits(self) -> float:
        """Standard error of the mean over examples; infinite for one example."""
        n = len(self.nats)
        return float(np.std(self.bits, ddof=1) / math.sqrt(n)) if n > 1 else math.inf


def measure_density(
    log_prob: Callable[[Any, Array, Array, Cond], LogProb],
    params: Any,
    source: Source,
    scaling: Scaling,
    mesh: Mesh,
    *,
    batch_size: int,
    seed: int,
    note: Note | None = None,
    encode: Encode | None = None,
) -> Density:
    """Measure every example of ``source``; the last batch is filled up and cut, nothing is dropped.

    Args:
      log_prob: ``(params, keys, x, cond) -> LogProb``; each device runs its own examples.
      note: called with the count done and a text, after each batch.
      encode: a dequantiser, see ``encoded_batches``; its ``log_q`` is subtracted.

    Raises:
      FloatingPointError: an example could not be integrated in ``max_steps``.
    """
    whole, split = PartitionSpec(), PartitionSpec(BATCH)
    compiled = jax.jit(
        jax.shard_map(
            log_prob,
            mesh=mesh,
            in_specs=(whole, split, split, split),
            out_specs=split,
            check_vma=False,
        )
    )
    size = math.prod(source.spec.shape)
    nats: list[np.ndarray] = []
    evaluations: list[np.ndarray] = []
    done = 0
    volume = size * scaling.log_volume()  # from the model's units to the data's
    for batch in encoded_batches(source, scaling, mesh, batch_size=batch_size, seed=seed, encode=encode):
        result = to_host(compiled(params, batch.keys, batch.x, batch.cond))
        log_p = np.asarray(result.nats, np.float64) - to_host(batch.log_q)
        nats.append(log_p[batch.mask] + volume)
        evaluations.append(result.evaluations[batch.mask])
        if not np.all(np.isfinite(nats[-1])):
            first = done + int(np.argmin(np.isfinite(nats[-1])))
            raise FloatingPointError(
                f"the log density of example {first} is not finite: the integration gave up; raise "
                "likelihood.max_steps, or loosen likelihood.rtol and atol"
            )
        done += len(nats[-1])
        if note is not None:
            so_far = Density(np.concatenate(nats), np.concatenate(evaluations), size)
            text = (
                f"{so_far.mean_bits:.4f} bits/dim" if scaling.levels else (f"{np.mean(so_far.nats):.4g} nats")
            )
            note(done, text)
    return Density(np.concatenate(nats), np.concatenate(evaluations), size)
