"""``--mode=classifier``."""

from score_sde.flags import Options
from score_sde.modes.run import output_of, workdir_of
from score_sde.runs.classifier import train_classifier
from score_sde.runtime.files import check_writable


def classifier(options: Options) -> int:
    """Fit a classifier to the labelled training split: features of the user's own data."""
    output = output_of(options, "classifier.npz", "a classifier is a .npz", ".npz")
    check_writable(options.workdir, "--workdir")  # for the checkpoints of its training
    train_classifier(workdir_of(options), output)
    return 0
