"""How good, and how honest, answers to inverse problems are: error, CRPS and coverage on held-out pictures.

    python experiments/inverse/calibration.py --workdir=runs/digits --examples=64 --samples=16

For each task and method, of the grey values 0 to 1 that are to be found: the root mean square error of the
mean of the samples, the CRPS (Gneiting & Raftery 2007, eq. 21), the share of true values within the central
50 and 90 % of the samples, and seconds.  Beside them stand answers that need no diffusion model: the mean of
the training pictures, bicubic enlargement, the training picture that agrees best with the measurement, and
linear regression, whose posterior of Gaussian data has the mean and covariance of the training pictures.
"""

import argparse
import time
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from PIL import Image

import score_sde
from score_sde.inverse import EDITS, LinearOperator
from score_sde.runs.inputs import to_user
from score_sde.runs.posterior import measure

TASKS = {
    "box": ("inpaint", {"mask": "box"}),
    "half": ("inpaint", {"mask": "half"}),
    "random": ("inpaint", {"mask": "random"}),
    "superres": ("superres", {"factor": 4}),
    "deblur": ("deblur", {"blur_sigma": 1.5}),
}
Given = Mapping[str, np.ndarray]


def scores(samples: np.ndarray, truth: np.ndarray, sought: np.ndarray) -> dict[str, float]:
    """Of ``(N, S, *D)`` samples and ``(N, *D)`` truths on [0, 1], where ``sought`` ``(N, *D)``."""
    error = samples.mean(axis=1) - truth
    spread = np.abs(samples[:, :, None] - samples[:, None]).mean(axis=(1, 2)) if samples.shape[1] > 1 else 0.0
    crps = np.abs(samples - truth[:, None]).mean(axis=1) - 0.5 * spread
    found = {"rmse": float(np.sqrt(np.mean(error[sought] ** 2))), "crps": float(np.mean(crps[sought]))}
    if samples.shape[1] > 1:
        for share in (0.5, 0.9):
            low, high = np.quantile(samples, [(1 - share) / 2, (1 + share) / 2], axis=1)
            found[f"in {share:.0%}"] = float(np.mean(((low <= truth) & (truth <= high))[sought]))
    return found


def of_picture(operator: LinearOperator, states: np.ndarray, given: Given, i: int) -> np.ndarray:
    """Pictures measured as picture ``i`` is: ``(n, *D)`` to ``(n, m)``."""
    same = {k: jnp.broadcast_to(jnp.asarray(v[i]), (len(states), *v[i].shape)) for k, v in given.items()}
    return np.asarray(operator.apply(jnp.asarray(states, jnp.float32), same)).reshape(len(states), -1)


def without_a_model(
    operator: LinearOperator, states: np.ndarray, seen: np.ndarray, given: Given, noise_std: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of the training ``states`` for each measurement, and samples of the Gaussian posterior."""
    flat = states.reshape(len(states), -1).astype(np.float64)
    mean, covariance = flat.mean(axis=0), np.cov(flat.T) + 1e-6 * np.eye(flat.shape[1])
    units = np.eye(flat.shape[1], dtype=np.float32).reshape(-1, *states.shape[1:])
    root = np.linalg.cholesky(covariance)
    rng, nearest, drawn = np.random.Generator(np.random.PCG64(1)), [], []
    for i, y in enumerate(seen.reshape(len(seen), -1)):
        nearest.append(states[np.square(of_picture(operator, states, given, i) - y).sum(axis=1).argmin()])
        matrix = of_picture(operator, units, given, i).T
        used = np.abs(matrix).sum(axis=1) > 0
        matrix, y = matrix[used], y[used]
        gain = np.linalg.solve(
            matrix @ covariance @ matrix.T + noise_std**2 * np.eye(len(y)), matrix @ covariance
        ).T
        # A draw of the prior and of its measurement, moved by how far that is from the one at hand.
        prior = mean + rng.standard_normal((count, len(mean))) @ root.T
        noise = noise_std * rng.standard_normal((count, len(y)))
        drawn.append(prior + (y - prior @ matrix.T - noise) @ gain.T)
    return np.stack(nearest), np.stack(drawn).reshape(len(seen), count, *states.shape[1:])


def enlarged(small: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Small pictures ``(N, h, w, 1)`` in the model's range, made larger by bicubic interpolation."""
    size = (shape[1], shape[0])
    return np.stack(
        [np.asarray(Image.fromarray(one[..., 0]).resize(size, Image.Resampling.BICUBIC)) for one in small]
    )[..., None]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--noise_std", type=float, default=0.05)
    parser.add_argument("--methods", default="mmps,ddnm")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--steps", type=int, default=18)
    args = parser.parse_args()
    changes = {"sampling.solver": "heun", "sampling.grid": "karras", "sampling.steps": args.steps}
    model = score_sde.load(args.workdir, changes={**changes, "sampling.batch_size": 128})
    legacy = {"sampling.solver": "legacy_pc", "sampling.solver.predictor": "reverse_diffusion"}
    official = model.change({**legacy, "sampling.grid": "uniform", "sampling.steps": 10 * args.steps})
    spec, shape = model.architecture.spec, model.architecture.state_shape
    held_out, train = model.workdir.source("test"), model.workdir.source("train")
    truth = to_user(held_out.read(np.arange(args.examples))["x"], spec)
    known = to_user(train.read(np.arange(min(5000, len(train))))["x"], spec)
    states = model.encode_state(known)
    print("| task | answer | RMSE | CRPS | in 50 % | in 90 % | s |")
    print("|---|---|---|---|---|---|---|")
    for name in args.tasks.split(","):
        task = EDITS[TASKS[name][0]](**TASKS[name][1])
        operator, given = task.operator(shape), task.given(shape, len(truth))
        measured = measure(model, truth, operator, given)
        noise = np.random.Generator(np.random.PCG64(0)).standard_normal(measured.shape).astype(np.float32)
        seen = measured + args.noise_std * noise * task.seen(given)
        sought = given["mask"] == 0 if "mask" in given else np.ones(truth.shape, bool)
        nearest, linear = without_a_model(operator, states, seen, given, args.noise_std, args.samples)
        answers = {
            "mean of the training pictures": np.broadcast_to(states.mean(axis=0), (len(truth), 1, *shape)),
            "nearest training picture": nearest[:, None],
            "linear regression": linear,
        }
        if name == "superres":
            answers["bicubic"] = enlarged(seen, shape)[:, None]
        for answer, values in answers.items():
            pictures = model.architecture.decode(model.parts, values.reshape(-1, *shape)).reshape(
                values.shape
            )
            report(name, answer, scores(pictures / 255.0, truth / 255.0, sought))
        for method in args.methods.split(","):
            scale = {"sigma_data": float(states[:1000].std())} if method in ("pigdm", "tds") else {}
            start = time.monotonic()
            pictures = (official if method == "legacy_replacement" else model).posterior(
                seen,
                operator,
                given=given,
                noise_std=args.noise_std,
                method=method,
                options=scale,
                samples=args.samples,
                seed=0,
            )
            found = scores(pictures / 255.0, truth / 255.0, sought)
            report(name, method, found, time.monotonic() - start)


def report(task: str, answer: str, found: Mapping[str, float], seconds: float | None = None) -> None:
    """Print a row."""
    cells = [f"{value:.3f}" for value in found.values()] + ["-"] * (4 - len(found))
    cells.append("-" if seconds is None else f"{seconds:.0f}")
    print(f"| {task} | {answer} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
