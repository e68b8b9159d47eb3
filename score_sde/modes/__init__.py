"""The modes of ``run.py``, one function each: ``Options`` to exit status."""

from collections.abc import Callable

from score_sde.flags import Options
from score_sde.modes.classifier import classifier
from score_sde.modes.decode import decode
from score_sde.modes.encode import encode
from score_sde.modes.evaluate import evaluate
from score_sde.modes.exchange import export_checkpoint, import_checkpoint
from score_sde.modes.interpolate import interpolate
from score_sde.modes.likelihood import likelihood
from score_sde.modes.outliers import outliers
from score_sde.modes.report import report
from score_sde.modes.sample import sample
from score_sde.modes.search import search
from score_sde.modes.stats import stats
from score_sde.modes.train import train

MODES: dict[str, Callable[[Options], int]] = {
    "train": train,
    "sample": sample,
    "likelihood": likelihood,
    "evaluate": evaluate,
    "import": import_checkpoint,
    "export": export_checkpoint,
    "stats": stats,
    "classifier": classifier,
    "report": report,
    "encode": encode,
    "decode": decode,
    "interpolate": interpolate,
    "search": search,
    "outliers": outliers,
}

__all__ = ["MODES"]
