"""What maximum-likelihood training and a learned dequantiser are worth, at equal steps.

    python experiments/likelihood/training.py --data=digits
    python experiments/likelihood/training.py --data=cifar --path=DIR

trains the same network from the same seed on the same batches under each objective, measures bits/dim of the
same held-out examples with the same noise, fits a dequantiser to one of them, and writes ``<data>.json`` and
a table to ``--output``.  Two numbers are measured: the variational bound, which the likelihood objective is,
and the density of the probability-flow ODE, which it only bounds.  Differences are paired by example; ``+-``
is one standard error over examples.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import numpy as np

from score_sde import cli
from score_sde.data import Batches
from score_sde.experiment.assemble import preparation_of
from score_sde.flags import parse
from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss
from score_sde.runs.model import load

WEIGHTED = ["--config.loss.weight=likelihood"]
EDM = ["--config.denoiser.prediction=edm", "--config.denoiser.time_input=quarter_log_sigma"]
UNIFORM = ["--config.loss.weight=noise", "--config.loss.times=low_discrepancy"]
ARMS = {
    "digits": {
        "plain": ("configs/vp_digits.py", []),
        "weighted": ("configs/vp_digits.py", WEIGHTED),
        "importance": ("configs/vp_digits.py:ml", []),
        "learned": ("configs/vp_digits.py:learned", []),
        "plain_edm": ("configs/vp_digits.py", EDM),
        "importance_edm": ("configs/vp_digits.py:ml", EDM),
    },
    "cifar": {
        "plain": ("configs/vp_cifar.py:reduced", ["--config.data.random_flip=False", *UNIFORM]),
        "recipe": ("configs/vp_cifar.py:reduced", ["--config.data.random_flip=False"]),
        "importance": ("configs/vp_cifar.py:reduced_ml", []),
    },
}
TITLES = {
    "plain": "weight `noise`, uniform times",
    "weighted": "weight `likelihood`, uniform times",
    "importance": "weight `likelihood`, importance-sampled times",
    "learned": "the same with a learned noise schedule",
    "plain_edm": "EDM prediction, weight `noise`, uniform times",
    "importance_edm": "EDM prediction, weight `likelihood`, importance-sampled times",
    "recipe": "weight `edm`, log-normal times",
    "dequantiser": "importance-sampled, and a learned dequantiser",
}
# What an arm's gain is over, where it is not the plain objective.
BASES = {"importance_edm": "plain_edm", "dequantiser": "importance"}
# The bound's noise is large and cheap to average.
ESTIMATES = {
    "bound": [
        "--config.likelihood.estimates=('bound',)",
        "--config.likelihood.draws=4",
        "--config.likelihood.bound.times=16",
    ],
    "ode": ["--config.likelihood.estimates=('ode',)"],
}


def run(*words: str) -> None:
    """One command of ``run.py``."""
    cli.run(parse(["run.py", *words], "usage"))


def common(args: argparse.Namespace) -> list[str]:
    """Overrides that every arm shares: the budget."""
    words = [
        f"--config.training.steps={args.steps}",
        f"--config.training.checkpoint_every_steps={args.steps}",
        f"--config.optimizer.decay_steps={args.steps}",
        f"--config.training.batch_size={args.batch}",
        "--config.training.eval_examples=64",
        "--config.training.sample_count=4",
        "--config.training.sample_every_steps=0",
        "--config.training.eval_every_steps=0",
        "--config.training.best_metric=",
        "--config.codec.dequantize=True",
        "--config.sampling.steps=10",
        "--config.sampling.batch_size=4",
        "--config.likelihood.integrator.rtol=1e-3",
        "--config.likelihood.integrator.atol=1e-3",
        f"--config.seed={args.seed}",
    ]
    if args.examples:
        words.append(f"--config.likelihood.num_examples={args.examples}")
    if args.nf:
        words.append(f"--config.model.nf={args.nf}")
    if args.path:
        words += ["--config.data.source=folder", f"--config.data.source.path={args.path}"]
    return words


def bits(workdir: Path, *words: str) -> dict[str, np.ndarray]:
    """Bits/dim of every held-out example, by estimate."""
    found = {}
    for name, more in ESTIMATES.items():
        run("--mode=likelihood", f"--workdir={workdir}", *more, *words)
        with np.load(workdir / "likelihood.npz") as file:
            found[name] = file["bits_per_dim"]
    return found


def deviations(workdir: Path, count: int) -> dict[str, float]:
    """Standard deviation of a batch's loss over its mean, at the same parameters, by how times are drawn."""
    model = load(workdir)
    architecture, prepare = model.architecture, preparation_of(model.config, model.architecture)
    batch_size = model.config.training.batch_size
    batches = Batches(model.workdir.source("train"), batch_size=batch_size, seed=1).from_step(0)
    data = [next(batches) for _ in range(count)]
    found = {}
    for name, times in {
        "uniform": TIMES["uniform"](),
        "low_discrepancy": TIMES["low_discrepancy"](),
        "antithetic": TIMES["antithetic"](),
        "importance, independent": TIMES["importance"]("independent"),
        "importance, antithetic": TIMES["importance"]("antithetic"),
        "importance, low_discrepancy": TIMES["importance"](),
    }.items():
        loss = DenoisingLoss(architecture.sde, WEIGHTS["likelihood"](), times)

        @jax.jit
        def mean(params, batch, key, loss=loss):
            x0, cond = prepare(params, batch, key)
            return loss(architecture.bind(params, cond), x0, key)[0].mean()

        values = [float(mean(model.parts, b, jax.random.key(i))) for i, b in enumerate(data)]
        found[name] = float(np.std(values) / np.mean(values))
    return found


def step_deviation(workdir: Path) -> float:
    """Of the training log: the loss from step to step over its mean, in the second half."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss_deviation" in line]
    late = lines[len(lines) // 2 :]
    return float(np.mean([line["loss_deviation"] / abs(line["loss"]) for line in late]))


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=ARMS, default="digits")
    parser.add_argument("--path", default="", help="cifar: a folder with train/ and test/")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dequantiser_steps", type=int, default=600)
    parser.add_argument("--arms", default="", help="which, separated by commas; default: all")
    parser.add_argument("--variance", type=int, default=60, help="batches to measure the loss's noise on")
    parser.add_argument("--examples", type=int, default=0, help="held-out examples; 0: all")
    parser.add_argument("--nf", type=int, default=0, help="width of the network; 0: the config's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("experiments/likelihood/results"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for arm in args.arms.split(",") if args.arms else ARMS[args.data]:
        if arm not in done(args):
            train(args, arm)
        report(args, {})
    best = folder(args, "importance")
    if args.dequantiser_steps and "dequantiser" not in done(args):
        start = time.monotonic()
        steps = f"--config.dequantiser.steps={args.dequantiser_steps}"
        run("--mode=dequantiser", f"--workdir={best}", steps, f"--config.dequantiser.batch_size={args.batch}")
        seconds = time.monotonic() - start
        values = bits(best, "--config.likelihood.dequantiser=learned")
        save(args, "dequantiser", values, {"seconds": seconds})
        report(args, {})
    if args.variance:
        report(args, deviations(best, args.variance))


def folder(args: argparse.Namespace, arm: str) -> Path:
    """The workdir of an arm."""
    return args.output / f"{args.data}_{arm}"


def train(args: argparse.Namespace, arm: str) -> None:
    """One arm: fit and measure."""
    (config, words), workdir = ARMS[args.data][arm], folder(args, arm)
    start = time.monotonic()
    run(f"--config={config}", "--mode=train", f"--workdir={workdir}", *common(args), *words)
    about = {"seconds": time.monotonic() - start, "step_deviation": step_deviation(workdir)}
    save(args, arm, bits(workdir), about)


def save(args: argparse.Namespace, arm: str, values: dict[str, np.ndarray], about: dict) -> None:
    """Keep a result, so that an interrupted run goes on from it."""
    file = args.output / f"{args.data}_{arm}.json"
    bits_per_dim = {name: value.tolist() for name, value in values.items()}
    file.write_text(json.dumps(about | {"bits_per_dim": bits_per_dim}))


def done(args: argparse.Namespace) -> dict[str, dict]:
    """The arms that have a result, in the order of the table."""
    files = {arm: args.output / f"{args.data}_{arm}.json" for arm in TITLES}
    return {arm: json.loads(file.read_text()) for arm, file in files.items() if file.exists()}


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def _told(number: tuple[float, float]) -> str:
    return f"{number[0]:.4f} +- {number[1]:.4f}"


def report(args: argparse.Namespace, spread: dict[str, float]) -> None:
    """Write what is known so far."""
    if "plain" not in done(args):
        return
    rows, results, arms = [], {}, done(args)
    for arm, about in arms.items():
        base = arms.get(BASES.get(arm, "plain"), about)["bits_per_dim"]
        cells = [TITLES[arm]]
        about["gain"] = {}
        for name, values in about["bits_per_dim"].items():
            gain = np.array(base[name]) - np.array(values)
            about["gain"][name] = _mean(gain)
            cells += [_told(_mean(np.array(values))), _told(_mean(gain)) if gain.any() else ""]
        rows.append(f"| {' | '.join(cells)} | {about['seconds']:.0f} |")
        bits_per_dim = {name: _mean(np.array(values)) for name, values in about["bits_per_dim"].items()}
        results[arm] = about | {"bits_per_dim": bits_per_dim}
    about = {"arguments": {k: str(v) for k, v in vars(args).items()}, "results": results, "spread": spread}
    text = "\n".join(
        [
            "| training | bound, bits/dim | gain | ODE, bits/dim | gain | seconds |",
            "|---|--:|--:|--:|--:|--:|",
            *rows,
            "",
            *(
                ["| times | standard deviation of a batch's loss over its mean |", "|---|--:|"]
                + [f"| {name} | {value:.3f} |" for name, value in spread.items()]
                if spread
                else []
            ),
        ]
    )
    (args.output / f"{args.data}.json").write_text(json.dumps(about, indent=2) + "\n")
    (args.output / f"{args.data}.md").write_text(text + "\n")
    print(text, flush=True)


if __name__ == "__main__":
    main()
