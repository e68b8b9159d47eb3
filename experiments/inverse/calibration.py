"""How good, and how honest, answers to inverse problems are: error, CRPS and coverage on held-out pictures.

    python experiments/inverse/calibration.py --workdir=runs/digits --examples=64 --samples=16

For each task and method, of the grey values 0 to 1 that are to be found: the root mean square error of the
mean of the samples, the CRPS (Gneiting & Raftery 2007, eq. 21), the share of true values within the central
50 and 90 % of the samples, and seconds.  Above stand answers that need no model: the mean of the training
pictures, and the training picture that agrees best with the measurement.
"""

import argparse
import time

import numpy as np

import score_sde
from score_sde.inverse import EDITS
from score_sde.runs.inputs import to_user
from score_sde.runs.posterior import measure

TASKS = {
    "box": ("inpaint", {"mask": "box"}),
    "half": ("inpaint", {"mask": "half"}),
    "random": ("inpaint", {"mask": "random"}),
    "superres": ("superres", {"factor": 4}),
    "deblur": ("deblur", {"blur_sigma": 1.5}),
}


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
    spec, shape = model.architecture.spec, model.architecture.state_shape
    held_out, train = model.workdir.source("test"), model.workdir.source("train")
    truth = to_user(held_out.read(np.arange(args.examples))["x"], spec)
    known = to_user(train.read(np.arange(min(5000, len(train))))["x"], spec)
    print("| task | answer | RMSE | CRPS | in 50 % | in 90 % | s |")
    print("|---|---|---|---|---|---|---|")
    for name in args.tasks.split(","):
        task = EDITS[TASKS[name][0]](**TASKS[name][1])
        operator, given = task.operator(shape), task.given(shape, len(truth))
        measured = measure(model, truth, operator, given)
        noise = np.random.Generator(np.random.PCG64(0)).standard_normal(measured.shape).astype(np.float32)
        seen = measured + args.noise_std * noise * (given.get("mask", 1.0) > 0)
        sought = given["mask"] == 0 if "mask" in given else np.ones(truth.shape, bool)
        of_train = np.concatenate(
            [
                measure(model, known[i : i + 500], operator, task.given(shape, len(known[i : i + 500])))
                for i in range(0, len(known), 500)
            ]
        )
        a, b = of_train.reshape(len(known), -1), seen.reshape(len(seen), -1)
        distance = (a**2).sum(axis=1)[:, None] - 2 * a @ b.T
        answers = {
            "mean of the training pictures": np.broadcast_to(known.mean(axis=0), truth.shape)[:, None],
            "nearest training picture": known[distance.argmin(axis=0)][:, None],
        }
        for method in args.methods.split(","):
            options = (
                {"sigma_data": float(model.encode_state(known[:1000]).std())} if method == "pigdm" else {}
            )
            start = time.monotonic()
            answers[method] = model.posterior(
                seen,
                operator,
                given=given,
                noise_std=args.noise_std,
                method=method,
                options=options,
                samples=args.samples,
                seed=0,
            )
            answers[method + " seconds"] = time.monotonic() - start
        for answer, values in answers.items():
            if answer.endswith(" seconds"):
                continue
            found = scores(values / 255.0, truth / 255.0, sought)
            cells = [f"{value:.3f}" for value in found.values()] + ["-"] * (4 - len(found))
            seconds = answers.get(answer + " seconds")
            cells.append("-" if seconds is None else f"{seconds:.0f}")
            print(f"| {name} | {answer} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
