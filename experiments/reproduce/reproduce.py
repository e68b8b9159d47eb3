"""The paper's row for an official checkpoint, next to ours.

    python experiments/reproduce/reproduce.py --official=vp/cifar10_ddpmpp_continuous \\
        --checkpoint=checkpoint_8.pth --data=DIR --weights=pt_inception-2015-12-05-6726825d.pth

Imports the checkpoint, samples from it with the official samplers (predictor-corrector, and the
probability-flow ODE), scores them against the training images of DIR, and measures bits/dim of its test
images, dequantised anew in every pass: of these what was published, or all for a row without figures.
Every part leaves its result in the workdir and is not repeated: after a kill the same command goes on, in
the middle of a set of samples too. All devices are used; of several processes start each with the same
words and --coordinator, --num_processes and --process_id of run.py behind them.  Words --config.a.b=value may
follow as well: each mode gets those that it reads.
"""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from score_sde.experiment.files import load_file
from score_sde.experiment.schema import Config, typed
from score_sde.flags import MODES

ROOT = Path(__file__).parents[2]
COLUMNS = ("FID", "IS", "FID (ODE)", "bits/dim")
# The official code integrates the ODE of a discrete VP network as if it were a continuous one.
CONTINUOUS = ["--config.sde=vp", "--config.denoiser.time_input=time_999"]


def published(official: str) -> tuple[str, dict[str, str]]:
    """Our config of an official recipe, and its published figures, from docs/recipes.md."""
    names = []
    for line in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines():
        if re.match(r"\| (vp|subvp|ve)/", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            names.append(cells[0])
            if cells[0] == official:
                figures = cells[3:] if len(cells) == 7 else []
                return cells[1].strip("`"), dict(zip(COLUMNS, figures, strict=False))
    raise SystemExit(f"--official={official}: is none of {', '.join(names)}")


def official_words(official: str) -> tuple[list[str], list[str]]:
    """Overrides for the official sampler, and for the official ODE and bits/dim, beside the config."""
    process, rest = official.split("/", 1)
    if "continuous" in rest or "ncsn/" in rest or "ncsnv2/" in rest:
        return [], []
    # A discrete recipe visits its levels here; there the grid is that of a continuous one.
    grid = ["--config.sampling.steps=1000", f"--config.sampling.t_end={1e-5 if process == 've' else 1e-3}"]
    return grid, CONTINUOUS if process == "vp" else []


def official_solver(config: str, solver: str) -> list[str]:
    """The official form of a solver; it has the predictor and the corrector of the config."""
    words = [f"--config.sampling.solver={solver}"]
    if solver == "legacy_pc":
        options = typed(load_file(str(ROOT / "configs" / config))).sampling.solver.options
        of_corrector = () if options["corrector"] == "none" else ("corrector_steps", "snr")
        shared = ("predictor", "corrector", *of_corrector)
        words += [f"--config.sampling.solver.{name}={options[name]}" for name in shared]
    return words


def run(*words: str) -> None:
    """One mode of run.py, in a process of its own."""
    print("+ run.py", *words, flush=True)
    done = subprocess.run([sys.executable, str(ROOT / "run.py"), *words], cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def read_by(mode: str, words: list[str]) -> list[str]:
    """The words without overrides of sections of the config that the mode does not read and would refuse."""
    known, read = {field.name for field in dataclasses.fields(Config)}, MODES[mode].sections
    refused = known - set(known if read is None else read)
    return [word for word in words if "".join(re.findall(r"^--config\.(\w+)", word)) not in refused]


def scores(path: Path) -> dict[str, float]:
    """What --mode=evaluate has written."""
    row = json.loads(path.read_text(encoding="utf-8"))["rows"][0]
    return {name: score["value"] for name, score in row["scores"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--official", required=True, help="name of the official config")
    parser.add_argument("--checkpoint", required=True, help="the downloaded file")
    parser.add_argument("--data", help="folder with train/ and test/ images; needed to measure")
    parser.add_argument("--weights", help="file of Inception's weights; needed for FID and IS")
    parser.add_argument("--workdir", type=Path, help="default: runs/reproduce/<official>")
    parser.add_argument("--num_samples", type=int, default=50_000)
    parser.add_argument("--passes", type=int, default=5, help="over the test images, each dequantised anew")
    parser.add_argument("--num_examples", type=int, help="only so many test images")
    parser.add_argument("--batch_size", type=int, default=256)
    options, more = parser.parse_known_args()
    config, figures = published(options.official)
    name = options.official.replace("/", "_")
    workdir = (options.workdir or ROOT / "runs" / "reproduce" / name).absolute()
    base = [f"--workdir={workdir}", *more]
    data = []
    if options.data:
        data = ["--config.data.source=folder", f"--config.data.source.path={Path(options.data).absolute()}"]

    if not (workdir / "config.json").is_file():
        checkpoint = Path(options.checkpoint).absolute()
        run("--mode=import", f"--checkpoint={checkpoint}", f"--config=configs/{config}", *base, *data)
    wanted = [column for column in COLUMNS if figures.get(column)] or COLUMNS
    grid, continuous = official_words(options.official)
    measured: dict[str, str] = {}
    if data and options.weights:
        common = [
            "--mode=evaluate",
            f"--num_samples={options.num_samples}",
            f"--config.sampling.batch_size={options.batch_size}",
            "--config.evaluate.features=inception",
            f"--config.evaluate.features.weights={Path(options.weights).absolute()}",
            "--config.evaluate.metrics=('frechet','inception_score')",
        ]
        for solver, columns, extra in (
            ("legacy_pc", ("FID", "IS"), grid),
            ("legacy_ode", ("FID (ODE)",), grid + continuous),
        ):
            if not set(columns) & set(wanted):
                continue
            path = workdir / f"{solver}.json"
            if not path.is_file():
                run(
                    *common,
                    *official_solver(config, solver),
                    f"--output={path}",
                    *extra,
                    *read_by("evaluate", base),
                    *data,
                )
            found = scores(path)
            for column in columns:
                key = "fid" if column.startswith("FID") else "inception_score"
                measured[column] = f"{found[key]:.2f}"
    if data and "bits/dim" in wanted:
        passes = []
        for seed in range(options.passes):
            path = workdir / f"likelihood_{seed}.npz"
            if not path.is_file():
                some = (
                    [f"--config.likelihood.num_examples={options.num_examples}"]
                    if options.num_examples
                    else []
                )
                batch = f"--config.likelihood.batch_size={options.batch_size}"
                rest = [*read_by("likelihood", base), *data]
                run("--mode=likelihood", f"--seed={seed}", batch, *some, *continuous, *rest)
                (workdir / "likelihood.npz").rename(path)
            with np.load(path) as file:
                passes.append(file["bits_per_dim"])
        bits = np.stack(passes).mean(axis=0)
        error = bits.std(ddof=1) / np.sqrt(len(bits))
        measured["bits/dim"] = f"{bits.mean():.3f} +- {error:.3f} ({len(bits)} images, passes: {len(passes)})"

    lines = [f"| {options.official} | " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * len(COLUMNS)]
    for title, row in (("published", figures), (f"here, {options.num_samples} samples", measured)):
        lines.append(f"| {title} | " + " | ".join(row.get(c) or "-" for c in COLUMNS) + " |")
    table = "\n".join(lines)
    (workdir / "reproduced.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n")


if __name__ == "__main__":
    main()
