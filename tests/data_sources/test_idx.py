"""IDX files: what is written byte by byte comes back, and files that do not belong together are refused."""

import gzip
import struct

import numpy as np
import pytest

from score_sde.conditions import labelled
from score_sde.data import IDX
from score_sde.data.idx import read_idx

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def content(array, kind="u1"):
    """The bytes that the format asks for, written from its description."""
    head = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(kind).tobytes()


def write(path, array, kind="u1"):
    data = content(array, kind)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def pictures(count, shape=(5, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Five training and three test pictures; some of the files are packed."""
    write(tmp_path / "train-images-idx3-ubyte.gz", pictures(5))
    write(tmp_path / "train-labels-idx1-ubyte", np.array([2, 0, 1, 2, 0]))
    write(tmp_path / "t10k-images-idx3-ubyte", pictures(3, seed=1))
    write(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([1, 1, 2]))
    return tmp_path


@pytest.mark.parametrize("kind", CODES)
def test_every_type_is_read_in_its_byte_order(tmp_path, kind):
    array = np.array([[0, 1, 2], [100, 127, 3]])
    write(tmp_path / "a-idx", array, kind)
    found = read_idx(tmp_path / "a-idx")
    assert found.dtype.isnative and found.dtype == np.dtype(kind).newbyteorder("=")
    np.testing.assert_array_equal(found, array)


def test_splits_are_the_files_and_labels_go_with_their_pictures(folder):
    train, test = IDX("train", folder, held_out=0.4), IDX("test", folder)  # which has files of its own
    assert (len(train), len(test)) == (5, 3)
    assert train.spec.shape == (5, 4, 1) and train.spec.grey_levels == 256
    assert train.spec.conditions == test.spec.conditions == labelled(3)
    batch = train.read(np.array([3, 1]))
    np.testing.assert_array_equal(batch["x"][..., 0], pictures(5)[[3, 1]])
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["label"], [2, 0])
    np.testing.assert_array_equal(test.read(np.arange(3))["x"][..., 0], pictures(3, seed=1))
    np.testing.assert_array_equal(test.read(np.arange(3))["label"], [1, 1, 2])


def test_colour_pictures_and_dots_in_names(tmp_path):
    write(tmp_path / "train-images.idx4-ubyte", pictures(5, (4, 3, 3)))
    write(tmp_path / "train-labels.idx1-ubyte", np.arange(5))
    source = IDX("train", tmp_path, held_out=0.0, class_names=("a", "b", "c", "d", "e"))
    assert source.spec.shape == (4, 3, 3) and source.spec.conditions == labelled(5, "abcde")
    np.testing.assert_array_equal(source.read(np.arange(5))["x"], pictures(5, (4, 3, 3)))


def test_without_test_files_a_share_is_held_out(tmp_path):
    write(tmp_path / "train-images-idx3-ubyte", pictures(10))
    train, test = IDX("train", tmp_path, held_out=0.3), IDX("test", tmp_path, held_out=0.3)
    assert (len(train), len(test)) == (7, 3) and not train.spec.conditions
    rows = [source.read(np.arange(len(source)))["x"] for source in (train, test)]
    everything = {x.tobytes() for x in np.concatenate(rows)}
    assert everything == {x.tobytes() for x in pictures(10)}


def test_the_files_of_one_set_among_several(folder):
    for name in ("letters", "mnist"):
        write(folder / f"emnist-{name}-train-images-idx3-ubyte", pictures(2, seed=len(name)))
    with pytest.raises(ValueError, match=r"several files .*emnist-letters.*set data\.source\.prefix"):
        IDX("train", folder)
    source = IDX("train", folder, prefix="emnist-mnist-", held_out=0.0)
    np.testing.assert_array_equal(source.read(np.arange(2))["x"][..., 0], pictures(2, seed=5))


def test_a_missing_set_says_how_to_get_one(tmp_path):
    for path in (tmp_path, tmp_path / "no"):
        with pytest.raises(ValueError, match=r"data\.source\.path = .*apt install dataset-fashion-mnist"):
            IDX("train", path)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-1], "cut short: 115 bytes, and 116"),
        ("train-images-idx3-ubyte", lambda b: b + b"\0", "too long: 117 bytes, and 116"),
        ("train-images-idx3-ubyte", lambda b: b[:9], "no IDX file: its first bytes are 00 00 08 03"),
        ("train-images-idx3-ubyte", lambda b: b"\x89PNG" + b[4:], "no IDX file: its first bytes are 89 50"),
        ("train-images-idx3-ubyte", lambda b: b"", "no IDX file: its first bytes are missing"),
        ("train-images-idx3-ubyte", lambda b: content(pictures(5), ">f4"), "holds float32 .* must be uint8"),
        ("train-images-idx3-ubyte", lambda b: content(np.arange(5)), "must be uint8"),
        ("train-labels-idx1-ubyte", lambda b: content(np.arange(4)), "4 labels, and .* 5 images"),
        ("train-labels-idx1-ubyte", lambda b: content(-np.arange(5), "i1"), "label 1 is negative"),
        ("train-labels-idx1-ubyte", lambda b: content(np.arange(5), ">f4"), "labels must be integers"),
    ],
)
def test_files_that_cannot_be_are_named(folder, name, spoil, message):
    (folder / "train-images-idx3-ubyte.gz").unlink()
    write(folder / "train-images-idx3-ubyte", pictures(5))
    (folder / name).write_bytes(spoil((folder / name).read_bytes()))
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        IDX("train", folder)


def test_a_packed_file_that_is_cut_short_is_named(folder):
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: cannot read"):
        IDX("train", folder)


def test_class_names_must_fit_the_labels(folder):
    with pytest.raises(ValueError, match=r"class_names: 2 names, and .* the label 2 beside it"):
        IDX("train", folder, class_names=("a", "b"))
    assert IDX("train", folder, class_names=("a", "b", "c", "d")).spec.conditions == labelled(4, "abcd")


def test_classes_are_those_of_both_splits(folder):
    write(folder / "t10k-labels-idx1-ubyte.gz", np.array([1, 1, 0]))  # fewer than in training
    assert IDX("test", folder).spec == IDX("train", folder).spec
    write(folder / "t10k-labels-idx1-ubyte.gz", np.array([1, 4, 0]))
    assert IDX("train", folder).spec.conditions == labelled(5)
