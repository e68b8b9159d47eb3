"""How long the parts of an experiment take: prints a Markdown table.

    python experiments/benchmarks/bench.py
    python experiments/benchmarks/bench.py --config=configs/vp_cifar.py --batch=128
    python experiments/benchmarks/bench.py --config=configs/vp_cifar.py:reduced --peer=official=DIR

Every call is timed alone, from dispatch until its result is there, after calls to warm up.  All
devices share the batch.  Operations are counted by XLA before optimization, a multiply-add as two; bytes
moved and memory are of the optimized program.  ``--peer`` names a code of others and its checkout
(``peers``); what it has a counterpart for at the same sizes alternates with ours in the same process.  On a
busy machine trust the least times.
"""

import argparse
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peers
from jax.sharding import Mesh, PartitionSpec

from score_sde.architecture import Architecture
from score_sde.conditions import labelled
from score_sde.cpu import malloc
from score_sde.data import Spec
from score_sde.denoiser import velocity_from
from score_sde.evaluate.named_extractors import pixels
from score_sde.experiment.assemble import (
    architecture_of,
    average_of,
    density_of,
    open_source,
    optimizer_of,
    sampler_of,
    task_of,
)
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import Config, changed, complete, typed
from score_sde.experiment.sections import as_tree
from score_sde.likelihood import ode_density as likelihood
from score_sde.nets import parameter_count
from score_sde.runtime.mesh import BATCH, batch_sharding, make_mesh, replicated
from score_sde.sampling.draw import sample, sample_keys
from score_sde.solvers import Plan, Solver, StepSolver
from score_sde.solvers.adaptive import AdaptiveODE
from score_sde.train import compile_step, init_state, make_step

DEFAULTS = ("configs/vp_digits.py", "configs/vp_cifar.py:reduced")
SOLVER_STEPS = 10
LONG, WARM_UPS = 30.0, 5  # seconds: of such a call the first is warm enough; of others five at most
# One network evaluation a step, in every code that samples by an SDE.
SAMPLER = {"name": "pc", "predictor": "euler_maruyama", "corrector": "none", "denoise": False}


@dataclass(frozen=True)
class Work:
    """Something to time.

    Attributes:
      call: does it once and waits for the result.
      flops: operations of one call, by XLA's count; NaN where a loop decides.
      moved: bytes read and written by the optimized program, by its count.
      memory: bytes that it reserves beside arguments and results.
    """

    what: str
    call: Callable[[], Any]
    flops: float
    moved: float = float("nan")
    memory: float = float("nan")


@dataclass(frozen=True)
class Program:
    """A function compiled for some arguments, and what XLA says of it."""

    run: Any
    flops: float
    moved: float
    memory: float

    @classmethod
    def of(cls, function: Any, *args: Any, devices: int, counted: int) -> "Program":
        """Compile a jitted function; a loop's body counts once.

        Args:
          devices: that it runs on; XLA's figures for the optimized program are those of one.
          counted: devices whose share is in its count before optimization.
        """
        lowered = function.lower(*args)
        run = lowered.compile()
        before, after = lowered.cost_analysis() or {}, run.cost_analysis() or {}
        unknown = float("nan")
        flops, moved = before.get("flops", unknown), after.get("bytes accessed", unknown)
        reserved = getattr(run.memory_analysis(), "temp_size_in_bytes", unknown)
        return cls(run, flops * devices / counted, moved * devices, reserved * devices)

    def work(self, what: str, *args: Any, flops: float | None = None) -> Work:
        """It as something to time."""
        count = self.flops if flops is None else flops
        return Work(what, lambda: jax.block_until_ready(self.run(*args)), count, self.moved, self.memory)


def example_spec(config: Config) -> Spec:
    """The shape of the data: read for the embedded digits, that of CIFAR-10 for everything else."""
    if config.data.source.name == "digits":
        return open_source(config, "train").spec
    return Spec((32, 32, 3), 256, labelled(10))


def works(
    config: Config, architecture: Architecture, batch: int, mesh: Mesh
) -> Iterator[tuple[str, Callable[[], Work]]]:
    """What can be timed, for batches of ``batch`` examples in all: names, and how to compile it."""
    sde, shape = architecture.sde, architecture.state_shape
    replicate, split = replicated(mesh), batch_sharding(mesh)
    params = jax.jit(architecture.init, out_shardings=replicate)(jax.random.key(config.seed))
    keys = jax.device_put(sample_keys(0, jnp.arange(batch)), split)
    x = jax.device_put(jax.random.normal(jax.random.key(1), (batch, *shape)), split)
    t = jax.device_put(jnp.linspace(0.1, 0.9, batch) * sde.t_max, split)

    def of(function: Callable, *args: Any, whole: int = 1) -> Program:
        """Each device with its part of all but the first ``whole`` arguments."""
        specs = (PartitionSpec(),) * whole + (PartitionSpec(BATCH),) * (len(args) - whole)
        local = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(BATCH), check_vma=False
        )
        return Program.of(jax.jit(local), *args, devices=mesh.size, counted=1)

    density = density_of(config, architecture)

    def network(params: Any, x: Any, t: Any) -> Any:
        return architecture.bind(params, {})(x, t)

    def slope_and_divergence(params: Any, x: Any, t: Any, keys: Any) -> Any:
        denoise = architecture.bind(params, {})
        directions = density.divergence.directions(keys, shape)
        return density.divergence(lambda x: velocity_from(sde, denoise(x, t), t), x, directions)

    def log_density(params: Any, x: Any, keys: Any) -> Any:
        found = likelihood.log_prob(
            keys,
            architecture.bind(params, {}),
            sde,
            x,
            divergence=density.divergence,
            integrator=density.integrator,
        )
        return found.nats, found.evaluations

    evaluation = of(network, params, x, t)
    yield "training step", lambda: train_work(config, architecture, batch, mesh)
    yield "network evaluation", lambda: evaluation.work("network evaluation", params, x, t)
    tangent = "likelihood, one velocity and divergence"
    yield tangent, lambda: of(slope_and_divergence, params, x, t, keys).work(tangent, params, x, t, keys)
    solver = sampler_of(config, architecture).solver
    assert isinstance(solver, StepSolver)
    times = np.linspace(sde.t_max, config.sampling.t_end, SOLVER_STEPS + 1)
    plan = jax.device_put(solver.plan(sde, times), replicate)

    def draw(params: Any, plan: Plan, keys: Any, solver: Solver = solver) -> Any:
        return sample(keys, architecture.bind(params, {}), sde, solver.program, plan, shape=shape)

    few, flops = f"sampling, {SOLVER_STEPS} steps", SOLVER_STEPS * evaluation.flops
    yield few, lambda: of(draw, params, plan, keys, whole=2).work(few, params, plan, keys, flops=flops)
    unknown = float("nan")
    ode = AdaptiveODE()
    ends = jax.device_put(ode.plan(sde, np.array([sde.t_max, 1e-3])), replicate)
    flow, adaptive = functools.partial(draw, solver=ode), "sampling, ODE"
    yield (
        adaptive,
        lambda: of(flow, params, ends, keys, whole=2).work(adaptive, params, ends, keys, flops=unknown),
    )
    data = jax.device_put(jax.random.uniform(jax.random.key(2), (batch, *shape)), split)
    whole = "likelihood, whole"
    yield (
        whole,
        lambda: of(log_density, params, data, keys).work(whole, params, data, keys, flops=unknown),
    )


def train_work(config: Config, architecture: Architecture, batch: int, mesh: Mesh) -> Work:
    """The whole training step: data preparation, loss, gradient, optimizer and average."""
    spec = architecture.spec
    raw = np.random.default_rng(0).integers(0, spec.grey_levels or 2, (batch, *spec.shape))
    conditions = {name: one.nulls(batch) for name, one in spec.conditions}
    examples = jax.device_put({"x": raw.astype(spec.dtype), **conditions}, batch_sharding(mesh))
    task, optimizer = task_of(config, architecture, pixels()), optimizer_of(config)
    frozen = jax.device_put(task.frozen(), replicated(mesh))
    # The step donates its state: it goes on from its last result.
    latest = [jax.jit(init_state(task, optimizer, config.seed), out_shardings=replicated(mesh))(frozen)]
    step = compile_step(
        make_step(task, optimizer, average_of(config), config.seed),
        mesh,
        *jax.eval_shape(lambda: (latest[0], frozen)),
    )
    program = Program.of(step, latest[0], frozen, examples, devices=mesh.size, counted=mesh.size)

    def call() -> None:
        latest[0], metrics = program.run(latest[0], frozen, examples)
        jax.block_until_ready((latest[0], metrics))

    return Work("training step", call, program.flops, program.moved, program.memory)


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def warm_up(call: Callable[[], Any]) -> None:
    """Call until it gets no faster: the first calls compile, or get their memory from the system."""
    last = seconds(call)
    for _ in range(WARM_UPS - 1):
        now = seconds(call) if last < LONG else last
        if now > 0.9 * last:
            return
        last = now


def measure(calls: list[Callable[[], Any]], repeats: int) -> list[list[float]]:
    """Times of each, taken in turn so that a busy machine slows all."""
    for one in calls:
        warm_up(one)
    times = [[seconds(one) for one in calls] for _ in range(repeats)]
    return [[row[i] for row in times] for i in range(len(calls))]


def report(name: str, options: argparse.Namespace) -> None:
    """Time one config and print its table."""
    batch, changes = options.batch, {"training.batch_size": options.batch, "sampling.solver": SAMPLER}
    if options.dtype is not None:
        changes["model.dtype"] = options.dtype
    config = changed(typed(load_file(name)), changes)
    architecture = architecture_of(config, example_spec(config))
    shape, parts = architecture.spec.shape, jax.eval_shape(architecture.init, jax.random.key(0))
    mesh, others = make_mesh(), dict[str, peers.Calls]()
    for given in options.peer or []:
        peer, _, path = given.partition("=")
        try:
            others[peer] = peers.calls(peer, path, complete(as_tree(config)), shape, batch)
        except (ImportError, OSError, ValueError) as error:
            print(f"{name}: no comparison with {peers.PEERS.get(peer, peer)}: {error}\n")
    print(
        f"**{name}**, {parameter_count(parts) / 1e6:.3f} M parameters, examples of shape "
        f"{shape}, batch {batch}, {config.model.options['dtype']}, devices: {mesh.size}\n"
    )
    head = ["", "median, ms", "least to most", "GFLOP", "GFLOP/s", "GB moved", "MB reserved", "examples/s"]
    head += ["share of peak"] if options.peak is not None else []
    for peer in others:
        head += [f"{peer}, ms", f"{peer} / ours", "least to most"]
    print(f"| {' | '.join(head)} |\n|---|" + "---:|" * (len(head) - 1))
    for what, make in works(config, architecture, batch, mesh):
        if options.only and options.only not in what:
            continue
        work, theirs = make(), {peer: calls[what] for peer, calls in others.items() if what in calls}
        ours, *rest = measure([work.call, *theirs.values()], options.repeats)
        print(f"| {' | '.join(row(work, ours, batch, options.peak))}", end="")
        times = dict(zip(theirs, rest, strict=True))
        for peer in others:
            print(" | " + " | ".join(ratio(ours, times[peer]) if peer in times else ["", "", ""]), end="")
        print(" |", flush=True)
    print()


def row(work: Work, times: list[float], batch: int, peak: float | None) -> list[str]:
    """The cells of our own times."""
    middle = statistics.median(times)
    cells = [
        work.what,
        f"{1e3 * middle:.4g}",
        f"{1e3 * min(times):.4g} to {1e3 * max(times):.4g}",
        f"{work.flops / 1e9:.4g}",
        f"{work.flops / middle / 1e9:.4g}",
        f"{work.moved / 1e9:.3g}",
        f"{work.memory / 1e6:.4g}",
        f"{batch / middle:.4g}",
    ]
    cells += [] if peak is None else [f"{work.flops / middle / (peak * 1e12):.1%}"]
    return ["" if cell.startswith("nan") else cell for cell in cells]


def ratio(ours: list[float], theirs: list[float]) -> list[str]:
    """Their median, and their time over ours: median and range over calls made one after the other."""
    pairs = [b / a for a, b in zip(ours, theirs, strict=True)]
    spread = f"{min(pairs):.2f} to {max(pairs):.2f}"
    return [f"{1e3 * statistics.median(theirs):.4g}", f"{statistics.median(pairs):.2f}", spread]


def main() -> None:
    """Parse the command line and print a table for every config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", metavar="FILE[:VARIANT]")
    parser.add_argument("--batch", type=int, default=16, help="examples a call (default 16)")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls (default 7)")
    parser.add_argument(
        "--peer",
        action="append",
        metavar="NAME=DIR",
        help="a code to compare with and its checkout; names: " + ", ".join(peers.PEERS),
    )
    parser.add_argument(
        "--devices", type=int, default=0, metavar="N", help="to make of a CPU (default: as for training)"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="in place of the config's")
    parser.add_argument("--only", metavar="WORDS", help="only rows whose name contains this")
    parser.add_argument("--peak", type=float, metavar="TFLOP/S", help="peak of the device")
    options = parser.parse_args()
    for name in ("batch", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")
    for given in options.peer or []:
        if given.partition("=")[0] not in peers.PEERS:
            parser.error(f"--peer={given}: must be one of {', '.join(peers.PEERS)}, then =DIR")
    cores = os.cpu_count() or 1
    share = options.batch % cores == 0 and options.batch // cores >= 16  # as the command line has it
    jax.config.update("jax_num_cpu_devices", options.devices or (cores if share else 1))
    device = jax.devices()[0]
    print(
        f"{device.platform} {device.device_kind}, {os.cpu_count()} CPU threads, Python "
        f"{platform.python_version()}, jax {jax.__version__}; load {os.getloadavg()[0]:.1f}; median of "
        f"{options.repeats} calls\n"
    )
    for name in options.config or DEFAULTS:
        report(name, options)


if __name__ == "__main__":
    malloc.restart_with_settings()  # as run.py does; the peers gain by it too
    main()
