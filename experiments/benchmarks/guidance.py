"""Classifier-free guidance in one batched pass against two passes, and what other guidance costs.

    python experiments/benchmarks/guidance.py --config=configs/vp_digits.py --batch=16

One call is one guided estimate.  The ways are timed in turn, so that a busy machine slows all of them.  The
table has the median time of each, and the median and the quartiles of its ratio to one batched pass, over
pairs of calls one after the other: above 1, one batched pass is faster.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.arrays import Parts
from score_sde.conditions import Cond, Conditions, null_of
from score_sde.data import Spec
from score_sde.denoiser import Bind, Denoise, Estimate
from score_sde.experiment.assemble import architecture_of, open_source, sampler_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import changed, typed
from score_sde.guidance import GUIDANCE_SCALE, UNCHANGED, Gradient, Guidance

CHANGES = {"conditions.names": ("label",), "sampling.guidance": {"name": "classifier_free", "scale": 3.0}}


def two_passes(bind: Bind, conditions: Conditions) -> Bind:
    """Classifier-free guidance that evaluates the network twice, one pass after the other."""

    def bind_guided(parts: Parts, cond: Cond) -> Denoise:
        given = {name: cond[name] for name, _ in conditions}
        own, none = bind(parts, given), bind(parts, null_of(conditions, given))
        return lambda x, t: none(x, t).toward(own(x, t), cond[GUIDANCE_SCALE])

    return bind_guided


def seconds(call: Callable[[], Estimate]) -> float:
    """From dispatch until the result is there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(config: str, batch: int, repeats: int, spec: Spec | None = None) -> dict[str, np.ndarray]:
    """Seconds of each call, ``(repeats,)``, by the way of guidance.

    Args:
      spec: of the data; None: that of the config's source.
    """
    made = changed(typed(load_file(config)), CHANGES)
    architecture = architecture_of(made, open_source(made, "train").spec if spec is None else spec)
    guidance, gradient = (
        sampler_of(made, architecture).guidance,
        Gradient(lambda x0: jnp.mean(x0), sde=architecture.sde),
    )
    ways = {
        "one batched pass": (guidance(architecture.bind), guidance),
        "two passes": (two_passes(architecture.bind, architecture.conditions), guidance),
        "no guidance": (architecture.bind, UNCHANGED),
        "gradient of a loss": (gradient(architecture.bind), gradient),
    }
    parts = jax.jit(architecture.init)(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (batch, *architecture.state_shape))
    given = {name: jnp.zeros((batch, *one.shape), one.dtype) for name, one in architecture.conditions}
    t = jnp.full(batch, 0.5 * architecture.sde.t_max)

    def compiled(bind: Bind, numbers: Guidance) -> Callable[[], Estimate]:
        own = {name: jnp.asarray(values) for name, values in numbers.inputs(batch).items()}
        cond = {**given, **own}

        def estimate(parts: Parts, cond: Cond, x: Array, t: Array) -> Estimate:
            return bind(parts, cond)(x, t)

        program = jax.jit(estimate).lower(parts, cond, x, t).compile()
        return lambda: program(parts, cond, x, t)

    calls = {name: compiled(*way) for name, way in ways.items()}
    for call in calls.values():
        seconds(call), seconds(call)
    times = [[seconds(call) for call in calls.values()] for _ in range(repeats)]
    return dict(zip(calls, np.array(times).T, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", default="configs/vp_digits.py")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args()
    times = measure(args.config, args.batch, args.repeats)
    one = times["one batched pass"]
    print(f"{jax.devices()[0].device_kind}, {args.config}, {args.batch} samples, {args.repeats} calls\n")
    print("| guidance | ms | / one batched pass (quartiles) |\n|---|---:|---:|")
    for name, each in times.items():
        low, middle, high = np.quantile(each / one, [0.25, 0.5, 0.75])
        print(f"| {name} | {1e3 * np.median(each):.3g} | {middle:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()
