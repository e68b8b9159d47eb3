"""Log density of a whole data set, example by example."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from score_sde.arrays import Parts
from score_sde.conditions import Cond
from score_sde.data import Source
from score_sde.evaluate.batches import Dequantise, Encoder, encoded_batches, to_host
from score_sde.evaluate.cache import NO_CACHE, Cache
from score_sde.likelihood.ode_density import bits_per_dim
from score_sde.runtime.mesh import BATCH


class Measured(NamedTuple):
    """What is measured of a batch.

    Attributes:
      nats: log density in the model's units, by independent estimates that share everything else (probes),
        ``(B, K)``.
      evaluations: network evaluations, ``(B,)``.
      error: known numerical error of ``nats``, ``(B, K)``.
    """

    nats: Array
    evaluations: Array
    error: Array


class Errors(NamedTuple):
    """Standard errors of a mean over examples by source, whose squares add up to that of the whole.

    A source that was drawn once cannot be separated: it is None, and part of the next before it.

    Attributes:
      whole: from the spread of the examples' means; infinite for one example.
      data, dequantization, probes: of the draw of examples, of the noise added to each, of the directions.
    """

    whole: float
    data: float | None
    dequantization: float | None
    probes: float | None


@dataclass(frozen=True)
class Density:
    """Log density of every example of a set, in its order.

    Attributes:
      draws: log density in the units of the data by example, draw of the dequantisation noise and probe,
        ``(N, M, K)`` float64: of dequantised integer data, a lower bound on the log probability (Theis et al.
        2016, arXiv:1511.01844, section 3.1).
      evaluations: network evaluations, ``(N, M)``.
      error: largest known numerical error, nats.
      size: dimensions of one example.
    """

    draws: np.ndarray
    evaluations: np.ndarray
    error: float
    size: int

    @property
    def nats(self) -> np.ndarray:
        """Mean over the draws, ``(N,)``."""
        return self.draws.mean(axis=(1, 2))

    @property
    def bits(self) -> np.ndarray:
        """Bits per dimension, ``(N,)``."""
        return np.asarray(bits_per_dim(self.nats, self.size))  # type: ignore[arg-type]

    @property
    def mean_bits(self) -> float:
        return float(np.mean(self.bits))

    @property
    def errors_nats(self) -> Errors:
        """Standard errors of the mean of ``nats``."""
        return split_errors(self.draws)

    @property
    def standard_error_bits(self) -> float:
        """Standard error of the mean over examples; infinite for one example."""
        return self.errors_nats.whole / (self.size * math.log(2.0))


def split_errors(draws: np.ndarray) -> Errors:
    """Errors of the mean of a nested design, ``(N, M, K)``, by analysis of variance.

    A component whose estimate comes out negative is zero.
    """
    count, repeats, probes = draws.shape
    whole = _variance(draws.mean(axis=(1, 2)), 0) / count
    within = np.mean(_variance(draws, 2)) if probes > 1 else None
    between = np.mean(_variance(draws.mean(axis=2), 1)) if repeats > 1 else None
    of_probes = None if within is None else within / (count * repeats * probes)
    if between is None:
        of_noise, rest = None, of_probes
    else:
        rest = between / (count * repeats)  # noise and probes together
        of_noise = max(rest - (of_probes or 0.0), 0.0)
    of_data = None if rest is None else max(whole - rest, 0.0)
    return Errors(*(None if v is None else math.sqrt(v) for v in (whole, of_data, of_noise, of_probes)))  # type: ignore[arg-type]


def _variance(values: np.ndarray, axis: int) -> Any:
    if values.shape[axis] == 1:
        return math.inf
    return np.var(values, axis=axis, ddof=1)


Measure = Callable[[Parts, Array, Array, Cond], Measured]


def measure_density(
    measure: Measure,
    params: Parts,
    source: Source,
    encoder: Encoder,
    mesh: Mesh,
    *,
    batch_size: int,
    seed: int,
    log_volume: float,
    draws: int = 1,
    dequantise: Dequantise | None = None,
    cache: Cache = NO_CACHE,
    note: Callable[[int, float], None] | None = None,
) -> Density:
    """Measure every example of ``source``; the last batch is filled up and cut, nothing is dropped.

    Args:
      measure: ``(params, keys, x, cond) -> Measured``; each device runs its own examples.
      log_volume: what is added to ``nats`` for each dimension, from the model's units to the data's.
      draws: of the dequantisation noise.
      dequantise: a density of that noise, see ``encoded_batches``; its ``log_q`` is subtracted.
      cache: where every finished batch is kept, and looked for first.
      note: called with the count done and their mean ``nats`` in the units of the data, after each batch.

    Raises:
      FloatingPointError: an example could not be integrated in ``max_steps``.
    """
    compiled = _compile(measure, mesh)
    size = math.prod(source.spec.shape)
    done: list[dict[str, np.ndarray]] = []
    batches = encoded_batches(
        source, encoder, mesh, batch_size=batch_size, seed=seed, draws=draws, dequantise=dequantise
    )
    total = 0
    for number, group in enumerate(_groups(batches, draws)):
        piece = cache.read(number)
        if piece is None:
            piece = _of_draws(
                [(to_host(_less(compiled(params, b.keys, b.x, b.cond), b.log_q)), b.mask) for b in group]
            )
            _check_finite(piece["nats"], total)
            cache.write(number, piece)
        done.append(piece)
        total += len(piece["nats"])
        if note is not None:
            nats = np.concatenate([p["nats"].mean(axis=(1, 2)) for p in done])
            note(total, float(np.mean(nats)) + size * log_volume)
    joined = {name: np.concatenate([p[name] for p in done]) for name in Measured._fields}
    return Density(
        joined["nats"].astype(np.float64) + size * log_volume,
        joined["evaluations"],
        float(np.max(joined["error"])),
        size,
    )


@functools.lru_cache(maxsize=16)
def _compile(measure: Measure, mesh: Mesh) -> Measure:
    """Compiled, each device with its own examples, so that one which takes long holds up no other device."""
    whole, split = PartitionSpec(), PartitionSpec(BATCH)
    specs = (whole, split, split, split)
    return jax.jit(jax.shard_map(measure, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False))


def _of_draws(rows: list[tuple[Measured, np.ndarray]]) -> dict[str, np.ndarray]:
    """One batch of examples, of which each row is another draw: ``(n, M, ...)`` by name."""
    return {
        name: np.stack([np.asarray(getattr(row, name))[mask] for row, mask in rows], axis=1)
        for name in Measured._fields
    }


def _check_finite(nats: np.ndarray, first: int) -> None:
    bad = ~np.isfinite(nats).all(axis=(1, 2))
    if bad.any():
        raise FloatingPointError(
            f"the log density of example {first + int(np.argmax(bad))} is not finite: the integration gave "
            "up; raise likelihood.integrator.max_steps, or loosen its rtol and atol"
        )


def _less(measured: Measured, log_q: Array) -> Measured:
    return measured._replace(nats=measured.nats - log_q[:, None])


def _groups(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Runs of ``size``; the batches of one run hold the same examples."""
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
