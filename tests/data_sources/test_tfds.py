"""TFDS sets without TensorFlow: a real array_record set, the mock, and the messages."""

import io

import numpy as np
import pytest
from PIL import Image

from score_sde.conditions import labelled
from score_sde.data import TFDS, Batches, batch_indices

tfds = pytest.importorskip("tensorflow_datasets")


def pixels(k, height=6, width=5):
    return np.random.default_rng(k).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny set, built here by TFDS itself from PNG bytes."""

    class TinyPictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(6, 5, 3)),
                        "label": tfds.features.ClassLabel(num_classes=4),
                    }
                ),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate(range(12)), "validation": self._generate(range(12, 17))}

        def _generate_examples(self, numbers):
            yield from self._generate(numbers)

        def _generate(self, numbers):
            for k in numbers:
                png = io.BytesIO()
                Image.fromarray(pixels(k)).save(png, "PNG")
                png.seek(0)
                yield k, {"image": png, "label": k % 4}

    data_dir = tmp_path_factory.mktemp("tfds")
    TinyPictures(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


def numbers(source):
    """Which of the pictures each example is."""
    known = {pixels(k).tobytes(): k for k in range(17)}
    batch = source.read(np.arange(len(source)))
    found = [known[x.tobytes()] for x in batch["x"]]
    np.testing.assert_array_equal(batch["label"], np.array(found) % 4)
    return sorted(found)


def test_reads_what_was_written(prepared):
    train = TFDS("train", "tiny_pictures", data_dir=prepared)
    assert train.spec.shape == (6, 5, 3) and train.spec.conditions == labelled(4, "0123")
    assert numbers(train) == list(range(12))
    assert numbers(TFDS("test", "tiny_pictures", data_dir=prepared)) == list(range(12, 17))


def test_split_expressions(prepared):
    options = {"dataset": "tiny_pictures", "data_dir": prepared}
    cut = {"train_split": "train[:75%]", "test_split": "train[75%:]"}
    train, test = (TFDS(split, **options, **cut) for split in ("train", "test"))
    assert (len(train), len(test)) == (9, 3)
    assert sorted(numbers(train) + numbers(test)) == list(range(12))


def test_resizes_and_converts(prepared):
    source = TFDS("train", "tiny_pictures", data_dir=prepared, size=4, channels=1)
    assert source.read(np.array([0, 1]))["x"].shape == (2, 4, 4, 1)


@pytest.mark.slow
def test_streams_through_workers(prepared):
    source = TFDS("train", "tiny_pictures", data_dir=prepared)
    batches = Batches(source, batch_size=4, seed=0, placement="stream", num_workers=1).from_step(2)
    expected = source.read(batch_indices(0, 2, 4, 12))
    np.testing.assert_array_equal(next(batches)["x"], expected["x"])
    batches.close()


def test_a_known_set_by_name():
    with tfds.testing.mock_data(num_examples=5):
        source = TFDS("train", "cifar10")
        assert len(source) == 5
        assert source.spec.shape == (32, 32, 3) and source.spec.conditions[0][1].classes == 10
        assert source.read(np.array([0, 3]))["x"].shape == (2, 32, 32, 3)


def test_an_absent_set_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="(?s)cifar10.*pip install tensorflow.*data_dir.*folder"):
        TFDS("train", "cifar10", data_dir=tmp_path)


def test_refuses(prepared):
    with pytest.raises(ValueError, match="data.source.dataset = 'no_such_set'.*not found") as caught:
        TFDS("train", "no_such_set", data_dir=prepared)
    assert len(str(caught.value)) < 300  # not the list of all sets
    with pytest.raises(ValueError, match="data.source.test_split = 'night'"):
        TFDS("test", "tiny_pictures", data_dir=prepared, test_split="night")
    with pytest.raises(ValueError, match="split = 'eval'"):
        TFDS("eval", "tiny_pictures", data_dir=prepared)
    with pytest.raises(ValueError, match="data.source.size = -1"):
        TFDS("train", "tiny_pictures", data_dir=prepared, size=-1)
