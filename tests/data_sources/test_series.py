"""Windows of series, split by time."""

import numpy as np
import pytest

from score_sde.data import Series

T = 40
VALUES = np.stack([np.arange(T) * 1.0, 100.0 - np.arange(T) ** 2], axis=1)


def series_of(tmp_path, values=VALUES, split="train", **options):
    path = tmp_path / "series.csv"
    rows = [",".join("" if np.isnan(v) else f"{v:.17g}" for v in row) for row in values]
    path.write_text("\n".join(["up,down", *rows]) + "\n")
    return Series(split, path, **{"length": 8, "held_out": 0.25, **options})


def test_windows_are_consecutive_rows_and_no_row_is_in_both_splits(tmp_path):
    train, test = (series_of(tmp_path, split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (30 - 8 + 1, 10 - 8 + 1)
    inside, outside = (s.read(np.arange(len(s)))["x"] for s in (train, test))
    for i in range(23):
        np.testing.assert_array_equal(inside[i], VALUES[i : i + 8].astype(np.float32))
    for i in range(3):
        np.testing.assert_array_equal(outside[i], VALUES[30 + i : 38 + i].astype(np.float32))
    assert inside[..., 0].max() == 29 and outside[..., 0].min() == 30
    assert train.spec.shape == (8, 2) and [c.name for c in train.spec.columns] == ["up", "down"]
    for split in (train, test):  # both know the training rows' moments only
        np.testing.assert_allclose([c.mean for c in split.spec.columns], VALUES[:30].mean(axis=0))
        np.testing.assert_allclose([c.std for c in split.spec.columns], VALUES[:30].std(axis=0))


def test_strides_and_channels(tmp_path):
    some = series_of(tmp_path, stride=7, columns=("down",))
    read = some.read(np.arange(len(some)))["x"]
    assert len(some) == 4 and read.shape == (4, 8, 1)
    np.testing.assert_array_equal(read[:, 0, 0], VALUES[[0, 7, 14, 21], 1])


def test_an_array_is_read_as_a_table_is(tmp_path):
    np.save(tmp_path / "x.npy", VALUES)
    a = Series("train", tmp_path / "x.npy", length=8, held_out=0.25)
    b = series_of(tmp_path)
    np.testing.assert_array_equal(a.read(np.arange(5))["x"], b.read(np.arange(5))["x"])
    assert [c.name for c in a.spec.columns] == ["channel_0", "channel_1"]
    one = Series("train", tmp_path / "x.npy", length=8, columns=("channel_1",))
    np.testing.assert_array_equal(one.read(np.array([0]))["x"][0, :, 0], VALUES[:8, 1])


def test_windows_with_holes_are_refused_or_dropped_with_their_number(tmp_path):
    values = VALUES.copy()
    values[10, 1] = np.nan  # in the windows that start at 3 .. 10
    with pytest.raises(ValueError, match="8 of 23 windows have missing values; .*'drop'"):
        series_of(tmp_path, values)
    with pytest.warns(UserWarning, match="8 of 23 windows have missing values and are left out"):
        some = series_of(tmp_path, values, holes="drop")
    starts = some.read(np.arange(len(some)))["x"][:, 0, 0]
    np.testing.assert_array_equal(starts, [0, 1, 2, *range(11, 23)])
    values[::7, 0] = np.nan
    with pytest.raises(ValueError, match="none is left; take a shorter data.source.length"):
        series_of(tmp_path, values, holes="drop")


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ValueError, match="length = 11: the test split has 10 of the 40 rows"):
        series_of(tmp_path, split="test", length=11)
    for field in ("length", "stride"):
        with pytest.raises(ValueError, match=f"{field} = 0: must be positive"):
            series_of(tmp_path, **{field: 0})
    constant = VALUES.copy()
    constant[:30, 0] = 4.0
    with pytest.raises(ValueError, match="every value of column 'up' in the training split is 4"):
        series_of(tmp_path, constant)
    np.save(tmp_path / "x.npy", np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\): must be numbers \(T, C\)"):
        Series("train", tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.array([[1.0, np.inf]]))
    with pytest.raises(ValueError, match="infinite values"):
        Series("train", tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", VALUES)
    with pytest.raises(ValueError, match="no channel 'up'"):
        Series("train", tmp_path / "x.npy", columns=("up",))
