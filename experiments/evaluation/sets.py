"""What brackets the scores of a run: real held-out examples and noise, as files that --samples takes."""

import argparse
from pathlib import Path

import numpy as np

from score_sde.evaluate.examples import Examples
from score_sde.runs.workdir import Workdir


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a run on pictures")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    held_out = Examples(Workdir.open(options.workdir).source("test"), "held-out")
    rng = np.random.default_rng(options.seed)
    real = held_out.read(np.sort(rng.permutation(len(held_out))[: options.count]))
    np.savez(options.workdir / "real.npz", samples=real)
    np.savez(options.workdir / "noise.npz", samples=rng.integers(0, 256, real.shape).astype(np.uint8))


if __name__ == "__main__":
    main()
