"""How good, and how honest, filled cells are, beside methods without a network.

    python experiments/imputation/compare.py --workdir=runs/table
    python experiments/imputation/compare.py --workdir=runs/series

Cells of held-out rows, or windows, are hidden at random, 10, 50 and 90 % of them, for several seeds of the
mask.
Every method sees the other cells and the training rows.  Numbers are in standard deviations of their columns:
CRPS, error of the mean (RMSE), absolute error of the median (MAE), and the share of true values within the
central
50 and 90 % of the samples.  Of categories: the share that is wrong.  Each is the mean over the seeds, and
the standard deviation between them.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from measures import iterative, linear, neighbours, scores, with_last, without_last, wrong

import score_sde
from score_sde.codecs import NO_PARAMS
from score_sde.runs.impute import impute
from score_sde.runs.model import Model

Fill = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # standardised train, holes, seed to (n, N, W)


def rows_of(model: Model, split: str, count: int | None = None, stride: int = 1) -> np.ndarray:
    """Raw rows, or windows, ``(N, *S, F)`` float64."""
    source = model.workdir.source(split)
    return source.read(np.arange(0, len(source), stride)[:count])["x"].astype(np.float64)


def methods(draws: int, imputer_draws: int, features: int) -> dict[str, Fill]:
    """Methods without a network, on flattened states."""
    others = None if features < 50 else 20
    return {
        "mean": lambda train, holes, seed: np.zeros((1, *holes.shape)),
        "kNN, mean of 10": lambda train, holes, seed: neighbours(train, holes).mean(axis=0)[None],
        "kNN, the 10 as samples": lambda train, holes, seed: neighbours(train, holes),
        "IterativeImputer": lambda train, holes, seed: iterative(train, holes, 0, seed, others),
        "IterativeImputer, drawn": lambda train, holes, seed: iterative(
            train, holes, imputer_draws, seed, others
        ),
    }


def by_model(model: Model, raw: np.ndarray, draws: int, seed: int, method: str) -> np.ndarray:
    """States of the model's samples, ``(draws, N, *S, W)``."""
    options = {"solve_steps": 1} if method == "mmps" else {}
    found = impute(model, raw, draws=draws, seed=seed, method=method, options=options)
    samples = np.repeat(found.values[None], draws, axis=0)
    samples[:, found.rows] = np.moveaxis(found.samples, 1, 0)
    return np.asarray(model.architecture.codec.middle(NO_PARAMS, samples), np.float64)


def measure(model: Model, args: argparse.Namespace, rate: float) -> dict[str, dict[str, list[float]]]:
    """Scores by method and name, one for each seed."""
    columns, codec = model.architecture.spec.columns, model.architecture.codec
    widths = np.array([column.width for column in columns])
    numeric = np.repeat([not column.categories for column in columns], widths)
    length = model.architecture.spec.shape[0] if len(model.architecture.spec.shape) == 2 else 1
    raw = rows_of(model, "test", args.rows, length)
    known = rows_of(model, "train", None, max(1, length // 2))
    train, truth = (np.asarray(codec.middle(NO_PARAMS, x), np.float64) for x in (known, raw))
    flat = train.reshape(len(train), -1)
    every = methods(args.draws, args.imputer_draws, flat.shape[1])
    if length > 1:
        every["linear interpolation"] = lambda train, holes, seed: linear(holes.reshape(truth.shape))
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(args.seeds):
        hidden = np.random.default_rng(1000 + seed).random(raw.shape) < rate
        gone = np.repeat(hidden, widths, axis=-1)
        holes = np.where(gone, np.nan, truth).reshape(len(truth), -1)
        # The regressions of the imputer are better when they have learned from rows like those to be filled.
        also = np.repeat(np.random.default_rng(2000 + seed).random(known.shape) < rate, widths, axis=-1)
        torn = np.where(also.reshape(flat.shape), np.nan, flat)
        answers = {}
        for name, fill in every.items():
            if name.startswith("Iter"):
                made = fill(without_last(torn, widths, length), without_last(holes, widths, length), seed)
                answers[name] = with_last(made, widths, length)
            else:
                answers[name] = fill(flat, holes, seed)
        for method in args.methods.split(","):
            start = time.monotonic()
            answers[method] = by_model(model, np.where(hidden, np.nan, raw), args.draws, seed, method)
            print(f"# {rate} {seed} {method}: {time.monotonic() - start:.0f} s", flush=True)
        for name, states in answers.items():
            states, own = states.reshape(-1, *truth.shape), found.setdefault(name, {})
            pick = gone & numeric
            for key, value in scores(states[:, pick], truth[pick]).items():
                own.setdefault(key, []).append(value)
            share = wrong(states, truth, hidden, widths)
            if share is not None:
                own.setdefault("wrong", []).append(share)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--rows", type=int, default=None, help="held-out rows or windows; all")
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--imputer_draws", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="conditional")
    parser.add_argument("--rates", default="0.1,0.5,0.9")
    args = parser.parse_args()
    model = score_sde.load(args.workdir)
    print("| missing | method | CRPS | RMSE | MAE | in 50 % | in 90 % | wrong categories |")
    print("|---|---|---|---|---|---|---|---|")
    for rate in map(float, args.rates.split(",")):
        for name, own in measure(model, args, rate).items():
            cells = [
                f"{np.mean(own[key]):.3f} ± {np.std(own[key], ddof=1 if args.seeds > 1 else 0):.3f}"
                if key in own
                else "-"
                for key in ("crps", "rmse", "mae", "cover_50", "cover_90", "wrong")
            ]
            print(f"| {rate:.0%} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
