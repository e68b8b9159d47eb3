"""``--mode=dequantiser``."""

from score_sde.flags import Options
from score_sde.modes.run import model_of
from score_sde.names import ConfigError
from score_sde.runs.dequantiser import train_dequantiser
from score_sde.runtime.files import check_writable


def dequantiser(options: Options) -> int:
    """A second stage of training, for the likelihood of a model that stays as it is."""
    check_writable(options.workdir, "--workdir")
    model = model_of(options)
    if model.architecture.spec.grey_levels is None:
        raise ConfigError("--mode=dequantiser: needs the workdir of a model of integer data")
    train_dequantiser(model.change({"codec.dequantize": True}))
    return 0
