"""Data sources, their order, their scaling, and batches of them.  A leaf: imports no sibling."""

from score_sde.data.array_file import ArrayFile
from score_sde.data.augment import AUGMENT_DIM, augment
from score_sde.data.base import Source, Spec
from score_sde.data.digits import Digits
from score_sde.data.folder import Folder
from score_sde.data.loader import Batches, eval_batches
from score_sde.data.order import batch_indices
from score_sde.data.scaling import Scaling, random_flip, warn_if_unscaled
from score_sde.data.tfds import TFDS

SOURCES = {"digits": Digits, "folder": Folder, "array": ArrayFile, "tfds": TFDS}

__all__ = [
    "AUGMENT_DIM",
    "SOURCES",
    "TFDS",
    "ArrayFile",
    "Batches",
    "Digits",
    "Folder",
    "Scaling",
    "Source",
    "Spec",
    "augment",
    "batch_indices",
    "eval_batches",
    "random_flip",
    "warn_if_unscaled",
]
