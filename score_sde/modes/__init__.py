"""The modes of ``run.py``, one function each: ``Options`` to exit status."""

from collections.abc import Callable

from score_sde.flags import Options
from score_sde.modes.evaluate import evaluate
from score_sde.modes.exchange import export_checkpoint, import_checkpoint
from score_sde.modes.likelihood import likelihood
from score_sde.modes.sample import sample
from score_sde.modes.train import train

MODES: dict[str, Callable[[Options], int]] = {
    "train": train,
    "sample": sample,
    "likelihood": likelihood,
    "evaluate": evaluate,
    "import": import_checkpoint,
    "export": export_checkpoint,
}

__all__ = ["MODES"]
