"""What a recipe costs in memory and operations, by computation: prints Markdown tables.

    python experiments/benchmarks/capacity.py
    python experiments/benchmarks/capacity.py --config=configs/vp_cifar.py --check=8

Nothing is compiled or allocated: parameters and the arrays that the gradient keeps are counted from their
shapes, and operations by XLA from the lowered program, a multiply-add as two.  Kept arrays are those of the
program as written; a compiler that fuses keeps fewer, so they bound the memory from above.  In float32 on a
CPU they are those of the CPU's program, whose convolutions keep and multiply otherwise.  ``--check=B``
also compiles the training step for batch B on the device at hand and prints what XLA reserves for it.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from score_sde.conditions import labelled
from score_sde.data import Spec
from score_sde.evaluate.named_extractors import pixels
from score_sde.experiment.assemble import architecture_of, average_of, optimizer_of, task_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import Config, changed, typed
from score_sde.nets import parameter_count
from score_sde.nets.remat import POLICIES
from score_sde.tasks.base import Batch, Metrics, Parts, Task
from score_sde.train import init_state, make_step

CONFIGS = ("configs/vp_cifar.py", "configs/ve_faces.py", "configs/ve_faces.py:ffhq_1024")
# One H100 SXM: dense bfloat16 operations a second, bytes a second and bytes of memory (its data sheet).
FLOPS, BANDWIDTH, MEMORY = 989e12, 3.35e12, 80e9
STATE = 20  # bytes a parameter: itself, its average, two moments of Adam, its gradient
TRAFFIC = 36  # bytes a parameter a step: all of these read, and all but the gradient written again
SHARE = 0.9  # of the memory that a program may fill


class Recipe(NamedTuple):
    """A config at its published size, and what it trains."""

    config: Config
    spec: Spec
    task: Task[Any]

    @property
    def params(self) -> Parts:
        """The parts that are trained, as shapes."""
        return jax.eval_shape(lambda key: self.task.init({}, key), jax.random.key(0))


def build(name: str, dtype: str, remat: str) -> Recipe:
    """The recipe of a config, whose task has no frozen parts."""
    config = changed(typed(load_file(name)), {"model.dtype": dtype, "model.remat": remat})
    size = config.data.source.options.get("size") or 32
    if config.data.source.name == "digits":  # of 8 pixels a side: attention stays at the same levels
        resolutions = tuple(size // 8 * side for side in config.model.options["attn_resolutions"])
        config = changed(config, {"model.attn_resolutions": resolutions})
    spec = Spec((size, size, 3), 256, labelled(10))
    return Recipe(config, spec, task_of(config, architecture_of(config, spec), pixels()))


def abstract_batch(recipe: Recipe, batch: int) -> Any:
    """A raw batch as shapes."""
    x = jax.ShapeDtypeStruct((batch, *recipe.spec.shape), jnp.uint8)
    return {"x": x, "label": jax.ShapeDtypeStruct((batch,), jnp.int32)}


def mean_loss(recipe: Recipe, raw: Batch) -> Callable[[Parts], tuple[jax.Array, Metrics]]:
    """The loss of a raw batch as a function of the parameters, and what may be logged."""
    examples = recipe.task.draw({}, raw, jax.random.key(0))

    def loss(params: Parts) -> tuple[jax.Array, Metrics]:
        average = jax.lax.stop_gradient(params)  # which of these losses none reads
        per_example, aux = recipe.task.loss(params, {}, average, examples, jax.random.key(1))
        return jnp.mean(per_example), aux

    return loss


def kept_bytes(recipe: Recipe, batch: int) -> int:
    """Bytes of the arrays that the forward pass keeps for the gradient, parameters included."""

    def backward(params: Parts, raw: Batch) -> Any:
        return jax.vjp(mean_loss(recipe, raw), params, has_aux=True)[1]

    kept = jax.eval_shape(backward, recipe.params, abstract_batch(recipe, batch))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def operations(recipe: Recipe, batch: int) -> float:
    """Operations of a loss and its gradient."""

    def gradient(params: Parts, raw: Batch) -> Any:
        return jax.value_and_grad(mean_loss(recipe, raw), has_aux=True)(params)

    lowered = jax.jit(gradient).lower(recipe.params, abstract_batch(recipe, batch))
    return float((lowered.cost_analysis() or {}).get("flops", float("nan")))


def measured(recipe: Recipe, batch: int) -> int:
    """Bytes that XLA reserves for a step beside its state, in one program as accelerators have it."""
    config, task, optimizer = recipe.config, recipe.task, optimizer_of(recipe.config)
    shapes = jax.eval_shape(init_state(task, optimizer, config.seed), {})
    step = make_step(task, optimizer, average_of(config), config.seed)
    program = jax.jit(step, donate_argnums=0).lower(shapes, {}, abstract_batch(recipe, batch))
    analysis: Any = program.compile().memory_analysis()
    return int(analysis.temp_size_in_bytes)


def table(name: str, dtype: str, check: int | None) -> None:
    """Print what one config costs under every policy of rematerialisation."""
    plain = build(name, dtype, "none")
    count = parameter_count(plain.params)
    fixed = STATE * count
    print(f"**{name}**, {plain.spec.shape}, {count / 1e6:.1f} M parameters, {dtype}\n")
    print(f"State and gradient: {fixed / 1e9:.2f} GB.\n")
    head = "| remat | kept, MB an image | GFLOP an image | images in 80 GB | least ms | images/s at most |"
    print(head + (f" kept at {check}, GB | XLA reserves, GB |" if check else ""))
    print("|---|" + "---:|" * (7 if check else 5))
    for remat in POLICIES:
        recipe = plain if remat == "none" else build(name, dtype, remat)
        one, two = kept_bytes(recipe, 1), kept_bytes(recipe, 2)
        image = two - one
        flops = operations(recipe, 2) / 2
        most = int((SHARE * MEMORY - fixed - (one - image)) // image)
        most = max(most, 0)
        seconds = max(flops * most / FLOPS, (TRAFFIC * count + 2 * image * most) / BANDWIDTH)
        rate = most / seconds if most else 0.0
        cells = [remat, f"{image / 1e6:.1f}", f"{flops / 1e9:.0f}", f"{most}", f"{1e3 * seconds:.0f}"]
        cells.append(f"{rate:.0f}")
        if check:
            estimate = one + (check - 1) * image - (one - image)
            cells += [f"{estimate / 1e9:.2f}", f"{measured(recipe, check) / 1e9:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    print()


def main() -> None:
    """Parse the command line and print a table for every config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", metavar="FILE[:VARIANT]")
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--check", type=int, metavar="B", help="also compile the step for batch B here")
    options = parser.parse_args()
    for name in options.config or CONFIGS:
        table(name, options.dtype, options.check)


if __name__ == "__main__":
    main()
