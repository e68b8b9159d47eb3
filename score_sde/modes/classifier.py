"""``--mode=classifier``."""

from pathlib import Path

from score_sde.flags import Options
from score_sde.modes.run import workdir_of
from score_sde.names import ConfigError
from score_sde.runs.classifier import train_classifier


def classifier(options: Options) -> int:
    """Fit a classifier to the labelled training split: features of the user's own data."""
    output = options.workdir / "classifier.npz" if options.output is None else Path(options.output)
    if output.suffix != ".npz":
        raise ConfigError(f"--output={output}: a classifier is a .npz")
    train_classifier(workdir_of(options), output)
    return 0
