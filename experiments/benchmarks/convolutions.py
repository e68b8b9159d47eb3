"""Every convolution of a network by itself: prints a Markdown table.

    python experiments/benchmarks/convolutions.py --config=configs/vp_cifar.py:reduced --batch=16

On one core, where the system lets a process choose; milliseconds for all convolutions of a kind in one pass:
forward, the gradient for the input and that for the kernel, each the least of several calls.  Where PyTorch
is installed its convolutions follow, channels last.  What a training step takes beyond these is something
else.
"""

import argparse
import collections
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_sde.conditions import labelled
from score_sde.cpu import malloc
from score_sde.data import Spec
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import Config, typed
from score_sde.nets import convolution, layers

Kind = tuple[int, int, int, int]  # side, stride, channels in and out
REPEATS = 7


def kinds(config: Config, spec: Spec, batch: int) -> collections.Counter[Kind]:
    """The 3x3 convolutions of one forward pass, and how often each occurs."""
    architecture = architecture_of(config, spec)
    parts = jax.eval_shape(architecture.init, jax.random.key(0))
    found: collections.Counter[Kind] = collections.Counter()

    def noted(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, layers.Conv):
            (x,) = args
            found[x.shape[1], context.module.stride, x.shape[-1], context.module.features] += 1
        return call(*args, **kwargs)

    x = jax.ShapeDtypeStruct((batch, *spec.shape), jnp.float32)
    t = jax.ShapeDtypeStruct((batch,), jnp.float32)
    with nn.intercept_methods(noted):
        jax.eval_shape(lambda parts, x, t: architecture.bind(parts, {})(x, t), parts, x, t)
    return found


def ours(kind: Kind, batch: int) -> Iterator[Callable[[], Any]]:
    """Forward pass, gradient for the input, gradient for the kernel."""
    side, stride, fewer, more = kind
    x, kernel = jnp.ones((batch, side, side, fewer)), jnp.ones((3, 3, fewer, more))

    def run(x: Any, kernel: Any) -> Any:
        return convolution.convolve(x, kernel, stride, (1, 1))

    slope = jnp.ones(jax.eval_shape(run, x, kernel).shape)
    for function in (
        lambda x, kernel, slope: run(x, kernel),
        lambda x, kernel, slope: jax.vjp(lambda x: run(x, kernel), x)[1](slope),
        lambda x, kernel, slope: jax.vjp(lambda kernel: run(x, kernel), kernel)[1](slope),
    ):
        compiled = jax.jit(function).lower(x, kernel, slope).compile()
        yield lambda f=compiled: jax.block_until_ready(f(x, kernel, slope))


def theirs(kind: Kind, batch: int) -> Iterator[Callable[[], Any]]:
    """The same by PyTorch."""
    import torch  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    side, stride, fewer, more = kind
    x = torch.ones(batch, fewer, side, side).to(memory_format=torch.channels_last)
    kernel = torch.ones(more, fewer, 3, 3).to(memory_format=torch.channels_last)
    settings = (None, [stride] * 2, [1, 1], [1, 1], False, [0, 0], 1)
    slope = torch.ones_like(torch.convolution(x, kernel, *settings))
    yield lambda: torch.convolution(x, kernel, *settings)
    for mask in ([True, False, False], [False, True, False]):
        yield lambda m=mask: torch.ops.aten.convolution_backward(slope, x, kernel, None, *settings[1:], m)


def least(call: Callable[[], Any]) -> float:
    """Milliseconds."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/vp_cifar.py:reduced", metavar="FILE[:VARIANT]")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_num_cpu_devices", 1)
    codes = {"ours": ours}
    try:
        import torch  # type: ignore[import-not-found]

        codes["PyTorch"] = theirs
        print(f"PyTorch {torch.__version__}", end=", ")
    except ImportError:
        pass
    print(f"jax {jax.__version__}, batch {options.batch}\n")
    head = ["side", "stride", "channels", "count", "GFLOP"]
    head += [f"{code}: {what}" for code in codes for what in ("forward", "input", "kernel")]
    print(f"| {' | '.join(head)} |\n|" + "--:|" * len(head))
    found = kinds(typed(load_file(options.config)), Spec((32, 32, 3), 256, labelled(10)), options.batch)
    totals = np.zeros(1 + 3 * len(codes))
    for (side, stride, fewer, more), count in sorted(found.items(), reverse=True):
        flops = 2e-9 * options.batch * count * (3 * side // stride) ** 2 * fewer * more
        calls = [c for make in codes.values() for c in make((side, stride, fewer, more), options.batch)]
        times = [count * least(call) for call in calls]
        totals += [flops, *times]
        row = [side, stride, f"{fewer} to {more}", count, f"{flops:.2f}", *(f"{t:.1f}" for t in times)]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    last = [f"{totals[0]:.2f}", *(f"{t:.0f}" for t in totals[1:])]
    print(f"| all | | | {found.total()} | {' | '.join(last)} |")


if __name__ == "__main__":
    malloc.restart_with_settings()
    main()
