"""Search for the time grid of a trained model, a solver and a number of steps, and save it for later runs.

The search starts from the best of the usual grids, on some noise; what is printed was measured on other
noise, as the distance from a fine solution.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from compare import Comparison, problem_of

from score_sde.runs.model import load
from score_sde.sampling.draw import sample_keys
from score_sde.solvers import SOLVERS, noise_of
from score_sde.solvers.grids import save_times
from score_sde.solvers.search import path_error, refine_grid

STARTS = ("uniform", "quadratic", "log_snr", "karras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--solvers", nargs="+", default=["unipc", "dpmpp_2m"])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--t_end", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("."), help="where times_<solver>.json go")
    arguments = parser.parse_args()

    denoise, sde, shape = problem_of(load(arguments.workdir))
    count = arguments.samples

    def measure(first: int) -> tuple[Comparison, Callable[[str], Callable]]:
        """Grids, and the error of a solver's grid, on samples from number ``first`` on."""
        some = Comparison(denoise, sde, shape, "log_snr", arguments.t_end, count, first)
        want = jnp.asarray(some.solve(SOLVERS["multistep"](order=3), 200), jnp.float32)
        noise = noise_of(sample_keys(0, first + jnp.arange(count)), shape)
        x = sde.prior_sigma * noise(0)
        return some, lambda key: path_error(denoise, sde, SOLVERS[key](), x, want, noise)

    grids, search = measure(count)
    _, test = measure(0)
    ddim = test("ddim")
    for grid in STARTS:
        print(
            f"ddim, {grid}: {ddim(grids.times(5 * arguments.steps, grid)):.4f} at {5 * arguments.steps} steps"
        )
    for key in arguments.solvers:
        error, judge = search(key), test(key)
        starts = {grid: grids.times(arguments.steps, grid) for grid in STARTS}
        for grid, times in starts.items():
            print(f"{key}, {grid}: {judge(times):.4f} at {arguments.steps} steps", flush=True)
        times, _ = refine_grid(sde, min(starts.values(), key=error), error, arguments.rounds)
        print(f"{key}, found: {judge(times):.4f}, times {np.round(times, 4).tolist()}", flush=True)
        path = arguments.output / f"times_{key}.json"
        save_times(path, times)
        print(
            f"--config.sampling.solver={key} --config.sampling.steps={arguments.steps} "
            f"--config.sampling.grid=file --config.sampling.grid.times_file={path}"
        )


if __name__ == "__main__":
    main()
