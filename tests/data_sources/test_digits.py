"""The digits: real, complete, split once and for all."""

import numpy as np
import pytest

from score_sde.conditions import labelled
from score_sde.data import SOURCES, Digits
from score_sde.data.base import Spec

datasets = pytest.importorskip("sklearn.datasets")


def test_splits_make_up_the_published_set():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1497, 300)
    assert train.spec == test.spec
    assert train.spec == Spec((8, 8, 1), 17, labelled(10))
    parts = [s.read(np.arange(len(s))) for s in (train, test)]
    rows = [(p["x"].reshape(-1, 64).tolist(), p["label"].tolist()) for p in parts]
    ours = sorted(zip(rows[0][0] + rows[1][0], rows[0][1] + rows[1][1], strict=True))
    x, label = datasets.load_digits(return_X_y=True)
    assert ours == sorted(zip(x.astype(int).tolist(), label.tolist(), strict=True))
    assert parts[0]["x"].dtype == np.uint8 and parts[0]["x"].max() == 16


def test_both_splits_have_every_class_in_proportion():
    for source in (Digits("train"), Digits("test")):
        count = np.bincount(source.read(np.arange(len(source)))["label"], minlength=10)
        assert np.all(count > 0.6 * len(source) / 10) and np.all(count < 1.4 * len(source) / 10)


def test_refuses_another_split():
    with pytest.raises(ValueError, match="split = 'valid'"):
        Digits("valid")


def test_table():
    assert sorted(SOURCES) == ["array", "digits", "folder", "idx", "series", "table", "tfds"]
