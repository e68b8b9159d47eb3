"""A sampler whose steps the host runs in chunks, so that it knows where the devices are.

A program that reports from inside holds the address of a function, which is another one in the next process,
so that JAX compiles it at every start.  And until it ends no signal is answered.  Here the host calls one
program, which takes any number of steps, again and again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from score_sde.arrays import Parts
from score_sde.conditions import Cond
from score_sde.denoiser import Bind
from score_sde.runtime.mesh import BATCH
from score_sde.sde import SDE
from score_sde.solvers import Carry, Hooks, Plan, StepSolver, Watch, noise_of

CHUNKS = 50  # of a batch, at most: each costs the host a call, 1 ms on a CPU

Progress = Callable[[int], None]

WHOLE, SPLIT, LATER = PartitionSpec(), PartitionSpec(BATCH), PartitionSpec(None, BATCH)
AS_PLACED = None  # parameters: whole, or split while such a model is trained


def over_devices(function: Callable, mesh: Mesh, takes: tuple, gives: Any, couples_batch: bool) -> Callable:
    """A jitted function whose batch is split over ``mesh``.

    Each device computes its own samples without waiting for the others, unless the batch is coupled.

    Args:
      takes: how each argument is placed, a prefix of its tree.
      gives: how the result is placed.
    """
    if not couples_batch:
        here = tuple(WHOLE if spec is AS_PLACED else spec for spec in takes)
        function = jax.shard_map(function, mesh=mesh, in_specs=here, out_specs=gives, check_vma=False)
    given, given_back = jax.tree.map(lambda spec: NamedSharding(mesh, spec), (takes, gives))
    return jax.jit(function, in_shardings=given, out_shardings=given_back)


_CARRY: Any = Carry(SPLIT, SPLIT, Watch(WHOLE, SPLIT, LATER))  # type: ignore[arg-type]

Draw = Callable[[Parts, Plan, Array, Cond], Array]


def compile_trajectory(
    bind: Bind,
    sde: SDE,
    solver: StepSolver,
    mesh: Mesh,
    hooks: Hooks,
    *,
    shape: tuple[int, ...],
    progress: Progress | None = None,
) -> Draw:
    """``(parts, plan, keys, cond) -> (B, hooks.keep + 1, *shape)``: kept states, then the samples.

    They are drawn in at most ``CHUNKS`` chunks, the batch split over ``mesh``.

    Args:
      progress: called with the first row of a chunk as the devices begin it.
    """
    program = solver.program
    assert isinstance(program, StepSolver)

    def prepare(plan: Plan, keys: Array, cond: Cond) -> tuple[Plan, Carry]:
        noise = noise_of(keys, shape)
        # The plan too, since it is on the devices then.
        return plan, program.given(cond).prepare(sde.prior_sigma * noise(0), plan, noise, hooks)

    def advance(
        parts: Parts, plan: Plan, keys: Array, cond: Cond, carry: Carry, first: Array, last: Array
    ) -> tuple[Carry, Array]:
        solver, denoise, noise = program.given(cond), bind(parts, cond), noise_of(keys, shape)
        carry = solver.advance(denoise, carry, plan, noise, hooks, first, last)
        # Here, since XLA compiles two copies of a network in one program beside each other.
        x = jax.lax.cond(
            last == solver.count(plan), lambda: solver.finish(denoise, carry.x, plan), lambda: carry.x
        )
        return carry, x

    def splice(kept: Array, x: Array) -> Array:
        return jnp.moveaxis(jnp.concatenate([kept, x[None]]), 0, 1)

    coupled = program.couples_batch
    begin = over_devices(prepare, mesh, (WHOLE, SPLIT, SPLIT), (WHOLE, _CARRY), coupled)
    takes = (AS_PLACED, WHOLE, SPLIT, SPLIT, _CARRY, WHOLE, WHOLE)
    some = over_devices(advance, mesh, takes, (_CARRY, SPLIT), coupled)
    trajectory = over_devices(splice, mesh, (LATER, SPLIT), SPLIT, coupled)

    def draw(parts: Parts, plan: Plan, keys: Array, cond: Cond) -> Array:
        count = program.count(plan)
        length = -(-count // CHUNKS)
        plan, carry = begin(plan, keys, cond)
        x = carry.x
        for first in range(0, count, length):
            chunk = np.int32(first), np.int32(min(first + length, count))
            following, x = some(parts, plan, keys, cond, carry, *chunk)
            jax.block_until_ready(carry)  # the host is one chunk ahead, and this one begins now
            if progress is not None:
                progress(first)
            carry = following
        return trajectory(carry.watch.kept, x)

    return draw
