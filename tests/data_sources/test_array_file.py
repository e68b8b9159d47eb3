"""Arrays on disk: ranks, types, labels, splits, and the messages for bad input."""

import warnings
import zipfile

import numpy as np
import pytest

from score_sde.conditions import labelled
from score_sde.data import ArrayFile


def everything(source):
    return source.read(np.arange(len(source)))


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "channels_last", "result"),
    [
        ((10, 6), None, (6, 1)),
        ((10, 6), True, (6,)),
        ((10, 6, 5), False, (6, 5, 1)),
        ((10, 6, 5), True, (6, 5)),
        ((10, 6, 5, 3), None, (6, 5, 3)),
        ((10, 6, 5, 3), False, (6, 5, 3, 1)),
        ((10, 4, 6, 5, 3), None, (4, 6, 5, 3)),
    ],
)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_ranks(tmp_path, shape, channels_last, result, kind):
    x = rng().integers(0, 256, shape).astype(kind)
    np.save(tmp_path / "a.npy", x)
    source = ArrayFile("train", tmp_path / "a.npy", held_out=0, channels_last=channels_last)
    assert source.spec.shape == result
    assert source.spec.grey_levels == (256 if kind == np.uint8 else None)
    batch = everything(source)
    assert batch["x"].dtype == kind
    np.testing.assert_array_equal(batch["x"], x.reshape(10, *result))
    assert batch.keys() == {"x"} and source.spec.conditions == ()


def test_grey_images_need_no_option_and_ambiguous_arrays_do(tmp_path):
    np.save(tmp_path / "grey.npy", rng().integers(0, 9, (10, 6, 5)).astype(np.uint8))
    assert ArrayFile("train", tmp_path / "grey.npy").spec.shape == (6, 5, 1)
    np.save(tmp_path / "float.npy", np.zeros((10, 6, 5), np.float32))
    with pytest.raises(ValueError, match=r"\(N, L, C\) or \(N, H, W\); set data.source.channels_last"):
        ArrayFile("train", tmp_path / "float.npy")


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_floats_become_float32(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.linspace(0, 1, 20).reshape(10, 2).astype(kind))
    assert everything(ArrayFile("train", tmp_path / "a.npy"))["x"].dtype == np.float32


def test_labels_and_keys(tmp_path):
    x = rng().integers(0, 4, (20, 3, 3, 1)).astype(np.uint8)
    label = np.arange(20) % 5
    np.savez(tmp_path / "a.npz", images=x, y=label)
    source = ArrayFile("train", tmp_path / "a.npz", held_out=0, grey_levels=4, key="images", label_key="y")
    assert source.spec.grey_levels == 4 and source.spec.conditions == labelled(5)
    batch = source.read(np.array([7, 2]))
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["label"], [2, 2])
    np.testing.assert_array_equal(batch["x"], x[[7, 2]])


def test_splits_are_disjoint_cover_and_keep_labels_with_examples(tmp_path):
    x = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.savez(tmp_path / "a.npz", x=x, label=np.arange(20))
    train, test = (
        everything(ArrayFile(split, tmp_path / "a.npz", held_out=0.25)) for split in ("train", "test")
    )
    assert len(test["label"]) == 5
    assert sorted([*train["label"], *test["label"]]) == list(range(20))
    for part in (train, test):
        np.testing.assert_array_equal(part["x"][..., 0], x[part["label"]])


def test_a_second_file_holds_the_test_split(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((6, 2), np.uint8), label=[0, 1, 2, 3, 0, 1])
    np.savez(tmp_path / "b.npz", x=np.ones((4, 2), np.uint8), label=[0, 1, 0, 1])
    train, test = (
        ArrayFile(split, tmp_path / "a.npz", test_path=tmp_path / "b.npz") for split in ("train", "test")
    )
    assert (len(train), len(test)) == (6, 4)
    assert train.spec == test.spec and train.spec.conditions == labelled(4)
    assert everything(train)["x"].max() == 0 and everything(test)["x"].min() == 1


def test_npy_is_memory_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((10, 2), np.uint8))
    assert isinstance(ArrayFile("train", tmp_path / "a.npy")._x, np.memmap)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.zeros((4, 2), np.int64), {}, "type int64 is not supported; .*uint8.*float32"),
        (np.zeros((4, 2), bool), {}, "type bool is not supported"),
        (np.zeros((4, 2), complex), {}, "type complex128 is not supported"),
        (np.array([{}, {}]), {}, "cannot read: .*Python objects are refused"),
        (np.zeros(4, np.float32), {}, "one number per example"),
        (np.zeros((0, 4), np.float32), {}, "no examples"),
        (np.float32(3), {}, "no examples"),
        (
            np.full((4, 2), 17, np.uint8),
            {"grey_levels": 17},
            r"index \(0, 0\) is 17.*data.source.grey_levels = 17",
        ),
        (np.zeros((4, 2), np.uint8), {"grey_levels": 1}, "data.source.grey_levels = 1"),
        (np.zeros((4, 2), np.float32), {"grey_levels": 16}, "data.source.grey_levels = 16.*float32"),
        (np.zeros((4, 2), np.uint8), {"held_out": -0.1}, "data.source.held_out = -0.1"),
        (np.zeros((4, 2), np.uint8), {"held_out": 0, "split": "test"}, "leaves none of the 4"),
        (np.zeros((4, 2), np.uint8), {"split": "all"}, "split = 'all'"),
        (np.full((4, 2), 1e39), {}, r"index \(0, 0\) is 1e\+39, expected finite float32"),
    ],
)
def test_refuses(tmp_path, x, options, message):
    np.save(tmp_path / "a.npy", x, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        ArrayFile(**{"split": "train", "path": tmp_path / "a.npy", **options})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_names_the_first_value_that_is_not_finite(tmp_path, value, monkeypatch):
    monkeypatch.setattr("score_sde.data.array_file._CHECKED_BYTES", 64)  # several passes
    x = np.zeros((100, 3, 2), np.float32)
    x[70, 2, 1] = x[71, 0, 0] = value
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(ValueError, match=r"a.npy.*index \(70, 2, 1\) is -?(nan|inf)"):
        ArrayFile("train", tmp_path / "a.npy", channels_last=True)


def test_refuses_files(tmp_path):
    with pytest.raises(ValueError, match="data.source.path = .*no such file"):
        ArrayFile("train", tmp_path / "a.npy")
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(ValueError, match="must be a .npy or .npz file, not '.txt'"):
        ArrayFile("train", tmp_path / "a.txt")
    for name in ("b.npy", "b.npz"):
        (tmp_path / name).write_text("not an array")
        with pytest.raises(ValueError, match=f"data.source.path = .*{name}.*cannot read"):
            ArrayFile("train", tmp_path / name)
    np.savez(tmp_path / "c.npz", pictures=np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"no array 'x' inside, only \['pictures'\]; set data.source.key"):
        ArrayFile("train", tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, 1, 2], r"labels .*shape \(3,\), expected \(4,\)"),
        ([0.0, 1.0, 2.0, 3.0], "type float64, expected integers"),
        ([0, 1, -1, 2], "must not be negative; index 2 is"),
    ],
)
def test_refuses_labels(tmp_path, label, message):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2), np.uint8), label=np.array(label))
    with pytest.raises(ValueError, match=message):
        ArrayFile("train", tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["u1", "u2", "f2", "f4", "f8"])
def test_byte_order_does_not_matter(tmp_path, kind):
    x = rng().integers(0, 200, (10, 4, 4, 1))
    read = []
    for order in "<>":
        np.save(tmp_path / "a.npy", x.astype(order + kind))
        source = ArrayFile("train", tmp_path / "a.npy", held_out=0)
        read.append(everything(source)["x"])
        assert read[-1].dtype == source.spec.dtype and read[-1].dtype.isnative
        np.testing.assert_array_equal(read[-1], x)
    np.testing.assert_array_equal(*read)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ([0, 12345], "2 different labels, of which the largest is 12345: a model would have 12346 classes"),
        ([0, 2_000_000_000], "the largest is 2000000000"),
        ([3_000_000, 3_000_001], "the largest is 3000001.*numpy.unique"),
        ([0, 120], "2 different labels"),
    ],
)
def test_labels_with_gaps_are_refused(tmp_path, label, said):
    x = np.zeros((4, 2, 2, 1), np.uint8)
    np.savez(tmp_path / "a.npz", x=x, label=np.array(label * 2, np.int64).astype(">i8"))
    with pytest.raises(ValueError, match=f"data.source.path = .*label_key = 'label'.*{said}"):
        ArrayFile("train", tmp_path / "a.npz", held_out=0)
    np.savez(tmp_path / "a.npz", x=x, label=np.array([0, 119, 0, 0]))
    assert ArrayFile("train", tmp_path / "a.npz", held_out=0).spec.conditions == labelled(120)


def warnings_of(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ArrayFile("train", tmp_path / "a.npz", held_out=0)
    return [str(one.message) for one in said]


@pytest.mark.parametrize(
    ("shape", "warned"),
    [
        ((6, 3, 8, 8), True),
        ((6, 4, 8, 8), True),
        ((6, 1, 8, 8), True),
        ((6, 8, 8, 3), False),
        ((6, 3, 8, 3), False),
        ((6, 8, 3, 8), False),
    ],
)
def test_channels_first_are_doubted(tmp_path, shape, warned):
    said = warnings_of(tmp_path, x=np.zeros(shape, np.float32))
    assert len(said) == warned
    if warned:
        assert "looks like channels first" in said[0] and "numpy.moveaxis(x, 1, -1)" in said[0]


def test_labels_under_another_name_are_pointed_at(tmp_path):
    x = np.zeros((6, 2, 2, 1), np.uint8)
    others = {"score": np.zeros(6), "edges": np.arange(7), "table": np.zeros((6, 2), int)}
    said = warnings_of(tmp_path, x=x, y=np.arange(6), **others)
    assert len(said) == 1 and "set data.source.label_key = 'y'" in said[0]
    assert not warnings_of(tmp_path, x=x, y=np.arange(6), label=np.arange(6), **others)


def test_names_are_for_archives(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 2, 2, 1), np.uint8))
    with pytest.raises(ValueError, match=r"a \.npy holds one array without a name"):
        ArrayFile("train", tmp_path / "a.npy", label_key="y")


def test_what_else_an_archive_holds_does_not_matter(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2, 2, 1), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "digits")
    assert len(ArrayFile("train", tmp_path / "a.npz", held_out=0)) == 4
    np.savez(tmp_path / "b.npz", x=np.float32(3.0))
    with pytest.raises(ValueError, match=r"holds no examples, shape \(\)"):
        ArrayFile("train", tmp_path / "b.npz", held_out=0)


def test_labels_of_other_kinds_are_pointed_at_once_and_explained(tmp_path):
    x = np.zeros((6, 2, 2, 1), np.uint8)
    said = warnings_of(tmp_path, x=x, y=np.arange(6)[:, None], names=np.array(list("abcdef")))
    assert len(said) == 1 and "'y' or 'names' looks like labels" in said[0]
    for label in (np.zeros(6), np.array(list("abcdef"))):
        np.savez(tmp_path / "a.npz", x=x, label=label)
        with pytest.raises(ValueError, match="expected integers from 0, which numpy.unique"):
            ArrayFile("train", tmp_path / "a.npz", held_out=0)


def test_labels_that_no_two_examples_share_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3000, 2), np.float32), label=np.arange(3000))
    with pytest.raises(ValueError, match="3000 different labels of 3000 examples, .* no classes"):
        ArrayFile("train", tmp_path / "a.npz", held_out=0)


@pytest.mark.parametrize(("largest", "levels", "warned"), [(4095, None, 1), (4096, None, 0), (4095, 4096, 0)])
def test_12_bits_in_an_array_of_16_are_doubted(tmp_path, largest, levels, warned):
    np.save(tmp_path / "a.npy", np.linspace(0, largest, 40).reshape(10, 2, 2, 1).astype(np.uint16))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ArrayFile("train", tmp_path / "a.npy", held_out=0, grey_levels=levels)
    assert len(said) == warned
    assert not warned or "set data.source.grey_levels, to 4096 perhaps" in str(said[0].message)
