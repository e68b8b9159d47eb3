"""From keys to samples: prior, solver, last move; any number of samples, over any number of devices."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from score_sde.arrays import Parts
from score_sde.conditions import NONE_CHOSEN, Chosen, Cond
from score_sde.denoiser import Bind, Denoise
from score_sde.runtime.mesh import round_up
from score_sde.sampling.chunks import (
    AS_PLACED,
    SPLIT,
    WHOLE,
    Draw,
    Progress,
    compile_trajectory,
    over_devices,
)
from score_sde.sde import SDE
from score_sde.solvers import Hooks, Plan, Solver, StepSolver, noise_of


def sample_keys(seed: int, indices: Array) -> Array:
    """One key per sample, a function of the seed and the sample's number: ``(B,) -> (B,)`` keys."""
    root = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(indices)


def sample(
    keys: Array,
    denoise: Denoise,
    sde: SDE,
    solver: Solver,
    plan: Plan,
    *,
    shape: tuple[int, ...],
) -> Array:
    """Draw one sample per key: ``(B,)`` keys to ``(B, *shape)`` float32, in the model's data range.

    Under ``jit`` with ``solver.program`` in place of ``solver``, and the plan as an argument, solvers of one
    program share one compilation.

    Args:
      denoise: the model, with every condition already bound.
      plan: of ``solver`` on a time grid.
      shape: of one sample.
    """
    noise = noise_of(keys, shape)
    x = sde.prior_sigma * noise(0)
    x = solver.run(denoise, sde, x, plan, noise)
    return solver.finish(denoise, x, plan)


def sample_with_hooks(
    keys: Array,
    denoise: Denoise,
    sde: SDE,
    solver: StepSolver,
    plan: Plan,
    hooks: Hooks,
    *,
    shape: tuple[int, ...],
) -> tuple[Array, Array]:
    """``sample`` with functions between the steps: the samples, and the states that were kept.

    Returns:
      ``(B, *shape)`` and ``(hooks.keep, B, *shape)``.
    """
    noise = noise_of(keys, shape)
    x = sde.prior_sigma * noise(0)
    x, kept = solver.trace(denoise, x, plan, noise, hooks)
    return solver.finish(denoise, x, plan), kept


_TAKES = (AS_PLACED, WHOLE, SPLIT, SPLIT)


def compile_sample(
    bind: Bind,
    sde: SDE,
    solver: Solver,
    mesh: Mesh,
    *,
    shape: tuple[int, ...],
    progress: Progress | None = None,
) -> Draw:
    """A compiled ``(parts, plan, keys, cond) -> (B, *shape)`` whose batch is split over ``mesh``.

    Each device runs its own samples to the end without waiting for the others, unless the solver couples
    the batch.  The host runs a solver with steps in chunks (``chunks.compile_trajectory``); one that
    chooses its steps on the way is one program.

    Args:
      progress: called with the first step of a chunk as the devices begin it.
    """
    program = solver.program
    if isinstance(program, StepSolver):
        trajectory = compile_trajectory(bind, sde, program, mesh, Hooks(), shape=shape, progress=progress)
        last = over_devices(lambda states: states[:, -1], mesh, (SPLIT,), SPLIT, program.couples_batch)
        return lambda *given: last(trajectory(*given))

    def draw(parts: Parts, plan: Plan, keys: Array, cond: Cond) -> Array:
        return sample(keys, bind(parts, cond), sde, program.given(cond), plan, shape=shape)

    return over_devices(draw, mesh, _TAKES, SPLIT, program.couples_batch)


def generate(
    draw: Draw,
    parts: Parts,
    plan: Plan,
    mesh: Mesh,
    *,
    seed: int,
    num_samples: int,
    batch_size: int,
    chosen: Chosen = NONE_CHOSEN,
    inputs: Mapping[str, np.ndarray] = MappingProxyType({}),
    start: int = 0,
    counted_from: int = 0,
) -> Iterator[np.ndarray]:
    """Samples ``start .. num_samples - 1`` in batches, on the host: each ``(<= batch_size, *shape)``.

    The last batch is computed at full size and cut; a sample depends on ``seed`` and its number only.

    Args:
      chosen: the conditions of a sample, by its number.
      inputs: of the guidance for every sample, ``(num_samples, ...)`` by name.
      counted_from: added to the number of a sample in its key, where these are a part of more.

    Raises:
      FloatingPointError: samples that are not finite, naming their numbers.
    """
    size = round_up(min(batch_size, num_samples - start), mesh)
    for first in range(start, num_samples, size):
        x = _batch(draw, parts, plan, seed, first, size, num_samples, chosen, inputs, counted_from)
        if jax.process_count() > 1:
            x = multihost_utils.process_allgather(x, tiled=True)
        batch = np.asarray(x)[: num_samples - first]
        _check_finite(batch, first)
        yield batch


def generate_share(
    draw: Draw,
    parts: Parts,
    plan: Plan,
    *,
    seed: int,
    firsts: Sequence[int],
    size: int,
    num_samples: int,
    chosen: Chosen = NONE_CHOSEN,
    inputs: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Iterator[tuple[int, np.ndarray]]:
    """The rows of some batches that are on this process's devices: pairs of the first's number and the rows.

    Nothing is sent between processes.

    Args:
      firsts: number of the first sample of each batch.
      size: samples of a batch, a multiple of the number of devices.
      num_samples: in all; those after them are cut off.
      chosen: as of ``generate``.

    Raises:
      FloatingPointError: as ``generate``.
    """
    for first in firsts:
        x = _batch(draw, parts, plan, seed, first, size, num_samples, chosen, inputs)
        shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
        begin = first + (shards[0].index[0].start or 0)
        rows = np.concatenate([np.asarray(shard.data) for shard in shards])[: max(0, num_samples - begin)]
        _check_finite(rows, begin)
        yield begin, rows


def _batch(
    draw: Draw,
    parts: Parts,
    plan: Plan,
    seed: int,
    first: int,
    size: int,
    num_samples: int,
    chosen: Chosen,
    inputs: Mapping[str, np.ndarray],
    counted_from: int = 0,
) -> Array:
    """Samples ``first .. first + size - 1`` over all devices."""
    numbers = np.minimum(np.arange(first, first + size), num_samples - 1)
    given = {**chosen.of(numbers), **{name: of_each[numbers] for name, of_each in inputs.items()}}
    cond = {name: jnp.asarray(values) for name, values in given.items()}
    return draw(parts, plan, sample_keys(seed, jnp.asarray(numbers + counted_from)), cond)


def _check_finite(batch: np.ndarray, first: int) -> None:
    bad = ~np.isfinite(batch).all(axis=tuple(range(1, batch.ndim)))
    if bad.any():
        raise FloatingPointError(
            f"{bad.sum()} of {len(batch)} samples are not finite, the first is number "
            f"{first + int(np.argmax(bad))}; more sampling.steps, or for an ODE max_steps, may help"
        )
