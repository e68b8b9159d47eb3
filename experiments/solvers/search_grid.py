"""Search for the time grid of a trained model, a solver and a number of steps, and save it for later runs."""

import argparse
from pathlib import Path

import jax.numpy as jnp
from compare import Comparison, trained

from score_sde.sampling import sample_keys
from score_sde.solvers import SOLVERS, noise_of
from score_sde.solvers.grids import save_times
from score_sde.solvers.search import path_error, refine_grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--solver", default="dpmpp_2m")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--grid", default="log_snr", help="where the search starts")
    parser.add_argument("--t_end", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("times.json"))
    arguments = parser.parse_args()

    experiment, params = trained(arguments.workdir)
    denoise, sde, shape = experiment.bind(params), experiment.sde, experiment.spec.shape
    solver = SOLVERS[arguments.solver]()
    errors = {}
    for name, first in (("search", 0), ("test", arguments.samples)):  # other samples to judge by
        noise = noise_of(sample_keys(0, first + jnp.arange(arguments.samples)), shape)
        fine = Comparison(denoise, sde, shape, "log_snr", arguments.t_end, arguments.samples, first)
        want = jnp.asarray(fine.solve(SOLVERS["multistep"](order=3), 200), jnp.float32)
        errors[name] = path_error(denoise, sde, solver, sde.prior_sigma * noise(0), want, noise)
    start = Comparison(denoise, sde, shape, arguments.grid, arguments.t_end, 1).times(arguments.steps)
    times, _ = refine_grid(sde, start, errors["search"], arguments.rounds)
    print(f"error of the start {errors['test'](start):.4f}, of the grid found {errors['test'](times):.4f}")
    save_times(arguments.output, times)
    print(
        f"--config.sampling.solver={arguments.solver} --config.sampling.steps={arguments.steps} "
        f"--config.sampling.grid=file --config.sampling.times_file={arguments.output}"
    )


if __name__ == "__main__":
    main()
