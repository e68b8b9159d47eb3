"""Data sources, their order, augmentation, and batches of them."""

from score_sde.data.array_file import ArrayFile
from score_sde.data.augment import AUGMENTED, augment, random_flip
from score_sde.data.base import Late, Source, Spec
from score_sde.data.digits import Digits
from score_sde.data.folder import Folder
from score_sde.data.idx import IDX
from score_sde.data.loader import Batches, eval_batches
from score_sde.data.order import batch_indices
from score_sde.data.series import Series
from score_sde.data.table import Table
from score_sde.data.tfds import TFDS

SOURCES = {
    "digits": Digits,
    "folder": Folder,
    "array": ArrayFile,
    "idx": IDX,
    "tfds": TFDS,
    "table": Table,
    "series": Series,
}

__all__ = [
    "AUGMENTED",
    "IDX",
    "SOURCES",
    "TFDS",
    "ArrayFile",
    "Batches",
    "Digits",
    "Folder",
    "Late",
    "Series",
    "Source",
    "Spec",
    "Table",
    "augment",
    "batch_indices",
    "eval_batches",
    "random_flip",
]
