"""Checkpoints of others: read as data, renamed, and put into a workdir like any other.

    model = convert.load("checkpoint_8.pth", "configs/vp_cifar.py")
    denoise = model.architecture.bind(model.state.ema, {})

Layers of this package: files (``pickles``, ``torch_files``, ``safetensors``, ``flax_files``) know no network;
formats (``score_sde``) know what is where in a file; ``load`` meets the network.
"""

from score_sde.convert.errors import CheckpointError, UnsafePickle
from score_sde.convert.load import Imported, config_of, load, read

__all__ = ["CheckpointError", "Imported", "UnsafePickle", "config_of", "load", "read"]
