"""Latents, search and outliers as a user meets them."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from score_sde.data import Digits
from tests.cli.test_cli import message, run, train

LOOSE = (
    "--config.inversion.transport.rtol=1e-3",
    "--config.inversion.transport.atol=1e-3",
    "--config.inversion.batch_size=16",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Hardly trained, predicting as EDM does: nearly the flow of N(0, I / 4), which is well conditioned."""
    workdir = tmp_path_factory.mktemp("run")
    assert train(workdir, "--config.denoiser.prediction=edm") == 0
    return workdir


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Thirty held-out digits as PNGs in class folders, twice as large as the model's."""
    top = tmp_path_factory.mktemp("digits")
    batch = Digits("test").read(np.arange(30))
    for i, (x, label) in enumerate(zip(batch["x"], batch["label"], strict=True)):
        (top / str(label)).mkdir(exist_ok=True)
        image = np.rint(x[..., 0] * (255 / 16)).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
        Image.fromarray(image).save(top / str(label) / f"{i:02d}.png")
    return top


def report(path):
    return json.loads(path.read_text())


def test_search_of_a_folder_finds_the_picture_itself_and_measures_accuracy(trained, folder, capsys):
    files = sorted(folder.glob("*/*.png"))
    asked = [files[3], files[17]]
    words = ("--mode=search", f"--workdir={trained}", f"--samples={folder}", "--config.search.draws=1")
    words += (f"--images={asked[0]},{asked[1]},5", "--config.search.nearest=3")
    assert run(*words) == 0
    result = report(trained / "search.json")
    assert result["examples"] == 30
    for query, file in zip(result["queries"][:2], asked, strict=True):
        assert query["nearest"][0]["name"] == f"{file.parent.name}/{file.name}"
        assert query["nearest"][0]["class"] == sorted(p.name for p in folder.iterdir()).index(
            file.parent.name
        )
        distances = [n["distance"] for n in query["nearest"]]
        assert distances[0] < 1e-9 < distances[1] <= distances[2]
    assert result["queries"][2]["nearest"][0]["number"] == 5
    pixels = result["precision"]["pixels"]["1"]["value"]
    x = np.stack([np.asarray(Image.open(f).resize((8, 8), Image.Resampling.BICUBIC), float) for f in files])
    x = x.reshape(30, -1) - x.reshape(30, -1).mean(axis=0)
    cosine = x @ x.T / np.outer(*[np.linalg.norm(x, axis=1)] * 2) - 2 * np.eye(30)
    labels = np.array([f.parent.name for f in files])
    assert pixels == pytest.approx(np.mean(labels[cosine.argmax(axis=1)] == labels), abs=0.04)  # 17 levels
    assert set(result["precision"]) == {"network", "pixels"}
    assert Image.open(trained / "search.png").size[0] > 5 * 8
    assert "share of the nearest of the same class" in capsys.readouterr().out


@pytest.mark.slow
def test_latents_decode_to_the_very_levels(trained, tmp_path):
    output = tmp_path / "latents.npz"
    words = (f"--workdir={trained}", *LOOSE)
    assert run("--mode=encode", *words, f"--output={output}", "--config.inversion.num_examples=18") == 0
    summary = report(tmp_path / "latents.json")
    with np.load(output) as file:
        latent, label, rms = file["latent"], file["label"], file["rms"]
    held_out = Digits("test").read(np.arange(18))
    np.testing.assert_array_equal(label, held_out["label"])
    assert latent.shape == (18, 8, 8, 1)
    assert summary["round_trip_rms_max"] == pytest.approx(rms.max())
    assert rms.max() < 0.03
    assert Image.open(tmp_path / "latents.png").size[0] > 12 * 8

    # a level is 2 / 17 wide, so that latents at this tolerance decode to the very levels
    want = np.rint(held_out["x"] * (255 / 16)).astype(np.uint8)
    several = ("--config.inversion.temperature=(0.0,1.0)", f"--output={tmp_path / 'cool.npz'}")
    assert run("--mode=decode", *words, f"--samples={output}", *several) == 0
    with np.load(tmp_path / "cool.npz") as file:
        x, temperature = file["samples"], file["temperature"]
    assert x.shape == (36, 8, 8, 1)
    assert np.all(x[temperature == 0] == x[0])  # one latent, one picture
    assert np.mean(x[temperature == 1] == want) > 0.99


@pytest.mark.slow
def test_a_strip_begins_and_ends_with_the_examples(trained, tmp_path):
    strip = tmp_path / "way.png"
    words = ("--mode=interpolate", f"--workdir={trained}", *LOOSE, f"--output={strip}")
    assert run(*words, "--images=3,7", "--config.inversion.frames=5") == 0
    picture = np.asarray(Image.open(strip))
    zoom = (picture.shape[1] - 1) // 7 - 1  # seven columns with a line between
    columns = [picture[1 : 1 + zoom, 1 + i * (zoom + 1) :][:, :zoom] for i in range(7)]
    for ends in (columns[:2], columns[-2:]):  # an example and its round trip: no level differs by two
        assert np.abs(ends[0].astype(int) - ends[1]).max() <= 16
    assert np.any(columns[0] != columns[-1])


@pytest.mark.slow
def test_outliers_of_data_made_foreign(trained):
    words = ("--mode=outliers", f"--workdir={trained}", "--config.outliers.num_examples=20")
    assert run(*words, "--config.outliers.foreign=('constant','noise')") == 0
    result = report(trained / "outliers.json")
    assert set(result["sets"]) == {"constant", "noise"}
    with np.load(trained / "outliers.npz") as file:
        assert result["typical_nats"] == pytest.approx(file["train"].mean())
        inside, noise = file["held-out"], file["noise"]
    assert len(inside) == 20
    # The density of this model falls with the distance from grey, and noise lies nearer than black and white.
    area = result["sets"]["noise"]["auroc"]["likelihood"]["value"]
    assert area == pytest.approx(np.mean(noise[:, None] < inside[None]))
    assert area < 0.2


@pytest.mark.slow
def test_outliers_of_a_folder(trained, folder):
    words = ("--mode=outliers", f"--workdir={trained}", "--config.outliers.num_examples=20")
    assert run(*words, f"--samples={folder}") == 0
    result = report(trained / "outliers.json")
    (measured,) = result["sets"].values()
    assert measured["examples"] == 30
    worst = measured["most_foreign"]["typicality"]
    assert worst[0]["score"] >= worst[-1]["score"]
    assert (folder / worst[0]["name"]).is_file()
    assert Image.open(trained / "outliers_examples.png").size[0] > 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mode=search", "--config.search.features=('pixel',)"), "did you mean 'pixels'"),
        (("--mode=search", "--config.search.metric=l1"), "cosine, euclidean"),
        (("--mode=search", "--config.search.layer=top"), "config.search.layer = 'top' is not one of: "),
        (("--mode=search", "--config.search.nearest=300"), "must be below 300"),
        (("--mode=search", "--images=300"), "holds the examples 0 to 299"),
        (("--mode=search", "--images=none.png"), "neither a file nor a number"),
        (("--mode=search", "--output=x.npz"), "is a .png"),
        (("--mode=encode", "--output=x.png"), "latents are a .npz"),
        (
            (
                "--mode=encode",
                "--config.inversion.transport=stepped",
                "--config.inversion.transport.solver=ddpm",
            ),
            "draws noise",
        ),
        (
            ("--mode=encode", "--config.inversion.t_min=2.0"),
            "inversion.t_min = 2.0: must be in (0, 1.0)",
        ),
        (("--mode=encode", "--config.inversion.transport.method=euler"), "dopri5, tsit5"),
        (("--mode=decode",), "name latents"),
        (("--mode=decode", "--samples=none.npz"), "no such file"),
        (("--mode=interpolate", "--images=3"), "name at least two"),
        (("--mode=interpolate", "--config.inversion.frames=1"), "config.inversion.frames = 1"),
        (("--mode=outliers", "--config.outliers.scores=('typical',)"), "did you mean 'typicality'"),
        (("--mode=outliers", "--config.outliers.foreign=()"), "name one or more of constant, noise"),
    ],
)
def test_mistakes_are_named(trained, capsys, words, said):
    assert said in message(capsys, f"--workdir={trained}", *words)


def test_files_that_do_not_fit_are_named(trained, tmp_path, capsys):
    np.savez(tmp_path / "float.npz", x=np.zeros((3, 8, 8, 1), np.float32))
    words = ("--mode=encode", f"--workdir={trained}", f"--samples={tmp_path / 'float.npz'}")
    assert "holds float32 examples of shape (8, 8, 1), the model takes uint8" in message(capsys, *words)
    np.savez(tmp_path / "latents.npz", latent=np.zeros((3, 4, 4, 1), np.float32))
    words = ("--mode=decode", f"--workdir={trained}", f"--samples={tmp_path / 'latents.npz'}")
    assert "latents of this model are floats (N, 8, 8, 1)" in message(capsys, *words)


@pytest.mark.slow
def test_several_noise_levels_are_chosen_from_by_the_labels_of_the_training_split(trained, capsys):
    words = ("--mode=search", f"--workdir={trained}", "--config.search.log_snr=(-8.0,2.0)")
    assert run(*words, "--config.search.draws=1", "--config.search.num_examples=20") == 0
    result = report(trained / "search.json")
    tried = {float(level): score["5"]["value"] for level, score in result["log_snr_tried"].items()}
    assert result["log_snr"] == max(tried, key=tried.get)
    assert set(tried) == {-8.0, 2.0}
    assert "on the training split" in capsys.readouterr().out


def test_options_know_the_images(trained):
    from score_sde.flags import parse

    options = parse(["run.py", "--mode=search", f"--workdir={trained}", "--images=a.png,3"], "usage")
    assert options.images == "a.png,3"
    assert dataclasses.replace(options, samples=None).samples is None
