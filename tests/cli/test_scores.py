"""Scores, reference statistics and the classifier as a user meets them."""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from score_sde.evaluate.cache import Cache
from score_sde.evaluate.chunks import Chunks
from score_sde.evaluate.examples import Examples
from score_sde.evaluate.fid import frechet_distance
from score_sde.evaluate.moments import Gaussian, Moments
from score_sde.evaluate.neighbours import nearest_examples
from score_sde.evaluate.scores import Sampled, title
from score_sde.experiment.schema import typed
from score_sde.runs.workdir import Choice, Workdir
from score_sde.train import Checkpoints, TrainState, combine
from tests.cli.test_cli import DIGITS, message, run, train
from tests.conftest import ROOT

FEW = (
    "--config.evaluate.frechet.bootstrap=0",
    "--config.evaluate.kid.subsets=2",
    "--config.evaluate.batch_size=64",
)
FRECHET = ("--config.evaluate.metrics=('frechet',)", FEW[0], FEW[2])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert train(workdir, "--config.training.checkpoint_every_steps=2") == 0
    return workdir


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """A copy of the run, with scores."""
    workdir = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(trained, workdir)
    assert run("--mode=evaluate", f"--workdir={workdir}", "--num_samples=12", *FEW) == 0
    return workdir


def scores(path, row=0):
    report = json.loads(path.read_text())
    return {name: score["value"] for name, score in report["rows"][row]["scores"].items()}


def pictures(folder, seed, count=12, side=8, shift=0):
    folder.mkdir()
    x = np.random.default_rng(seed).integers(0, 200, (count, side, side, 3)) + shift
    for i, image in enumerate(x.astype(np.uint8)):
        Image.fromarray(image).save(folder / f"{i}.png")
    return x.astype(np.uint8)


# --- generate and score ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_gives_the_same_number(trained):
    words = ("--mode=evaluate", f"--workdir={trained}", "--num_samples=40", *FEW)
    words += ("--config.sampling.batch_size=16",)
    assert run(*words) == 0
    whole = scores(trained / "scores_pixels.json")
    (folder,) = (p for p in (trained / "results").iterdir() if p.is_dir())
    chunks = sorted(folder.iterdir())
    assert [p.name for p in chunks] == ["00000000.npz", "00000016.npz", "00000032.npz"]
    written = chunks[0].stat().st_mtime_ns
    chunks[2].unlink()
    (folder / "00000032.tmp.npz").write_bytes(b"half")  # what a kill leaves behind
    assert run(*words) == 0
    assert scores(trained / "scores_pixels.json") == whole
    assert chunks[0].stat().st_mtime_ns == written
    report = json.loads((trained / "scores_pixels.json").read_text())
    assert report["count"] == 40
    assert report["reference"]["count"] == 1497
    assert report["searched"] == 40
    assert report["nearest_training_rms"] > report["nearest_training_rms_of_held_out"] > 0
    assert Image.open(trained / "neighbours.png").size[0] > 6 * 8
    assert "| pixels_frechet |" in (trained / "scores_pixels.md").read_text()


@pytest.mark.slow
def test_an_evaluation_killed_at_any_moment_gives_the_number_of_one_that_was_not(tmp_path):
    """SIGKILL between chunks, and again: the result is that of an evaluation in one piece."""
    assert train(tmp_path / "run") == 0
    words = ["--mode=evaluate", "--num_samples=96", "--config.sampling.batch_size=8", *FEW]

    def start(workdir):
        return subprocess.Popen(
            [sys.executable, "run.py", f"--workdir={workdir}", *words],
            cwd=ROOT,
            env=dict(os.environ, XLA_FLAGS="", PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def chunks(workdir):
        return sorted(p for p in workdir.glob("results/*/*.npz") if ".tmp" not in p.name)

    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    whole = start(tmp_path / "whole")
    out = whole.communicate()[0]
    assert whole.returncode == 0, out
    total, made = len(chunks(tmp_path / "whole")), {}
    for kills in (1, 2):
        process = start(tmp_path / "run")
        while len(chunks(tmp_path / "run")) < 3 * kills:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        process.kill()  # SIGKILL, in the middle of whatever it was doing
        process.wait()
        assert not (tmp_path / "run" / "scores_pixels.json").exists()
        assert all(path.stat().st_mtime_ns == time for path, time in made.items())  # none was made again
        made = {path: path.stat().st_mtime_ns for path in chunks(tmp_path / "run")}
    assert 6 <= len(made) < total == 12
    last = start(tmp_path / "run")
    out = last.communicate()[0]
    assert last.returncode == 0, out
    one, other = (json.loads((tmp_path / d / "scores_pixels.json").read_text()) for d in ("whole", "run"))
    assert one["rows"] == other["rows"]  # to the last digit, warnings and hashes too
    assert (tmp_path / "run" / "scores_pixels.json").exists()


@pytest.mark.slow
def test_every_checkpoint_in_one_table_and_the_classifier_by_its_own_name(trained, capsys):
    small = ("--config.classifier.steps=200", "--config.classifier.widths=(8,64)")
    words = ("--mode=classifier", f"--workdir={trained}", *small, "--config.classifier.batch_size=64")
    assert run(*words) == 0
    assert "held-out accuracy 0.9" in capsys.readouterr().out
    words = ("--mode=evaluate", f"--workdir={trained}", "--num_samples=32", "--all_checkpoints", *FRECHET[1:])
    metrics = "--config.evaluate.metrics=('frechet','inception_score')"
    assert run(*words, metrics, "--config.evaluate.features=classifier") == 0
    report = json.loads((trained / "scores_classifier.json").read_text())
    assert [row["step"] for row in report["rows"]] == [2, 4]
    assert list(report["rows"][0]["scores"]) == ["cfd", "classifier_score", "classifier_score_10"]
    values = [row["scores"]["cfd"]["value"] for row in report["rows"]]
    assert report["best_step"] == [2, 4][int(np.argmin(values))]
    assert any("32 examples for 64 feature dimensions" in w for w in report["rows"][0]["warnings"])
    assert (trained / "scores_classifier.png").exists()
    assert "fid" not in (trained / "scores_classifier.md").read_text()


def test_only_inception_gives_a_fid():
    assert title("frechet", "inception") == "fid"
    names = ["cfd", "pixels_frechet", "sfid"]
    assert [title("frechet", f) for f in ("classifier", "pixels", "inception_spatial")] == names
    assert title("inception_score_10", "classifier") == "classifier_score_10"


def test_real_data_score_better_than_noise_and_against_themselves_zero(tmp_path):
    reference = tmp_path / "digits.npz"
    assert run(DIGITS, "--mode=stats", f"--output={reference}", f"--workdir={tmp_path}") == 0
    from score_sde.data import Digits

    train_x, test_x = (Examples(Digits(s), s) for s in ("train", "test"))
    sets = {"same": train_x.read(np.arange(1497)), "held_out": test_x.read(np.arange(300))}
    sets["noise"] = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1)).astype(np.uint8)
    found = {}
    for name, x in sets.items():
        np.savez(tmp_path / f"{name}_samples.npz", samples=x)
        words = (f"--samples={tmp_path / name}_samples.npz", f"--reference={reference}", *FEW)
        output = tmp_path / f"{name}.json"
        assert run("--mode=evaluate", *words, f"--output={output}", "--config.evaluate.prdc.nearest=3") == 0
        found[name] = scores(output)
    assert abs(found["same"]["pixels_frechet"]) < 1e-9
    assert 0 < found["held_out"]["pixels_frechet"] < 0.1 * found["noise"]["pixels_frechet"]
    assert found["held_out"]["pixels_precision"] > 0.8 > 0.1 > found["noise"]["pixels_precision"]


def test_folder_against_folder_is_the_distance_of_their_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = pictures(tmp_path / "a", 0)
    b = pictures(tmp_path / "b", 1, count=9, shift=40)
    words = ("--samples=a", "--reference=b", *FRECHET)
    assert run("--mode=evaluate", *words) == 0
    one, two = (Moments.of(x.reshape(len(x), -1) / 255).gaussian for x in (a, b))
    got = scores(tmp_path / "runs" / "evaluate" / "scores_pixels.json")
    assert got == {"pixels_frechet": pytest.approx(frechet_distance(one, two), rel=1e-5)}
    assert run("--mode=stats", "--samples=b", "--output=b.npz") == 0
    words = ("--samples=a", "--reference=b.npz", *FRECHET)
    assert run("--mode=evaluate", *words) == 0
    assert scores(tmp_path / "runs" / "evaluate" / "scores_pixels.json") == got


def test_features_of_ones_own_are_named_by_module_and_function(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_features.py").write_text(
        "from score_sde.evaluate.extractors import NetworkFeatures, Pixels\n"
        "def mean():\n"
        "    return NetworkFeatures(lambda p, x: (p * x.mean((1, 2)) / 255, None), 2.0, name='mean')\n"
        "def fake():\n"
        "    return Pixels()\n"
    )
    a, b = pictures(tmp_path / "a", 0), pictures(tmp_path / "b", 1, shift=40)
    words = (
        "--mode=evaluate",
        "--samples=a",
        "--reference=b",
        "--config.evaluate.metrics=('frechet',)",
        *FRECHET[1:],
    )
    assert run(*words, "--config.evaluate.features=my_features:mean") == 0
    one, two = (Moments.of(2 * x.mean((1, 2)) / 255).gaussian for x in (a, b))
    got = scores(tmp_path / "runs" / "evaluate" / "scores_mean.json")
    assert got == {"mean_frechet": pytest.approx(frechet_distance(one, two), rel=1e-4)}
    assert "no attribute 'other'" in message(capsys, *words, "--config.evaluate.features=my_features:other")
    assert "No module" in message(capsys, *words, "--config.evaluate.features=not_there:x")
    assert "calls itself 'pixels'" in message(capsys, *words, "--config.evaluate.features=my_features:fake")


# --- mistakes --------------------------------------------------------------------------------------


def test_bad_folders_are_named(tmp_path, capsys):
    pictures(tmp_path / "a", 0)
    words = ("--mode=evaluate", f"--samples={tmp_path / 'b'}", f"--reference={tmp_path / 'a'}")
    assert "b'" in message(capsys, *words) or "no such" in message(capsys, *words)
    pictures(tmp_path / "b", 1, count=1)
    assert "holds one image, 0.png" in message(capsys, *words)
    Image.new("RGB", (9, 8)).save(tmp_path / "b" / "wide.png")
    error = message(capsys, *words)
    assert "wide.png" in error
    assert "8x9" in error
    (tmp_path / "b" / "wide.png").unlink()
    (tmp_path / "b" / "broken.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:50])
    assert "broken.png" in message(capsys, *words)
    other = ("--mode=evaluate", f"--samples={tmp_path / 'a'}", f"--reference={tmp_path / 'c'}")
    pictures(tmp_path / "c", 0, side=9)
    assert "shape = '(9, 9, 3)' against '(8, 8, 3)'" in message(capsys, *other)
    assert "name what to compare with" in message(capsys, *other[:2])


def test_statistics_of_another_protocol_are_refused(tmp_path, capsys):
    pictures(tmp_path / "a", 0)
    words = ("--mode=evaluate", f"--samples={tmp_path / 'a'}", f"--reference={tmp_path / 'r.npz'}", *FRECHET)
    np.savez(tmp_path / "r.npz", mu=np.zeros(192), sigma=np.eye(192))
    assert "has no protocol; it is taken for Inception statistics" in message(capsys, *words)
    protocol = {"features": "pixels", "weights": "none", "resize": "none", "values": "float32"}
    np.savez(
        tmp_path / "r.npz",
        mu=np.zeros(192),
        sigma=np.eye(192),
        protocol=json.dumps({**protocol, "shape": "(8, 8, 3)"}),
    )
    assert "values = 'float32' against 'uint8 0..255'" in message(capsys, *words)
    np.savez(tmp_path / "r.npz", mu=np.zeros(192), sigma=np.eye(191))
    assert "(192,) and sigma of shape (191, 191) do not fit" in message(capsys, *words)
    (tmp_path / "r.npz").write_bytes(b"PK not a zip")
    assert "r.npz" in message(capsys, *words)


def test_mistakes_of_the_flags_are_named(trained, capsys, tmp_path):
    evaluate = ("--mode=evaluate", f"--workdir={trained}")
    assert "--num_samples=N" in message(capsys, *evaluate, "--all_checkpoints")
    assert "leave out --num_samples" in message(capsys, *evaluate, "--samples=x", "--num_samples=3")
    assert "needs at least 2" in message(capsys, *evaluate, "--num_samples=1")
    few = (*evaluate, "--num_samples=20")
    assert "did you mean 'frechet'" in message(capsys, *few, "--config.evaluate.metrics=('frechett',)")
    assert "metrics is empty" in message(capsys, *few, "--config.evaluate.metrics=()")
    assert "is not one of: pixels, classifier" in message(capsys, *few, "--config.evaluate.features=vgg")
    inception = (*few, "--config.evaluate.features=inception")
    assert "95628359 bytes, SHA-256 6726825d0af5" in message(capsys, *inception)
    assert "no such file" in message(capsys, *inception, "--config.evaluate.features.weights=/none/x.npz")
    (tmp_path / "x.bin").write_bytes(b"")
    error = message(capsys, *inception, f"--config.evaluate.features.weights={tmp_path / 'x.bin'}")
    assert "cannot read '.bin'" in error
    classifier = f"--config.evaluate.features.weights={tmp_path / 'c.npz'}"
    words = (*few, "--config.evaluate.features=classifier", classifier)
    assert "train one on the data with --mode=classifier" in message(capsys, *words)
    np.savez(tmp_path / "c.npz", a=np.ones(3))
    assert "not a classifier of --mode=classifier" in message(capsys, *words)


# --- parts -----------------------------------------------------------------------------------------


def test_chunks_extend_to_more_samples_without_making_the_first_again(tmp_path):
    made = []

    def make(start):
        made.append(start)
        return np.arange(start, start + 4, dtype=np.float32)[:, None]

    chunks = Chunks(Cache(tmp_path / "c"), 4, shown=5)
    for count in (6, 6, 10):
        sampled, first = chunks.collect(count, make, lambda x: Sampled(2 * x), room=tmp_path)
        np.testing.assert_array_equal(sampled.features[:, 0], 2 * np.arange(count))
        np.testing.assert_array_equal(first[:, 0], np.arange(5))
    assert made == [0, 4, 4, 8]  # the second chunk was cut at 6


def test_nearest_examples_are_found_across_batches():
    data = np.random.default_rng(0).normal(size=(50, 2, 3))
    samples = data[[41, 7]] + 1e-3
    near = nearest_examples(samples, [data[:20], data[20:21], data[21:]], 3)
    np.testing.assert_array_equal(near.number[:, 0], [41, 7])
    np.testing.assert_allclose(near.distance[:, 0], 1e-3, rtol=1e-6)
    every = np.sqrt(((samples[:, None] - data[None]) ** 2).mean(axis=(2, 3)))
    np.testing.assert_allclose(near.distance, np.sort(every, axis=1)[:, :3], rtol=1e-6)


def test_pytorch_fid_statistics_are_taken_for_inception(tmp_path):
    from score_sde.evaluate.protocol import Protocol
    from score_sde.evaluate.reference import load_reference

    np.savez(tmp_path / "r.npz", mu=np.arange(3.0), sigma=np.eye(3))
    protocol = Protocol("inception", "ab", "tensorflow", "uint8 0..255", "any")
    reference, about = load_reference(tmp_path / "r.npz", protocol)
    assert frechet_distance(reference.gaussian, Gaussian(np.zeros(3), np.eye(3))) == pytest.approx(5)
    assert reference.features is None
    assert "unknown" in about["protocol"]


# --- the report ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_holds_everything_it_shows(scored, capsys):
    with open(scored / "metrics.jsonl", "a") as log:
        log.write('{"step": 4, "lo')  # a kill may cut the last line
    words = ("--config.evaluate.noise_levels=3", "--config.evaluate.batch_size=64")
    assert run("--mode=evaluate", f"--workdir={scored}", *words) == 0
    bits = np.linspace(1.9, 2.4, 21)
    np.savez(scored / "likelihood.npz", nats=bits, bits_per_dim=bits)
    whole = {"bits_per_dim": 2.15, "bits_per_dim_standard_error": 0.03, "examples": 21, "step": 4}
    (scored / "likelihood.json").write_text(json.dumps(whole))
    result = json.loads((scored / "scores_pixels.json").read_text())
    assert run("--mode=report", f"--workdir={scored}") == 0
    page = (scored / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)  # nothing is fetched
    names = [f"<th>{name}</th>" for name in result["rows"][0]["scores"]]
    for shown in ("2.1500 +- 0.0300 bits/dim on 21 examples", *names, "step 4", "evaluate, 4"):
        assert shown in page
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", page)]
    sizes = [Image.open(io.BytesIO(data)).size for data in pictures]
    assert len(sizes) == 1 + 1 + 2  # grid, neighbours, denoising, solver
    assert sizes[3][1] / sizes[3][0] == pytest.approx(4 / 8, rel=0.1)  # 4 numbers of evaluations, 8 samples
    assert page.index("Is it training?") < page.index("Which checkpoint?") < page.index("<svg")
    assert "4 by held out loss" in page
    svg = [ElementTree.fromstring(part) for part in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert len(svg) >= 4
    assert "a report is a .html" in message(capsys, "--mode=report", f"--workdir={scored}", "--output=x.pdf")


def test_the_length_of_a_power_average_is_chosen_after_training(tmp_path):
    def trees(value):
        return {"a": jnp.full((3,), value), "b": {"c": jnp.full((2, 2), -value)}}

    with Checkpoints(tmp_path / "checkpoints", keep_last=9, keep_every_steps=1) as checkpoints:
        for step, value in ((10, 1.0), (20, 3.0), (30, 4.0)):
            state = TrainState(jnp.asarray(step), trees(0.0), trees(value), {"m": jnp.zeros(1)})
            checkpoints.save(step, state)
        checkpoints.wait()

    class Run(Workdir):
        architecture = SimpleNamespace(init=lambda key: trees(0.0))

    run = Run(tmp_path, typed({"ema": {"name": "power", "sigma_rel": 0.1}}), None)
    for step, values in ((None, [1, 3, 4]), (20, [1, 3])):
        used = [10, 20, 30][: len(values)]
        last, _, params = run.restore(Choice(step, sigma_rel=0.2))
        expected = combine(used, 0.1, used[-1], 0.2).weights @ values
        assert last == used[-1]
        np.testing.assert_allclose(params["a"], expected, rtol=1e-5)
        np.testing.assert_allclose(params["b"]["c"], -expected, rtol=1e-5)
    same = run.restore(Choice(sigma_rel=0.1))[2]
    np.testing.assert_allclose(same["a"], 4.0, rtol=1e-5)
    run = dataclasses.replace(run, config=typed({"ema": "constant"}))
    with pytest.raises(ValueError, match="needs a run with config.ema.name = 'power', this one has 'cons"):
        run.restore(Choice(sigma_rel=0.2))
