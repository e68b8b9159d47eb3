"""A model of classes, trained and sampled with classifier-free guidance, as a user meets it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from score_sde.conditions import conditions_to_json
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import changed, typed
from score_sde.runs.classifier import train_classifier
from score_sde.runs.model import load
from score_sde.runs.workdir import Workdir
from tests.cli.test_cli import message, run, train
from tests.conftest import ROOT

CONDITIONAL = ("--config.conditions.names=label", "--config.conditions.dropout=0.2")
GUIDED = ("--config.sampling.guidance=classifier_free", "--config.sampling.guidance.scale=3")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Enough steps at a high rate for the class to have a say."""
    workdir = tmp_path_factory.mktemp("run")
    words = (*CONDITIONAL, "--config.optimizer.learning_rate=1e-2", "--config.ema.name=constant")
    assert train(workdir, *words, "--config.ema.decay=0.5", steps=8) == 0
    return workdir


@pytest.fixture(scope="module")
def sample(trained, tmp_path_factory):
    """Samples of the command line, by its further words."""
    folder = tmp_path_factory.mktemp("samples")
    words = ("--mode=sample", f"--workdir={trained}", "--num_samples=12", f"--output={folder / 'x.npz'}")

    def drawn(*more):
        assert run(*words, *more) == 0
        with np.load(folder / "x.npz") as file:
            return file["samples"]

    return drawn


@pytest.mark.slow
def test_a_class_is_named_in_three_ways(sample):
    seven = sample(*GUIDED, "--label=7")
    np.testing.assert_array_equal(sample(*GUIDED, "--condition=label=7"), seven)
    np.testing.assert_array_equal(sample(*GUIDED, "--condition=7"), seven)


@pytest.mark.slow
def test_the_class_and_the_scale_act_and_classes_come_in_turn(sample):
    guided, seven, two = sample(*GUIDED), sample(*GUIDED, "--label=7"), sample(*GUIDED, "--label=2")
    np.testing.assert_array_equal(guided[7], seven[7])  # the same noise and the same class
    np.testing.assert_array_equal(guided[2], two[2])
    assert np.any(seven != two)
    one, plain = sample(GUIDED[0], "--config.sampling.guidance.scale=1", "--label=7"), sample("--label=7")
    assert np.any(plain != seven)
    np.testing.assert_allclose(one.astype(int), plain.astype(int), atol=16)  # one level, by rounding
    assert np.mean(one == plain) > 0.99


@pytest.mark.slow
def test_python_draws_the_samples_of_the_command_line(trained, sample):
    changes = {"sampling.guidance": "classifier_free", "sampling.guidance.scale": 3.0}
    model = load(trained, changes=changes)
    np.testing.assert_array_equal(model.sample(12, label=7), sample(*GUIDED, "--label=7"))
    each = model.sample(12, label=np.arange(12) % 10, guidance_scale=np.full(12, 3.0))
    np.testing.assert_array_equal(each, sample(*GUIDED))
    with pytest.raises(ValueError, match="colour: the model takes label"):
        model.sample(2, colour=3)
    with pytest.raises(ValueError, match="label has 3 values: must be one, or 2"):
        model.sample(2, label=[1, 2, 3])


@pytest.mark.slow
def test_mistakes_are_named(trained, capsys):
    words = ("--mode=sample", f"--workdir={trained}", "--num_samples=2")
    assert "--label=10: must be one of the classes 0 to 9" in message(capsys, *words, "--label=10")
    assert "--condition=size=3: the model takes label" in message(capsys, *words, "--condition=size=3")
    assert "did you mean 'label'?" in message(capsys, *words, "--lable=3")
    assert "--mode=evaluate does not read it" in message(
        capsys, "--mode=evaluate", f"--workdir={trained}", "--label=3"
    )


def pets(path, *names):
    """A folder of eight pictures a class."""
    shutil.rmtree(path, ignore_errors=True)
    for name in names:
        (path / name).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.full((8, 8), 30 * i, np.uint8)).save(path / name / f"{i}.png")


def workdir_of_pets(tmp_path, taken):
    changes = {
        **{"data.source": "folder", "data.source.path": str(tmp_path / "pets"), "data.source.channels": 1},
        **{"data.source.held_out": 0.3, "conditions.names": taken},
    }
    config = changed(typed(load_file(str(ROOT / "configs" / "vp_digits.py"))), changes)
    workdir = Workdir(tmp_path / "run", config, None)
    return replace(workdir, spec=workdir.source("train").spec)


@pytest.mark.parametrize("names", [("bird", "cat", "dog"), ("dog", "eel"), ("cat", "puppy")])
def test_classes_that_have_moved_are_refused(tmp_path, names):
    pets(tmp_path / "pets", "cat", "dog")
    known, free = workdir_of_pets(tmp_path, ("label",)), workdir_of_pets(tmp_path, ())
    assert known.source("train").spec == known.spec
    pets(tmp_path / "pets", *names)
    said = f"{len(names)} classes: {', '.join(names)} here, and 2 classes: cat, dog then"
    with pytest.raises(ValueError, match=said):
        known.source("train")
    assert free.source("train")  # a model that takes no class does not mind
    record = tmp_path / "run" / "classifier" / "conditions.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(conditions_to_json(known.spec.conditions)))
    with pytest.raises(ValueError, match=said):
        train_classifier(free, tmp_path / "classifier.npz")


def test_a_condition_that_the_data_have_lost_is_named(tmp_path):
    pets(tmp_path / "pets", "cat", "dog")
    known = workdir_of_pets(tmp_path, ("label",))
    pets(tmp_path / "pets", ".")
    with pytest.raises(ValueError, match="has no condition 'label', which the model takes"):
        known.source("train")
