"""Guidance by other runs, named by their workdirs: a weaker model, and a classifier of noisy examples."""

import json

import numpy as np
import pytest

from score_sde.guidance import Gradient
from score_sde.runs.model import load
from tests.cli.test_cli import message, run, train

pytestmark = pytest.mark.slow  # the laws are in tests/guidance/test_other_models.py
CLASSIFIER = ("--config.task=noisy_classifier", "--config.task.widths=(8,)")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs of a model, which takes no class, and of a classifier."""
    model, classifier = (tmp_path_factory.mktemp(name) for name in ("model", "classifier"))
    assert train(model, steps=2) == 0
    assert train(classifier, *CLASSIFIER, "--config.optimizer.learning_rate=1e-2") == 0
    return model, classifier


def test_a_model_without_classes_is_guided_by_the_class_that_is_asked_for(runs, tmp_path):
    model, classifier = runs
    section = {"name": "classifier", "workdir": str(classifier), "scale": 300.0}
    guided = load(model, changes={"sampling.guidance": section})
    turns, seven = guided.sample(12), guided.sample(12, label=7)
    np.testing.assert_array_equal(turns[7], seven[7])  # classes come in turn
    assert np.any(turns[2] != seven[2])
    plain, none = load(model).sample(12), guided.sample(12, guidance_scale=0.0)
    np.testing.assert_allclose(none.astype(int), plain.astype(int), atol=16)  # one level, by rounding
    assert np.mean(none != plain) < 0.01 < np.mean(seven != plain)
    words = ("--mode=sample", f"--workdir={model}", "--num_samples=12", f"--output={tmp_path / 'x.npz'}")
    named = [f"--config.sampling.guidance.{key}={value}" for key, value in section.items()]
    assert run(*words, *named, "--condition=label=7") == 0
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file["samples"], seven)


def test_autoguidance_by_the_same_run_changes_nothing(runs):
    plain = load(runs[0])
    guided = plain.change({"sampling.guidance": {"name": "auto", "workdir": str(runs[0]), "scale": 3.0}})
    assert guided.sampler.guidance_digest and not plain.sampler.guidance_digest
    same = np.abs(guided.sample(4).astype(int) - plain.sample(4).astype(int))
    assert same.max() <= 16 and np.mean(same > 0) < 0.01


def test_a_model_follows_a_gradient_from_python(runs):
    plain = load(runs[0])
    darker = plain.guided(Gradient(lambda x0: x0.mean(), scale=200.0, sde=plain.sde))
    assert darker.sample(4).mean() < plain.sample(4).mean() - 5


def test_runs_that_do_not_fit_are_named(runs, tmp_path, capsys):
    model, classifier = runs
    words = ("--mode=sample", f"--workdir={model}", "--num_samples=2", f"--output={tmp_path / 'x.npz'}")
    place = "--config.sampling.guidance.workdir"

    def said(guidance, *more):
        return message(capsys, *words, f"--config.sampling.guidance={guidance}", *more)

    assert "config.sampling.guidance.workdir is not set" in said("auto")
    assert "guidance.workdir = " in said("auto", f"{place}={tmp_path / 'nowhere'}")
    assert "no checkpoint of step 9" in said("auto", f"{place}={model}", "--config.sampling.guidance.step=9")
    assert "'noisy_classifier'; must be one of a score model" in said("auto", f"{place}={classifier}")
    assert "must be one of --mode=train --config.task=noisy_classifier" in said(
        "classifier", f"{place}={model}"
    )
    assert "has codec" in said("auto", f"{place}={model}", "--config.codec.low=0")


@pytest.mark.slow
def test_a_classifier_of_noisy_examples_learns_what_noise_leaves(tmp_path):
    words = ("--config.training.batch_size=64", "--config.training.eval_examples=256")
    more = ("--config.training.eval_every_steps=120", "--config.optimizer.learning_rate=3e-3")
    assert train(tmp_path, "--config.task=noisy_classifier", *words, *more, steps=120) == 0
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    by_level = next(line for line in lines if "held_out_accuracy" in line)["held_out_accuracy_by_level"]
    assert by_level[0] > 0.7 and by_level[-1] < 0.25  # nothing but noise has no class
