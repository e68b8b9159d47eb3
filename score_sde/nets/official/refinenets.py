"""Names of NCSN and NCSNv2."""

from typing import Any

from score_sde.nets import Net
from score_sde.nets.official.rows import Row, flatten
from score_sde.nets.unets.ncsn import NCSN, NCSNv2

# The sixth level of the network for 256 pixels was put between two that had numbers.
TORCH_LEVELS = {6: ("1", "2", "3", "31", "4", "5")}
TORCH_STEPS = {6: ("5", "4", "3", "31", "2", "1")}  # of the refinement, at each level
TORCH_TOPS = {"stem": "begin_conv", "out_norm": "normalizer", "out_conv": "end_conv"}
TORCH_RESIDUAL = {
    "norm_0": "normalize1",
    "conv_0": "conv1",
    "norm_1": "normalize2",
    "conv_1": "conv2",
    "shortcut": "shortcut",
}
TORCH_REFINE = {"adapt_0": "adapt_convs.0", "adapt_1": "adapt_convs.1", "output": "output_convs"}
TORCH_CHAINS = {"fuse": "msf", "pool": "crp"}
TABLE = ("gamma", "alpha", "beta")  # side by side in one array, where the noise level chooses a row

FLAX_TOPS = {"stem": "Conv_0", "out_conv": "Conv_1"}
# Their InstanceNorm has parameters, and ours, which is that of the PyTorch code, has none.
FLAX_NORMS = {"InstanceNorm++": "InstanceNorm2dPlus", "VarianceNorm": "VarianceNorm2d"}
FLAX_REFINE = {"fuse": "MSFBlock_0", "pool": "CRPBlock_0"}


def _pooled(module: NCSNv2, level: int, block: int, layer: str) -> bool:
    """Whether a convolution of a residual block has the pooling inside."""
    return level > 0 and block == 0 and module.dilations[level] == 1 and layer in ("conv_1", "shortcut")


def torch_rows(net: Net, shape: tuple[int, ...]) -> list[Row]:
    """One row for each parameter."""
    module: Any = net.module
    depth = len(module.ch_mult)
    numbers = tuple(str(i + 1) for i in range(depth))
    levels, steps = TORCH_LEVELS.get(depth, numbers), TORCH_STEPS.get(depth, numbers[::-1])

    def layer(path: list[str]) -> str:
        match path[0].split("_"), *path[1:]:
            case ["down", level, "block", block], inner:
                pooled = ".conv" if _pooled(module, int(level), int(block), inner) else ""
                return f"res{levels[int(level)]}.{block}.{TORCH_RESIDUAL[inner]}{pooled}"
            case ["refine", level], ("fuse" | "pool") as chain, inner:
                kind, _, i = inner.partition("_")
                return f"refine{steps[int(level)]}.{TORCH_CHAINS[chain]}.{kind}s.{i}"
            case ["refine", level], part, inner:
                kind, _, i = inner.partition("_")
                unit, stage = divmod(int(i), 2)
                return f"refine{steps[int(level)]}.{TORCH_REFINE[part]}.{unit + 1}_{stage + 1}_{kind}"
            case _:
                return TORCH_TOPS[path[0]]

    rows = []
    for path, leaf in flatten(net.shapes(shape), "/").items():
        *holder, last = path.split("/")
        table = last in TABLE and isinstance(module, NCSN)
        theirs = "embed.weight" if table else {"kernel": "weight"}.get(last, last)
        rows.append(
            Row(
                path=(*holder, last),
                shape=tuple(leaf.shape),
                name=f"{layer(holder)}.{theirs}",
                output_first=last == "kernel",
                part=(TABLE.index(last), 3) if table else (0, 1),
            )
        )
    return rows


def flax_rows(net: Net, shape: tuple[int, ...]) -> list[Row]:
    """One row for each parameter of NCSNv2; the JAX code of NCSN was released in a state that cannot run.

    Raises:
      ValueError: a normalization that is another there.
    """
    module: Any = net.module
    if module.normalization not in FLAX_NORMS:
        raise ValueError(
            f"normalization={module.normalization!r}: must be one of {tuple(FLAX_NORMS)} for JAX"
        )
    norm = FLAX_NORMS[module.normalization]
    top = len(module.ch_mult) - 1

    def layer(path: list[str]) -> str:
        match path[0].split("_"), *path[1:]:
            case ["down", level, "block", block], inner:
                name = f"ResidualBlock_{2 * int(level) + int(block)}"
                kind, _, i = inner.partition("_")
                if kind == "norm":
                    return f"{name}/{norm}_{i}"
                number = {"conv_0": 0, "conv_1": 1, "shortcut": 2}[inner]
                pooled = _pooled(module, int(level), int(block), inner)
                return f"{name}/ConvMeanPool_{number - 1}/Conv_0" if pooled else f"{name}/Conv_{number}"
            case ["refine", level], part, inner:
                number = {"adapt_0": 0, "adapt_1": 1, "output": 1 if int(level) == top else 2}.get(part)
                block = FLAX_REFINE[part] if number is None else f"RCUBlock_{number}"
                return f"RefineBlock_{top - int(level)}/{block}/{inner.replace('conv', 'Conv')}"
            case [["out", "norm"]]:
                return f"{norm}_0"
            case _:
                return FLAX_TOPS[path[0]]

    rows = []
    for path, leaf in flatten(net.shapes(shape), "/").items():
        *holder, last = path.split("/")
        units = len(shape) if last in TABLE else 0  # their vectors are ready to broadcast
        theirs = "scale" if module.normalization == "VarianceNorm" and last == "alpha" else last
        rows.append(Row((*holder, last), tuple(leaf.shape), f"{layer(holder)}/{theirs}", units))
    return rows
