"""How long likelihoods take and how far off they are: prints a Markdown table.

    python experiments/likelihood/speed.py --workdir=runs/digits --batch=32

All rows measure the same held-out examples under the same network and probes.  The error is the root mean
square over the examples, in bits/dim, against tolerances of a tenth.

The loop is the way of the official code (arXiv:2011.13456, appendix D.2): SciPy's RK45 on the host, one flat
float64 state for the whole batch, and for each evaluation two compiled calls, the velocity and Hutchinson's
divergence by reverse mode.  With ``--official=DIR``, a checkout of score_sde_pytorch, that code itself
follows, with these weights.  Runs alternate in one process, so that a busy machine slows all; compilation is
not counted.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from scipy.integrate import solve_ivp

from score_sde.architecture import Architecture
from score_sde.arrays import sum_dims
from score_sde.codecs import Pixels
from score_sde.cpu import malloc
from score_sde.denoiser import velocity_from
from score_sde.experiment.schema import Config, complete
from score_sde.experiment.sections import as_tree
from score_sde.likelihood.ode_density import Adaptive, Fixed, Hutchinson, Integrator, log_prob
from score_sde.nets.official import to_torch_names
from score_sde.runs.model import load
from score_sde.runtime.mesh import BATCH, batch_sharding, make_mesh, replicated
from score_sde.sampling.draw import sample_keys
from score_sde.tasks.base import Parts

Run = Callable[[], tuple[np.ndarray, float]]  # nats, evaluations


def host_loop(
    architecture: Architecture, params: Parts, x: jax.Array, keys: jax.Array, tolerance: float
) -> Run:
    """The official way."""
    sde, shape = architecture.sde, x.shape
    probe = Hutchinson().directions(keys, shape[1:])[0]

    def slope(params: Parts, x: jax.Array, t: jax.Array) -> jax.Array:
        return velocity_from(sde, architecture.bind(params, {})(x, t), t)

    velocity = jax.jit(slope)

    @jax.jit
    def divergence(params: Parts, x: jax.Array, t: jax.Array, probe: jax.Array) -> jax.Array:
        pulled = jax.grad(lambda x: jnp.sum(slope(params, x, t) * probe))(x)
        return sum_dims(pulled * probe)

    def field(t: float, state: np.ndarray) -> np.ndarray:
        x = jnp.asarray(state[: -shape[0]].reshape(shape), jnp.float32)
        times = jnp.full(shape[0], t, jnp.float32)
        parts = velocity(params, x, times), divergence(params, x, times, probe)
        return np.concatenate([np.asarray(part, np.float64).ravel() for part in parts])

    def run() -> tuple[np.ndarray, float]:
        start = np.concatenate([np.asarray(x, np.float64).ravel(), np.zeros(shape[0])])
        solution = solve_ivp(
            field, (sde.t_min, sde.t_max), start, rtol=tolerance, atol=tolerance, method="RK45"
        )
        end = solution.y[:, -1]
        latent = jnp.asarray(end[: -shape[0]].reshape(shape), jnp.float32)
        return np.asarray(sde.prior_log_prob(latent)) + end[-shape[0] :], solution.nfev

    return run


def official(
    path: str,
    config: Config,
    architecture: Architecture,
    params: Parts,
    x: jax.Array,
    keys: jax.Array,
    tolerance: float,
) -> Run:
    """The official PyTorch code, with our weights and probes; see ``peers.official``."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    from peers import official as peer  # type: ignore[import-not-found]

    shape, size = architecture.spec.shape, math.prod(architecture.spec.shape)
    _, sde, model = peer.network(path, complete(as_tree(config)), shape)
    import torch  # type: ignore[import-not-found]
    from likelihood import get_likelihood_fn  # type: ignore[import-not-found]  # theirs

    ours = {
        f"module.{name}": torch.from_numpy(np.array(a))
        for name, a in to_torch_names(params["net"], architecture.net, shape).items()
    }
    model.load_state_dict(model.state_dict() | ours)  # which refuses names that it does not have
    images, probe = (
        torch.from_numpy(np.array(a).transpose(0, 3, 1, 2).copy())
        for a in (x, Hutchinson().directions(keys, shape)[0])
    )
    measure = get_likelihood_fn(sde, lambda x: x, rtol=tolerance, atol=tolerance, eps=architecture.sde.t_min)

    def run() -> tuple[np.ndarray, float]:
        draw = torch.randint_like
        torch.randint_like = lambda *_, **__: (probe + 1) / 2  # they make signs of zeros and ones
        try:
            bits, _, evaluations = measure(model, images)
        finally:
            torch.randint_like = draw
        # They add 7 for bytes on [-1, 1] and what their unscaling, here none, makes of -1.
        return -(bits.numpy() - 8.0) * math.log(2.0) * size, evaluations

    return run


def on_device(
    architecture: Architecture,
    params: Parts,
    x: jax.Array,
    keys: jax.Array,
    integrator: Integrator,
    nodes: int,
) -> Run:
    """This package's way: one compiled program, and the batch shared by all devices."""

    def measure(params: Parts, keys: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = log_prob(
            keys,
            architecture.bind(params, {}),
            architecture.sde,
            x,
            divergence=Hutchinson(),
            integrator=integrator,
            nodes=nodes,
        )
        return out.nats, out.evaluations

    mesh, whole, split = make_mesh(), PartitionSpec(), PartitionSpec(BATCH)
    compiled = jax.jit(
        jax.shard_map(measure, mesh=mesh, in_specs=(whole, split, split), out_specs=split, check_vma=False)
    )
    params = jax.device_put(params, replicated(mesh))
    keys, x = jax.device_put((keys, x), batch_sharding(mesh))

    def run() -> tuple[np.ndarray, float]:
        nats, evaluations = jax.device_get(compiled(params, keys, x))
        return nats, float(np.max(evaluations))

    return run


def main() -> None:
    """Parse the command line, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16, help="examples (default 16)")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="rtol and atol (default 1e-5)")
    parser.add_argument("--nodes", type=int, default=0, help="see likelihood.nodes; 0 for none (default)")
    parser.add_argument("--steps", type=int, nargs="*", default=[32, 64, 128], help="of Adams' method")
    parser.add_argument("--official", metavar="DIR", help="a checkout of score_sde_pytorch; needs PyTorch")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each (default 3)")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if options.batch < 1 or options.batch % cores:
        parser.error(f"--batch={options.batch}: must be a multiple of the {cores} cores")
    if options.repeats < 1:
        parser.error(f"--repeats={options.repeats}: must be at least 1")
    jax.config.update("jax_num_cpu_devices", cores)  # as on the command line, a device a core
    trained = load(options.workdir).density_model
    config, architecture = trained.config, trained.architecture
    codec, size = architecture.codec, math.prod(architecture.spec.shape)
    if not isinstance(codec, Pixels) or codec.grey_levels is None:
        parser.error(f"--workdir={options.workdir}: must be a run on integer data")
    params = jax.device_put(trained.parts, jax.devices()[0])
    raw = trained.workdir.source("test").read(np.arange(options.batch))["x"]
    keys = sample_keys(0, jnp.arange(options.batch))
    x = codec.place(raw, jax.random.uniform(jax.random.key(0), raw.shape))
    tolerance, nodes = options.tolerance, options.nodes
    each = Adaptive(rtol=tolerance, atol=tolerance)
    ours: dict[str, tuple[Integrator, int]] = {
        "`adaptive`": (each, 0),
        "the same, `error_control=batch`": (
            Adaptive(rtol=tolerance, atol=tolerance, error_control="batch"),
            0,
        ),
        "`fixed`, `rk4`, 64 steps": (Fixed(method="rk4", steps=64), 0),
        **{f"`fixed`, `adams`, {n} steps": (Fixed(method="adams", steps=n), 0) for n in options.steps},
    }
    if nodes:
        ours[f"`adaptive`, {nodes} nodes"] = (each, nodes)
    runs = {"SciPy loop": host_loop(architecture, params, x, keys, tolerance)}
    if options.official:
        runs["official code"] = official(options.official, config, architecture, params, x, keys, tolerance)
    runs |= {name: on_device(architecture, params, x, keys, *how) for name, how in ours.items()}
    fine = Adaptive(rtol=tolerance / 10, atol=tolerance / 10)
    reference, _ = on_device(architecture, params, x, keys, fine, 0)()
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(options.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            results[name] = run()
            times[name].append(time.perf_counter() - start)
    model = config.model
    print(
        f"{options.workdir.name}, {model.name}, nf {model.options['nf']}, "
        f"examples of shape {architecture.spec.shape}, batch {options.batch}, rtol = atol = {tolerance:g}; "
        f"{jax.devices()[0].device_kind}, {cores} cores, jax {jax.__version__}; {options.repeats} runs\n"
    )
    base = "official code" if options.official else "SciPy loop"
    head = ["", "seconds, median", "least to most", "evaluations", f"{base} / this", "least to most", "error"]
    print(f"| {' | '.join(head)} | bits/dim |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, taken in times.items():
        nats, evaluations = results[name]
        ratios = [b / a for a, b in zip(taken, times[base], strict=True)]
        bits, right = (-(n / size + codec.log_volume()) / math.log(2.0) for n in (nats, reference))
        print(
            f"| {name} | {statistics.median(taken):.3g} | {min(taken):.3g} to {max(taken):.3g} | "
            f"{evaluations:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} | "
            f"{np.sqrt(np.mean((bits - right) ** 2)):.1e} | {np.mean(bits):.5f} |",
            flush=True,
        )


if __name__ == "__main__":
    malloc.restart_with_settings()  # as run.py does
    main()
