"""Loss of a whole data set by noise level: what the training loss, an average over levels, hides."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from score_sde.arrays import Parts
from score_sde.conditions import Cond
from score_sde.data import Source
from score_sde.denoiser import Bind
from score_sde.evaluate.batches import Encoder, Note, encoded_batches, to_host
from score_sde.losses import loss_at_level
from score_sde.runtime.mesh import BATCH
from score_sde.sde import SDE


@dataclass(frozen=True)
class Levels:
    """Mean square errors at fixed times.

    Attributes:
      t, log_snr: the times and their log signal-to-noise ratios, ``(L,)``.
      noise, x0: mean square error of the noise (1 at worst) and of the clean sample, per dimension, ``(L,)``.
      noise_error: standard error of ``noise`` over examples, ``(L,)``.
    """

    t: np.ndarray
    log_snr: np.ndarray
    noise: np.ndarray
    x0: np.ndarray
    noise_error: np.ndarray

    @property
    def mean(self) -> float:
        """Mean of ``noise`` over the levels: the plain training objective on these data."""
        return float(np.mean(self.noise))


def level_times(sde: SDE, count: int) -> np.ndarray:
    """``count`` times at the centres of equal cells of ``[t_min, t_max]``; for a process with ``steps``
    levels, the nearest of them."""
    unit = (np.arange(count) + 0.5) / count
    if hasattr(sde, "steps"):
        last = getattr(sde, "steps") - 1  # noqa: B009  not every process has it
        unit = np.round(unit * last) / last
    return sde.t_min + (sde.t_max - sde.t_min) * unit


def measure_levels(
    bind: Bind,
    sde: SDE,
    mesh: Mesh,
) -> Callable[..., Levels]:
    """A function ``(parts, source, encoder, *, times, batch_size, seed, note) -> Levels``.

    ``note`` is called after every level of every batch with the number of examples that are done.

    Made once and called often: its program is compiled at the first call.
    """

    def errors(
        parts: Parts, x: Array, keys: Array, cond: Cond, index: Array, t: Array
    ) -> tuple[Array, Array]:
        return loss_at_level(bind(parts, cond), sde, x, keys, index, t)

    whole, split = PartitionSpec(), PartitionSpec(BATCH)
    compiled = jax.jit(
        jax.shard_map(
            errors,
            mesh=mesh,
            in_specs=(whole, split, split, split, whole, whole),
            out_specs=split,
            check_vma=False,
        )
    )

    def measure(
        parts: Parts,
        source: Source,
        encoder: Encoder,
        *,
        times: np.ndarray,
        batch_size: int,
        seed: int,
        note: Note | None = None,
    ) -> Levels:
        t = jnp.asarray(times, jnp.float32)
        errors, done = [], 0
        for batch in encoded_batches(source, encoder, mesh, batch_size=batch_size, seed=seed):
            size, of_batch = int(batch.mask.sum()), []
            for i, at in enumerate(t):  # level by level, so that a measurement can be left after each
                both = to_host(compiled(parts, batch.x, batch.keys, batch.cond, jnp.uint32(i), at))
                of_batch.append(np.asarray(both, np.float64)[:, batch.mask])
                if note is not None and i + 1 < len(t):
                    note(done + size * (i + 1) // len(t), "")
            errors.append(np.stack(of_batch, axis=1))
            done += size
            if note is not None:
                note(done, f"loss {np.mean([e[0].mean() for e in errors]):.4g}")
        return _summary(np.asarray(times), np.asarray(sde.log_snr(t)), np.concatenate(errors, axis=2))

    return measure


def _summary(t: np.ndarray, log_snr: np.ndarray, errors: np.ndarray) -> Levels:
    """Of ``(2, L, N)`` errors, of the noise and of ``x0``."""
    noise, x0 = errors
    deviation = noise.std(axis=1) / math.sqrt(noise.shape[1])
    return Levels(t, log_snr, noise.mean(axis=1), x0.mean(axis=1), deviation)
