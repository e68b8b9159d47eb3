"""What a sampler costs beside its network: one scan, a Python loop, another library's sampler."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.conditions import labelled
from score_sde.data import Spec
from score_sde.denoiser import Estimate
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import typed
from score_sde.sampling.draw import sample, sample_keys
from score_sde.solvers import SOLVERS

TIMED = ("ddim", "unipc", "sde_dpmpp_2m")
SAME_LENGTH = (*TIMED, "dpmpp_2m", "dpmpp_3m", "deis", "lms", "ipndm", "multistep")


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call, to its end."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def in_rounds(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Every call once a round, so that a slow moment of the machine hits all of them."""
    for name, call in calls.items():
        print(f"compiled {name} in {timed(call):.1f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            seconds[name].append(timed(call))
    return seconds


def peer(path: Path, network: Callable, sde: Any, shape: tuple, steps: int) -> Callable:
    """A call of hackable_diffusion's DDIM sampler, from a checkout, with the same network."""
    sys.path.insert(0, str(path))
    from hackable_diffusion.lib.corruption import gaussian, schedules  # type: ignore[import-not-found]
    from hackable_diffusion.lib.sampling import (  # type: ignore[import-not-found]
        gaussian_step_sampler,
        sampling,
        time_scheduling,
    )

    process = gaussian.GaussianProcess(schedule=schedules.CosineSchedule())
    sampler = sampling.DiffusionSampler(
        time_schedule=time_scheduling.UniformTimeSchedule(safety_epsilon=1e-3),
        stepper=gaussian_step_sampler.DDIMStep(corruption_process=process, stoch_coeff=0.0),
        num_steps=steps + 1,  # it counts the points of its grid
    )

    @jax.jit
    def run(params: Any, key: jax.Array) -> jax.Array:
        def infer(xt: jax.Array, conditioning: Any, time: jax.Array) -> dict[str, jax.Array]:
            return {"x0": network(params, xt, time.reshape(-1))}

        noise = sde.prior_sigma * jax.random.normal(key, shape)
        return sampler(infer, key, noise)[0].xt

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/vp_cifar.py")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hackable_diffusion", type=Path, help="a checkout of google/hackable_diffusion")
    parser.add_argument("--output", type=Path, default=Path("experiments/solvers/results/overhead.json"))
    arguments = parser.parse_args()

    example = (arguments.side, arguments.side, arguments.channels)
    architecture = architecture_of(typed(load_file(arguments.config)), Spec(example, 256, labelled(10)))
    params = jax.jit(architecture.init)(jax.random.key(0))
    sde, steps, traces = architecture.sde, arguments.steps, []
    keys = sample_keys(0, jnp.arange(arguments.batch))
    times = np.linspace(sde.t_max, 1e-3, steps + 1)
    ts = jnp.asarray(times[:-1], jnp.float32)
    x = sde.prior_sigma * jax.random.normal(jax.random.key(1), (arguments.batch, *example))

    def network(params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        return architecture.bind(params, {})(x, t).x0

    @jax.jit
    def only_network(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda x, t: (network(params, x, t), None), x, ts)[0]

    call_network = jax.jit(network)

    @jax.jit
    def scanned(params: Any, plan: Any) -> jax.Array:
        traces.append(1)
        program = SOLVERS["ddim"]().program
        return sample(keys, architecture.bind(params, {}), sde, program, plan, shape=example)

    def plan_of(key: str, times: np.ndarray) -> Any:
        return SOLVERS[key](denoise=False).plan(sde, times)

    plans = {key: plan_of(key, times) for key in SAME_LENGTH}

    def python_loop() -> jax.Array:
        """DDIM as schedulers have it: the network compiled, the arithmetic of the step not."""
        state, alpha, sigma = x, sde.alpha(jnp.asarray(times)), sde.sigma(jnp.asarray(times))
        for i in range(steps):
            x0 = call_network(params, state, ts[i])
            noise = (state - alpha[i] * x0) / sigma[i]
            state = alpha[i + 1] * x0 + sigma[i + 1] * noise
        return state

    calls: dict[str, Callable[[], Any]] = {
        "network": lambda: only_network(params, x),
        **{f"scan, {key}": (lambda key=key: scanned(params, plans[key])) for key in TIMED},
        "Python loop, ddim": python_loop,
    }
    if arguments.hackable_diffusion:
        shape = (arguments.batch, *example)
        run = peer(arguments.hackable_diffusion, network, sde, shape, steps)
        calls["hackable_diffusion, ddim"] = lambda: run(params, jax.random.key(1))
    seconds = in_rounds(calls, arguments.rounds)
    for plan in plans.values():  # another solver, order or form is another table for the same program
        jax.block_until_ready(scanned(params, plan))

    # The same programs around a network that costs nothing: many steps, for a clock's sake.
    many = 200
    long = np.linspace(sde.t_max, 1e-3, many + 1)

    @jax.jit
    def free(plan: Any) -> jax.Array:
        program = SOLVERS["ddim"]().program
        return sample(keys, lambda x, t: Estimate(0.5 * x, x), sde, program, plan, shape=example)

    bare = in_rounds(
        {key: (lambda plan=plan: free(plan)) for key, plan in ((k, plan_of(k, long)) for k in TIMED)},
        arguments.rounds,
    )

    network_seconds = min(seconds["network"]) / steps
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "batch": arguments.batch,
        "steps": steps,
        "network_ms": 1e3 * network_seconds,
        "compilations_for_solvers": [len(traces), len(plans)],
        "per_step_ms": {k: 1e3 * min(v) / steps for k, v in seconds.items()},
        "spread_percent": {k: 100 * (max(v) / min(v) - 1) for k, v in seconds.items()},
        "beyond_network_percent": {
            k: 100 * (min(v) / steps / network_seconds - 1) for k, v in seconds.items()
        },
        "step_alone_ms": {k: 1e3 * min(v) / many for k, v in bare.items()},
        "step_alone_percent": {k: 100 * min(v) / many / network_seconds for k, v in bare.items()},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
