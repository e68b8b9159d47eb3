"""Attention by XLA and by cuDNN at the sizes of the networks: prints a Markdown table.

    python experiments/benchmarks/attention.py

Time of a forward pass and of the gradient, bfloat16, the median of calls.  cuDNN needs an NVIDIA GPU.
"""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

# Images, positions, heads, channels of a head.
SIZES = {
    "DDPM++, 16x16": (128, 256, 1, 256),
    "ADM, 32x32": (64, 1024, 6, 64),
    "ADM, 16x16": (64, 256, 9, 64),
    "NCSN++ 256, 16x16": (16, 256, 1, 256),
}
CALLS = 10


def milliseconds(function: Any, *args: Any) -> float:
    """Median time of a jitted call."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Print the table."""
    print(
        f"{jax.devices()[0].device_kind}\n\n| size | by | forward, ms | gradient, ms |\n|---|---|---:|---:|"
    )
    for name, size in SIZES.items():
        parts = tuple(jax.random.normal(jax.random.key(i), size, jnp.bfloat16) for i in range(3))
        for by in ("xla", "cudnn"):

            def attend(parts: Any, by: Any = by) -> Any:
                return jax.nn.dot_product_attention(*parts, implementation=by)

            def loss(parts: Any, attend: Any = attend) -> Any:
                return jnp.sum(attend(parts).astype(jnp.float32) ** 2)

            try:
                cells = [milliseconds(jax.jit(f), parts) for f in (attend, jax.grad(loss))]
            except Exception as error:  # whatever the backend raises for what it does not have
                print(f"| {name} | {by} | {str(error).splitlines()[0][:60]} | |", flush=True)
                continue
            print(f"| {name} | {by} | {cells[0]:.3g} | {cells[1]:.3g} |", flush=True)


if __name__ == "__main__":
    main()
