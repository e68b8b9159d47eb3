"""Names of the classifier, which was released in JAX only."""

import re

from score_sde.nets import Net
from score_sde.nets.official.rows import Row, flatten

LAYERS = {
    "time_embedding": "GaussianFourierProjection_0",
    "time_dense_0": "Dense_0",
    "time_dense_1": "Dense_1",
    "stem": "init_conv",
    "out_norm": "pre-pool-bn",
    "out_dense": "Dense_2",
    "norm_0": "init_bn",
    "conv_0": "conv1",
    "time": "Dense_0",
    "norm_1": "bn_2",
    "conv_1": "conv2",
    "frequencies": "W",
}


def flax_rows(net: Net, shape: tuple[int, ...]) -> list[Row]:
    """One row for each parameter."""
    rows = []
    for path, leaf in flatten(net.shapes(shape), "/").items():
        keys = path.split("/")
        block = re.fullmatch(r"group_(\d+)_block_(\d+)", keys[0])
        theirs = [f"WideResnetGroup_{block[1]}/WideResnetBlock_{block[2]}"] if block else []
        theirs += [LAYERS.get(key, key) for key in keys[1 if block else 0 :]]
        rows.append(Row(tuple(keys), tuple(leaf.shape), "/".join(theirs)))
    return rows
