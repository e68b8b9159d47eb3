"""The orders of convergence that the tests measure, as a table.  Run from the root, with PYTHONPATH=."""

import json
import sys

import jax
import numpy as np

from tests.solvers.test_order import (
    ALL,
    PROCESSES,
    STOCHASTIC,
    flow_error,
    process,
    settings,
    variance_error,
    weak_steps,
)


def measured(key: str, name: str) -> float:
    """Of the flow, or for a stochastic solver of the variance, from the error at n and 2 n steps."""
    if key in STOCHASTIC:
        steps = weak_steps(key, name)
        errors = [variance_error(ALL[key], name, n) for n in (steps, 2 * steps)]
    else:
        data, grid, steps = settings(key)
        errors = [flow_error(ALL[key], process(key, name), data, grid, n) for n in (steps, 2 * steps)]
    return float(np.log2(errors[0] / errors[1]))


def main() -> None:
    keys, found = sys.argv[1:] or list(ALL), {}
    print("| solver | stated |", " | ".join(PROCESSES), "|\n|---|---|" + "---|" * len(PROCESSES))
    with jax.enable_x64(True):
        for key in keys:
            found[key] = {name: measured(key, name) for name in PROCESSES}
            weak = " (weak)" if key in STOCHASTIC else ""
            row = " | ".join(f"{found[key][name]:.2f}" for name in PROCESSES)
            print(f"| `{key}` | {ALL[key].accuracy:g}{weak} | {row} |", flush=True)
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
