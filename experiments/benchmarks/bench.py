"""How long the parts of an experiment take: prints a Markdown table.

    python experiments/benchmarks/bench.py
    python experiments/benchmarks/bench.py --config=configs/vp_cifar.py --batch=128
    python experiments/benchmarks/bench.py --config=configs/vp_cifar.py:reduced --peer=DIR

Every call is timed alone, from dispatch until its result is there, after two calls to warm up.  Operations
are counted by XLA before optimization, a multiply-add as two.  ``--peer`` names a checkout of the
official PyTorch code (score_sde_pytorch); its network evaluation and training step at the same sizes then
alternate with ours in the same process.  It needs PyTorch.  On a busy machine trust the least times.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peer
from ml_collections import ConfigDict

from score_sde.config import load_file
from score_sde.data import Spec
from score_sde.denoiser import velocity_from
from score_sde.experiment import Experiment, assemble, open_source
from score_sde.mesh import make_mesh
from score_sde.nets import parameter_count
from score_sde.sampling import sample, sample_keys
from score_sde.schema import complete
from score_sde.solvers import StepSolver
from score_sde.train import compile_step, init_state, make_step

DEFAULTS = ("configs/vp_digits.py", "configs/vp_cifar.py:reduced")
SOLVER_STEPS = 10


@dataclass(frozen=True)
class Work:
    """Something to time.

    Attributes:
      call: does it once and waits for the result.
      flops: operations of one call, by XLA's count.
    """

    what: str
    call: Callable[[], Any]
    flops: float


def count_flops(function: Any, *args: Any) -> float:
    """Operations of a jitted function; a loop's body counts once."""
    analysis = function.lower(*args).cost_analysis()
    return float((analysis or {}).get("flops", float("nan")))


def example_spec(config: ConfigDict) -> Spec:
    """The shape of the data: read for the embedded digits, that of CIFAR-10 for everything else."""
    if config.data.source == "digits":
        return open_source(config, "train").spec
    return Spec((32, 32, 3), levels=256, num_classes=10)


def works(experiment: Experiment, state: Any, batch: int) -> list[Work]:
    """What is timed, for batches of ``batch`` examples on one device."""
    sde, shape, params = experiment.sde, experiment.spec.shape, state.ema
    keys = sample_keys(0, jnp.arange(batch))
    x = jax.random.normal(jax.random.key(1), (batch, *shape))
    t = jnp.linspace(0.1, 0.9, batch) * sde.t_max

    @jax.jit
    def network(params: Any, x: Any, t: Any) -> Any:
        return experiment.bind(params)(x, t)

    @jax.jit
    def slope_and_divergence(params: Any, x: Any, t: Any, keys: Any) -> Any:
        denoise = experiment.bind(params)
        directions = experiment.divergence.directions(keys, shape)
        return experiment.divergence(lambda x: velocity_from(sde, denoise(x, t), x, t), x, directions)

    evaluation = count_flops(network, params, x, t)
    found = [
        train_work(experiment, state, batch),
        Work("network evaluation", lambda: jax.block_until_ready(network(params, x, t)), evaluation),
        Work(
            "likelihood, one velocity and divergence",
            lambda: jax.block_until_ready(slope_and_divergence(params, x, t, keys)),
            count_flops(slope_and_divergence, params, x, t, keys),
        ),
    ]
    solver = experiment.solver
    if isinstance(solver, StepSolver):
        times = np.linspace(sde.t_max, experiment.config.sampling.t_end, SOLVER_STEPS + 1)
        plan = solver.plan(sde, times)
        count = SOLVER_STEPS * getattr(solver, "evaluations", 1) + solver.denoise

        @jax.jit
        def draw(params: Any, plan: Any, keys: Any) -> Any:
            return sample(keys, experiment.bind(params), sde, solver, plan, shape=shape)

        found.append(
            Work(
                f"sampling, {SOLVER_STEPS} steps, {count} network evaluations",
                lambda: jax.block_until_ready(draw(params, plan, keys)),
                count * evaluation,
            )
        )
    return found


def train_work(experiment: Experiment, state: Any, batch: int) -> Work:
    """The whole training step: data preparation, loss, gradient, optimizer and average."""
    mesh = make_mesh(1, jax.devices()[:1])
    levels = experiment.spec.levels or 2
    raw = np.random.default_rng(0).integers(0, levels, (batch, *experiment.spec.shape))
    examples = {
        "x": jnp.asarray(raw, experiment.spec.dtype),
        "label": jnp.zeros(batch, jnp.int32),
    }
    step = compile_step(
        make_step(experiment.objective, experiment.optimizer, experiment.ema, seed=0),
        mesh,
        jax.eval_shape(lambda: state),
    )
    flops = count_flops(step, state, examples)
    # The step donates its state: it keeps its own copy and goes on from its last result.
    latest = [jax.tree.map(jnp.copy, state)]

    def call() -> None:
        latest[0], metrics = step(latest[0], examples)
        jax.block_until_ready((latest[0], metrics))

    return Work("training step", call, flops)


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(
    call: Callable[[], Any], other: Callable[[], Any] | None, repeats: int
) -> tuple[list[float], list[float]]:
    """Times of ``call`` and of ``other``, taken in turn so that a busy machine slows both."""
    calls = [call] if other is None else [call, other]
    for one in calls:
        one(), one()  # compile, then warm up
    times = [[seconds(one) for one in calls] for _ in range(repeats)]
    return [row[0] for row in times], [row[-1] for row in times] if other else []


def report(name: str, batch: int, repeats: int, peer_path: str | None, peak: float | None) -> None:
    """Time one config and print its table."""
    config = complete(load_file(name))
    config.training.batch_size = batch
    experiment = assemble(config, example_spec(config))
    state = jax.jit(init_state(experiment.init, experiment.optimizer, seed=0))()
    others: dict[str, Callable[[], Any]] = {}
    if peer_path is not None:
        try:
            others = peer.calls(peer_path, config, experiment.spec.shape, batch)
        except (ImportError, OSError, ValueError) as error:
            print(f"{name}: no comparison with {peer_path}: {error}\n")
    print(
        f"**{name}**, {parameter_count(state.params) / 1e6:.3f} M parameters, examples of shape "
        f"{experiment.spec.shape}, batch {batch}, {config.model.dtype}\n"
    )
    share = "" if peak is None else " share of peak |"
    ratio = " official, ms | official / ours | of least times |" if others else ""
    head = f"| | median, ms | least to most | GFLOP | GFLOP/s | examples/s |{share}{ratio}"
    print(head)
    print("|---|" + "---:|" * (head.count("|") - 2))
    for work in works(experiment, state, batch):
        other = others.get(work.what)
        ours, theirs = measure(work.call, other, repeats)
        middle = statistics.median(ours)
        cells = [
            work.what,
            f"{1e3 * middle:.4g}",
            f"{1e3 * min(ours):.4g} to {1e3 * max(ours):.4g}",
            f"{work.flops / 1e9:.4g}",
            f"{work.flops / middle / 1e9:.4g}",
            f"{batch / middle:.4g}",
        ]
        if peak is not None:
            cells.append(f"{work.flops / middle / (peak * 1e12):.1%}")
        if others and theirs:
            pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
            cells += [f"{1e3 * statistics.median(theirs):.4g}", f"{statistics.median(pairs):.2f}"]
            cells.append(f"{min(theirs) / min(ours):.2f}")
        elif others:
            cells += ["", "", ""]
        print("| " + " | ".join(cells) + " |", flush=True)
    print()


def main() -> None:
    """Parse the command line and print a table for every config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", metavar="FILE[:VARIANT]")
    parser.add_argument("--batch", type=int, default=16, help="examples a call (default 16)")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls (default 7)")
    parser.add_argument("--peer", metavar="DIR", help="checkout of score_sde_pytorch")
    parser.add_argument("--peak", type=float, metavar="TFLOP/S", help="peak of the device")
    options = parser.parse_args()
    device = jax.devices()[0]
    print(
        f"{device.platform} {device.device_kind}, {os.cpu_count()} CPU threads, Python "
        f"{platform.python_version()}, jax {jax.__version__}; load {os.getloadavg()[0]:.1f}; median of "
        f"{options.repeats} calls\n"
    )
    for name in options.config or DEFAULTS:
        report(name, options.batch, options.repeats, options.peer, options.peak)


if __name__ == "__main__":
    main()
