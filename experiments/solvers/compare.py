"""Error of every solver against network evaluations, on a model that is known exactly or on a trained one."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.denoiser import Denoise, Estimate
from score_sde.images.charts import Chart, Line
from score_sde.names import options
from score_sde.runs.model import Model, load
from score_sde.sampling.draw import sample_keys
from score_sde.sde import SDE, VP
from score_sde.solvers import GRIDS, SOLVERS, Solver, noise_of
from score_sde.solvers.table import TableSolver

MEANS = np.array([[1.0, 0.0], [-0.6, 0.8], [-0.3, -0.9]])
STD = 0.2
BUDGETS = (5, 10, 15, 20, 50, 100)
SHOWN = ("ddim", "heun", "dpmpp_2m", "unipc", "deis", "dpmpp_3s")  # in the pictures
NOISY = ("ddpm", "sde_dpmpp_2m", "sde_dpmpp_3m", "dpmpp_sde", "stochastic_heun")

# DDIM on the grids that it is used with, beside that of the others.
OTHER_GRIDS = {"ddim": ("uniform", "quadratic")}


def mixture(sde: SDE) -> Denoise:
    """The exact denoiser of three equal Gaussians in the plane."""

    def denoise(x, t):
        a, s = sde.alpha(t), sde.sigma(t)
        variance = (a * STD) ** 2 + s**2
        square = jnp.sum((x[:, None] - a * MEANS[None]) ** 2, axis=-1)
        mean = jax.nn.softmax(-0.5 * square / variance, axis=1) @ jnp.asarray(MEANS, x.dtype)
        off = (x - a * mean) / variance
        return Estimate(mean + a * STD**2 * off, s * off)

    return denoise


def problem_of(model: Model) -> tuple[Denoise, SDE, tuple[int, ...]]:
    """The denoiser of a trained model, its process, and the shape of a sample."""
    architecture = model.architecture
    return architecture.bind(model.parts, {}), architecture.sde, architecture.state_shape


def steps_for(solver: Solver, budget: int) -> int:
    """Steps that ``budget`` network evaluations pay for; the last one is Tweedie's."""
    return (budget - 1) // solver.evaluations


class Comparison:
    """Solvers of one model on one grid, from the same noise."""

    def __init__(
        self,
        denoise: Denoise,
        sde: SDE,
        shape: tuple[int, ...],
        grid: str,
        t_end: float,
        count: int,
        first: int = 0,
    ):
        self.sde, self._grid, self._t_end = sde, grid, t_end
        self._noise = noise_of(sample_keys(0, first + jnp.arange(count)), shape)
        x = sde.prior_sigma * self._noise(0)
        program = SOLVERS["ddim"]().program
        self._run = jax.jit(lambda plan: program.run(denoise, sde, x, plan, self._noise))

    def times(self, steps: int, grid: str = "") -> np.ndarray:
        """The grid of so many steps."""
        make = GRIDS[grid or self._grid]
        given = {"sde": self.sde} if "sde" in options(make) else {}
        return make(**given)(self.sde.t_max, self._t_end, steps)

    def solve(self, solver: Solver, steps: int, grid: str = "") -> np.ndarray:
        """The samples."""
        return np.asarray(self._run(solver.plan(self.sde, self.times(steps, grid))), np.float64)

    def rows(self) -> dict[str, tuple[Solver, str]]:
        """Names, solvers and grids that are compared."""
        found: dict[str, tuple[Solver, str]] = {}
        for key, make in SOLVERS.items():
            if issubclass(make, TableSolver) and key != "restart":
                found[key] = (make(), "")
                for grid in OTHER_GRIDS.get(key, ()):
                    found[f"{key}, {grid}"] = (make(), grid)
        return found

    def errors(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """Distance from a fine solution, of every solver, or of those named, at every budget."""
        reference = self.solve(SOLVERS["multistep"](order=3), 400)
        law, table = np.sort(reference.reshape(len(reference), -1), axis=0), {}
        for key, (solver, grid) in self.rows().items():
            if names and key.partition(",")[0] not in names:
                continue
            errors, noisy = {}, key in NOISY
            for budget in BUDGETS:
                steps = steps_for(solver, budget - {"plms": 1, "pndm": 9}.get(key, 0))  # what a start takes
                if steps < 1:
                    continue
                got, want = self.solve(solver, steps, grid), reference
                if noisy:  # no path to compare: the quantiles of every dimension
                    got, want = np.sort(got.reshape(len(got), -1), axis=0), law
                errors[budget] = float(np.sqrt(np.mean((got - want) ** 2)))
            table[key] = {"noisy": noisy, "errors": errors}
            print(f"{key:18s}", *(f"{errors.get(b, np.nan):9.2e}" for b in BUDGETS), flush=True)
        return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, help="a trained model; without it, a mixture of Gaussians")
    parser.add_argument("--grid", default="log_snr", choices=["uniform", "quadratic", "log_snr", "karras"])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--solvers", nargs="*", default=[], help="only these")
    parser.add_argument("--scored", type=int, default=0, help="samples for distances from the data")
    parser.add_argument("--rows", nargs="*", default=[], help='only these "solver, grid" are scored')
    parser.add_argument("--classifier", type=Path, help="its features instead of pixels, for --scored")
    parser.add_argument("--t_end", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, default=Path("experiments/solvers/results"))
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.workdir:
        model = load(arguments.workdir)
        problem = problem_of(model)
        if arguments.scored:
            score(arguments, model)
    else:
        problem = (mixture(VP()), VP(), (2,))
    if arguments.samples:
        comparison = Comparison(*problem, arguments.grid, arguments.t_end, arguments.samples)
        write(arguments.output, comparison.errors(arguments.solvers))


def score(arguments: argparse.Namespace, model: Model) -> None:
    """Distances from the data."""
    import quality

    folder = arguments.output / "samples"
    draws = quality.Draws(model, arguments.scored, arguments.t_end, folder)
    name = "quality_classifier" if arguments.classifier else "quality"
    quality.report(
        draws,
        quality.features_of(arguments.classifier),
        quality.training_data(model),
        arguments.rows,
        arguments.output / name,
    )


def write(output: Path, table: dict) -> None:
    """The errors as JSON, as a Markdown table and, for some solvers, as a picture."""
    (output / "errors.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    head = "| solver | " + " | ".join(map(str, BUDGETS)) + " |\n|" + "---|" * (len(BUDGETS) + 1) + "\n"
    rows = [
        f"| `{key}` | " + " | ".join(f"{row['errors'].get(b, np.nan):.1e}" for b in BUDGETS) + " |\n"
        for key, row in table.items()
    ]
    (output / "errors.md").write_text(head + "".join(rows), encoding="utf-8")
    lines = []
    for key in (key for key in SHOWN if key in table):
        budgets = [b for b in table[key]["errors"] if b <= 50]
        lines.append(Line(key, np.array(budgets), np.array([table[key]["errors"][b] for b in budgets])))
    title = "Distance from the fine solution, same noise"
    Chart(title, "network evaluations", "root mean square", tuple(lines), log=True).write_png(
        output / "errors.png"
    )


if __name__ == "__main__":
    main()
