"""A search for the time grid of a model, in the spirit of align-your-steps (arXiv:2404.14507)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.denoiser import Denoise
from score_sde.sde import SDE
from score_sde.solvers.base import Noise, Solver, marginals, times_at


def path_error(
    denoise: Denoise, sde: SDE, solver: Solver, x: Array, want: Array, noise: Noise | None = None
) -> Callable[[np.ndarray], float]:
    """How far a grid takes ``x`` from where it should end: ``times -> root mean square error``.

    Grids of one length share one compilation.

    Args:
      x: states at the first time, ``(B, *D)``.
      want: where they should end, such as the result of a fine grid or of ``AdaptiveODE``; ``(B, *D)``.
    """
    program = solver.program

    @jax.jit
    def distance(plan: object) -> Array:
        got = program.finish(denoise, program.run(denoise, sde, x, plan, noise), plan)  # type: ignore[arg-type]
        return jnp.sqrt(jnp.mean((got - want) ** 2))

    return lambda times: float(distance(solver.plan(sde, times)))


def refine_grid(
    sde: SDE, times: np.ndarray, error: Callable[[np.ndarray], float], rounds: int = 8
) -> tuple[np.ndarray, float]:
    """A grid with less error than ``times``: each inner time is tried nearer to its neighbours, in log-SNR.

    Coordinate descent; a move that helps is kept, and moves shrink when none does.

    Args:
      times: decreasing, ``(n + 1,)``, with finite log-SNR; its ends stay.
      error: of a grid, for instance ``path_error``.
      rounds: passes over the inner times.

    Returns:
      The grid, for ``grid = 'list'``, and its error.
    """
    times, share = np.array(times, np.float64), 0.4
    best = error(times)
    for _ in range(rounds):
        before = best
        for i in range(1, len(times) - 1):
            lam = marginals(sde, times[i - 1 : i + 2]).lam
            for neighbour in (lam[0], lam[2]):
                target = np.array([lam[1] + share * (neighbour - lam[1])])
                trial = times.copy()
                trial[i] = times_at(sde, target, times[i + 1], times[i - 1])[0]
                value = error(trial)
                if value < best:
                    times, best = trial, value
                    break
        if best > 0.99 * before:
            share *= 0.5
    return times, best
