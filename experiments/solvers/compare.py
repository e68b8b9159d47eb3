"""Error of every solver against network evaluations, on a model that is known exactly or on a trained one."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from score_sde.sampling import sample_keys
from score_sde.sde import SDE, VP
from score_sde.solvers import GRIDS, SOLVERS, noise_of
from score_sde.solvers.table import TableSolver

MEANS = np.array([[1.0, 0.0], [-0.6, 0.8], [-0.3, -0.9]])
STD = 0.2
BUDGETS = (5, 10, 20, 40, 80)


def mixture(sde: SDE) -> Callable:
    """The exact denoiser of three equal Gaussians in the plane."""

    def denoise(x, t):
        a, s = sde.alpha(t), sde.sigma(t)
        variance = (a * STD) ** 2 + s**2
        square = jnp.sum((x[:, None] - a * MEANS[None]) ** 2, axis=-1)
        mean = jax.nn.softmax(-0.5 * square / variance, axis=1) @ jnp.asarray(MEANS, x.dtype)
        return mean + a * STD**2 / variance * (x - a * mean)

    return denoise


def trained(workdir: Path):
    """Denoiser, process and shape of one sample of a workdir's newest checkpoint."""
    from score_sde.flags import parse  # heavy imports only where they are needed
    from score_sde.modes.workdir import from_workdir, restore_average

    options = parse(["run.py", "--mode=sample", f"--workdir={workdir}"], __doc__ or "")
    experiment = from_workdir(options)
    _, _, params = restore_average(options, experiment)
    return experiment.bind(params), experiment.sde, experiment.spec.shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, help="a trained model; without it, a mixture of Gaussians")
    parser.add_argument("--grid", default="log_snr", choices=["uniform", "quadratic", "log_snr", "karras"])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--t_end", type=float, default=1e-3)
    parser.add_argument("--output", type=Path, default=Path("experiments/solvers/results"))
    arguments = parser.parse_args()

    if arguments.workdir:
        denoise, sde, shape = trained(arguments.workdir)
    else:
        sde, shape = VP(), (2,)
        denoise = mixture(sde)
    make = GRIDS[arguments.grid]
    grid = make(sde) if arguments.grid in ("log_snr", "karras") else make()
    noise = noise_of(sample_keys(0, jnp.arange(arguments.samples)), shape)
    x = sde.prior_sigma * noise(0)

    @jax.jit
    def run(plan):
        return SOLVERS["ddim"]().program.run(denoise, sde, x, plan, noise)

    def solve(solver, steps):
        return np.asarray(run(solver.plan(sde, grid(sde.t_max, arguments.t_end, steps))), np.float64)

    reference = solve(SOLVERS["multistep"](order=3), 400)
    law = np.sort(reference.reshape(len(reference), -1), axis=0)
    table = {}
    for key, make_solver in SOLVERS.items():
        if not issubclass(make_solver, TableSolver) or key == "restart":
            continue
        solver, errors = make_solver(), {}
        noisy = key in ("ddpm", "sde_dpmpp_2m", "sde_dpmpp_3m", "dpmpp_sde", "stochastic_heun")
        for budget in BUDGETS:
            steps = (budget - 1) // solver.evaluations  # the last evaluation is Tweedie's
            if not steps:
                continue
            got = solve(solver, steps)
            if noisy:  # no path to compare: the quantiles of every dimension
                got, want = np.sort(got.reshape(len(got), -1), axis=0), law
            else:
                want = reference
            errors[budget] = float(np.sqrt(np.mean((got - want) ** 2)))
        table[key] = {"noisy": noisy, "errors": errors}
        print(f"{key:18s}", *(f"{errors.get(b, np.nan):9.2e}" for b in BUDGETS), flush=True)

    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "errors.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    head = "| solver | " + " | ".join(map(str, BUDGETS)) + " |\n|" + "---|" * (len(BUDGETS) + 1) + "\n"
    rows = [
        f"| `{key}` | " + " | ".join(f"{row['errors'].get(b, np.nan):.1e}" for b in BUDGETS) + " |\n"
        for key, row in table.items()
    ]
    (arguments.output / "errors.md").write_text(head + "".join(rows), encoding="utf-8")
    plot(table, arguments.output / "errors.png")


def plot(table: dict, path: Path) -> None:
    """Error against evaluations, both logarithmic, the deterministic solvers."""
    width, height, margin = 900, 640, 60
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    lines = {k: row["errors"] for k, row in table.items() if not row["noisy"]}
    values = [np.log10(max(e, 1e-9)) for errors in lines.values() for e in errors.values() if np.isfinite(e)]
    low, high = np.floor(min(values)), np.ceil(max(values))

    def place(budget, error):
        u = np.log2(budget / BUDGETS[0]) / np.log2(BUDGETS[-1] / BUDGETS[0])
        v = (np.log10(max(error, 1e-9)) - low) / (high - low)
        return margin + u * (width - 3.5 * margin), height - margin - v * (height - 2 * margin)

    for budget in BUDGETS:
        pen.text((place(budget, 10.0**low)[0], height - margin + 8), str(budget), fill="black")
    for power in range(int(low), int(high) + 1):
        y = place(BUDGETS[0], 10.0**power)[1]
        pen.line([(margin, y), (width - 2.5 * margin, y)], fill="#dddddd")
        pen.text((8, y - 6), f"1e{power}", fill="black")
    pen.text((width / 2 - 60, height - 24), "network evaluations", fill="black")
    for i, (key, errors) in enumerate(lines.items()):
        colour = f"hsl({int(i * 360 / len(lines))}, 70%, {35 + 15 * (i % 2)}%)"
        points = [place(b, e) for b, e in errors.items() if np.isfinite(e)]
        pen.line(points, fill=colour, width=2)
        pen.text((width - 2.4 * margin, margin + 22 * i), key, fill=colour)
    image.save(path)


if __name__ == "__main__":
    main()
