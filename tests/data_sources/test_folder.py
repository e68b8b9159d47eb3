"""Folders of images: listing, classes, splits, damaged files, and the messages for bad input."""

import os
import warnings

import numpy as np
import pytest
from PIL import Image

from score_sde.conditions import labelled
from score_sde.data import Folder
from score_sde.runs.inputs import Inputs


def save(path, shape=(8, 8, 3), value=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(path.name.encode(), "big") % 2**32
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    if value is not None:
        pixels[:] = value
    Image.fromarray(pixels[..., 0] if shape[-1] == 1 else pixels).save(path, **options)
    return pixels


def everything(source):
    return source.read(np.arange(len(source)))


def truncate(path):
    save(path, (32, 32, 3))
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "JPEG", "gif", "webp", "tiff", "ppm"])
def test_reads_any_format(tmp_path, suffix):
    for k in range(3):
        save(tmp_path / f"{k}.{suffix}", value=100 + k)
    source = Folder("train", tmp_path, held_out=0.0)
    assert source.spec.shape == (8, 8, 3) and source.spec.grey_levels == 256
    batch = everything(source)
    assert batch["x"].dtype == np.uint8 and batch.keys() == {"x"}
    middle = batch["x"][:, 4, 4, 0].astype(int)
    assert np.all(np.abs(middle - [100, 101, 102]) <= 1)
    assert source.spec.conditions == ()


def test_classes_are_sorted_sub_folders(tmp_path):
    pixels = {name: save(tmp_path / name) for name in ("dog/1.png", "cat/z/2.png", "cat/1.png")}
    (tmp_path / "dog" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / ".hidden" / "x.png")
    save(tmp_path / "dog" / "._1.png")
    source = Folder("train", str(tmp_path), held_out=0)
    assert source.files == ["cat/1.png", "cat/z/2.png", "dog/1.png"]
    assert source.spec.conditions == labelled(2, ["cat", "dog"])
    batch = source.read(np.array([2, 0, 2]))
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["label"], [1, 0, 1])
    np.testing.assert_array_equal(batch["x"][0], pixels["dog/1.png"])
    np.testing.assert_array_equal(batch["x"][1], pixels["cat/1.png"])


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_split_folders(tmp_path, name):
    save(tmp_path / "train/b/1.png")
    save(tmp_path / "train/a/2.png")
    save(tmp_path / name / "b/3.png")
    train, test = (Folder(split, tmp_path) for split in ("train", "test"))
    assert train.files == ["a/2.png", "b/1.png"] and test.files == ["b/3.png"]
    assert train.spec == test.spec and train.spec.conditions == labelled(2, "ab")
    np.testing.assert_array_equal(everything(test)["label"], [1])  # as in train, though alone


def test_held_out_files_are_a_fixed_fraction_that_growth_does_not_move(tmp_path):
    for k in range(300):
        save(tmp_path / f"{k}.png", (2, 2, 3))
    train, test = (Folder(split, tmp_path, held_out=0.2).files for split in ("train", "test"))
    assert not set(train) & set(test) and len(train) + len(test) == 300
    assert 60 - 5 * 7 < len(test) < 60 + 5 * 7  # binomial, five standard deviations
    for k in range(300, 320):
        save(tmp_path / f"{k}.png", (2, 2, 3))
    assert set(test) <= set(Folder("test", tmp_path, held_out=0.2).files)
    assert set(train) <= set(Folder("train", tmp_path, held_out=0.2).files)
    assert set(Folder("test", tmp_path, held_out=0.1).files) <= set(
        Folder("test", tmp_path, held_out=0.2).files
    )


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_mixed_files_are_brought_to_one_shape(tmp_path, channels, resize):
    for k, shape in enumerate([(5, 9, 3), (30, 8, 1), (16, 16, 4), (64, 48, 3)]):
        save(tmp_path / f"{k}.png", shape)
    source = Folder("train", tmp_path, size=[12, 10], channels=channels, resize=resize, held_out=0)
    assert everything(source)["x"].shape == (4, 12, 10, channels)


def test_center_crop_comes_before_scaling(tmp_path):
    pixels = save(tmp_path / "a.png", (12, 10, 3))
    middle = pixels[3:9, 2:8]
    whole = Folder("train", tmp_path, center_crop=6, held_out=0.0)
    assert whole.spec.shape == (6, 6, 3)
    np.testing.assert_array_equal(everything(whole)["x"][0], middle)
    flat = np.asarray(Image.fromarray(middle).resize((3, 3), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(
        everything(Folder("train", tmp_path, size=3, center_crop=6, held_out=0.0))["x"][0], flat
    )
    with pytest.raises(ValueError, match=r"a\.png has size 12x10, expected 11x11 or more"):
        everything(Folder("train", tmp_path, size=3, center_crop=11, held_out=0.0))
    with pytest.raises(ValueError, match="center_crop = 0: must be a positive integer"):
        Folder("train", tmp_path, center_crop=0)


def test_many_big_files_are_read_in_threads_in_order(tmp_path):
    pixels = [save(tmp_path / f"{k:03}.png", (128, 128, 3)) for k in range(150)]
    source = Folder("train", tmp_path, held_out=0)
    np.testing.assert_array_equal(everything(source)["x"], pixels)


def test_first_deviating_size_is_named_at_once(tmp_path):
    for k, size in enumerate([8, 8, 9, 7]):
        save(tmp_path / f"{k}.png", (size, 8, 3))
    with pytest.raises(ValueError, match=r"data.source.size: .*2.png has size 9x8, expected 8x8"):
        Folder("train", tmp_path, held_out=0)
    with pytest.raises(ValueError, match=r"0.png has size 8x8, expected 16x16"):
        Folder("train", tmp_path, size=16, resize="none", held_out=0)


@pytest.fixture
def damaged(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("this is text")
    truncate(tmp_path / "c.jpg")
    (tmp_path / "d.png").write_bytes(b"")
    save(tmp_path / "e.png")
    return tmp_path


def test_damaged_files_are_named(damaged):
    with pytest.raises(ValueError, match="data.source.path: cannot use .*b.png: cannot identify"):
        Folder("train", damaged, held_out=0)
    source = Folder("train", damaged, size=8, held_out=0)
    with pytest.raises(ValueError, match="c.jpg: .*truncated.*data.source.on_error = 'skip'"):
        source.read(np.array([0, 2]))
    with pytest.raises(ValueError, match="d.png"):
        source.read(np.array([3]))


@pytest.mark.parametrize("size", [None, 8])
def test_damaged_files_are_skipped_and_reported(damaged, size):
    with pytest.warns(UserWarning, match="skipped 3 of 5 images.*b.png: cannot identify"):
        source = Folder("train", damaged, size=size, held_out=0, on_error="skip")
    assert source.files == ["a.png", "e.png"] and len(source) == 2
    assert [name for name, _ in source.skipped] == ["b.png", "c.jpg", "d.png"]
    assert everything(source)["x"].shape == (2, 8, 8, 3)


def test_skipping_leaves_out_wrong_sizes_but_not_everything(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png", (9, 8, 3))
    with pytest.warns(UserWarning, match="skipped 1 of 2 .*size 9x8, expected 8x8"):
        assert Folder("train", tmp_path, held_out=0, on_error="skip").files == ["a.png"]
    with pytest.raises(ValueError, match="none of the 2 images"):
        Folder("train", tmp_path, size=99, resize="none", held_out=0, on_error="skip")


def test_refuses_folders(tmp_path):
    with pytest.raises(ValueError, match="data.source.path = .*no such folder"):
        Folder("train", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="data.source.path = .*no images in .*holds nothing"):
        Folder("train", tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="no images in .*holds notes.txt"):
        Folder("train", tmp_path)
    with pytest.raises(ValueError, match="must be a folder"):
        Folder("train", tmp_path / "notes.txt")
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="data.source.held_out = 0: leaves none of the 1 images"):
        Folder("test", tmp_path, held_out=0)
    save(tmp_path / "cat" / "b.png")
    with pytest.raises(ValueError, match=r"class folders \(cat, ...\) and 1 images beside them"):
        Folder("train", tmp_path, held_out=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "eval"}, "split = 'eval'"),
        ({"held_out": 1.0}, "data.source.held_out = 1.0"),
        ({"on_error": "ignore"}, "data.source.on_error = 'ignore'"),
        ({"channels": 2}, "data.source.channels = 2"),
        ({"size": 0}, "data.source.size = 0"),
        ({"resize": "zoom"}, "data.source.resize = 'zoom'"),
    ],
)
def test_refuses_options(tmp_path, options, message):
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        Folder(**{"split": "train", "path": tmp_path, **options})


def test_links_are_followed_once_and_those_that_lead_nowhere_are_named(tmp_path):
    pixels = save(tmp_path / "real" / "a.png")
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "linked").symlink_to(tmp_path / "real")  # a folder elsewhere
    (tmp_path / "set" / "cat" / "up").symlink_to(tmp_path / "set")  # a folder above itself
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "real")  # the same place once more
    (tmp_path / "set" / "dog").mkdir()
    (tmp_path / "set" / "dog" / "cats").symlink_to(tmp_path / "set" / "cat")  # a folder within
    (tmp_path / "set" / "cat" / "around").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "set" / "cat" / "pipe.png")
    (tmp_path / "set" / "cat" / "to_pipe.png").symlink_to(tmp_path / "set" / "cat" / "pipe.png")
    source = Folder("train", tmp_path / "set", held_out=0)
    assert source.files in (["cat/linked/a.png"], ["cat/again/a.png"])
    np.testing.assert_array_equal(everything(source)["x"][0], pixels)
    for name, target in (("gone.png", "nowhere.png"), ("itself.png", "itself.png")):
        link = tmp_path / "set" / "cat" / name
        link.symlink_to(link.with_name(target))
        with pytest.raises(ValueError, match=f"data.source.path: cannot use .*{name}: .*on_error = 'skip'"):
            everything(Folder("train", tmp_path / "set", held_out=0))
        with pytest.warns(UserWarning, match=f"skipped 1 of 2 images .*{name}"):
            kept = Folder("train", tmp_path / "set", held_out=0, on_error="skip")
        assert len(kept.files) == 1
        link.unlink()


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    save(tmp_path / "cat" / "a.png")
    save(tmp_path / "dog" / "a.png")

    def scandir(path, real=os.scandir):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ValueError, match=r"data.source.path: cannot look into .*dog: Permission denied"):
        Folder("train", tmp_path)


def test_names_that_are_no_text(tmp_path):
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", raw)
    source = Folder("train", tmp_path, held_out=0)
    assert everything(source)["x"].shape == (1, 8, 8, 3)
    title = Inputs(source, source.spec, "set").title(0)
    assert title == r"caf\xe9.png" and title.encode()


def test_the_size_limit_of_pillow_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    save(tmp_path / "a.png")  # 64 pixels
    with pytest.warns(UserWarning, match="more than 40 pixels.*data.source.max_pixels moves that limit"):
        Folder("train", tmp_path, held_out=0)
    save(tmp_path / "a.png", (10, 10, 3))
    with pytest.raises(ValueError, match="if the file is what you think, set data.source.max_pixels"):
        Folder("train", tmp_path, held_out=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Folder("train", tmp_path, held_out=0, max_pixels=100).spec.shape == (10, 10, 3)
    with pytest.raises(ValueError, match="100 pixels, more than data.source.max_pixels = 99"):
        Folder("train", tmp_path, held_out=0, max_pixels=99)


@pytest.mark.parametrize(("largest", "warned"), [(0, False), (255, True), (4095, True), (4096, False)])
def test_12_bits_in_16_are_doubted(tmp_path, largest, warned):
    pixels = np.linspace(0, largest, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Folder("train", tmp_path, held_out=0, channels=1)
    assert any("no value above 4095" in str(one.message) for one in said) == warned
