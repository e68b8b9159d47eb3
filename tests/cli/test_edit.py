"""Editing: pictures of every kind of input, in groups, resumed, from the command line and from Python."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import score_sde
from score_sde.inverse import MASK, BicubicDown, BoxDown
from score_sde.names import ConfigError
from score_sde.runs import edit as edits
from tests.cli.test_cli import message, run, train

FAST = ("--config.edit.method=ddnm", "--config.edit.noise_std=0", "--config.edit.samples=2")
GREY = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert train(workdir) == 0
    return workdir


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture
def folder(tmp_path):
    """Five pictures, in sub-folders, whose names count."""
    root = tmp_path / "pictures"
    for i, name in enumerate(("a/2.png", "a/10.png", "b/1.png", "b/3.png", "b/20.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY[i, ..., 0]).save(root / name)
    return root


def test_a_folder_is_edited_in_groups_and_resumed(trained, folder, tmp_path, monkeypatch, capsys):
    words = ("--mode=edit", f"--workdir={trained}", f"--input={folder}", *FAST, "--mask=freeform")
    assert run(*words, f"--output={tmp_path / 'whole.npz'}") == 0
    whole = arrays(tmp_path / "whole.npz")
    np.testing.assert_array_equal(whole["input"], GREY)  # in natural order
    assert whole["samples"].shape == (5, 2, 8, 8, 1)
    seen = whole[MASK][:, None] > 0
    assert len(np.unique(whole[MASK], axis=0)) == 5  # a mask each
    off = abs(whole["samples"].astype(int) - whole["input"][:, None].astype(int))
    assert (off[np.broadcast_to(seen, off.shape)] <= 16).all()

    drawn, stop = [], [2]
    answers = edits.Editor.answers

    def interrupted(self, pictures, **more):
        drawn.append(more["first"])
        if len(drawn) > stop[0]:
            raise KeyboardInterrupt
        return answers(self, pictures, **more)

    monkeypatch.setattr(edits.Editor, "answers", interrupted)
    small = (*words, "--config.sampling.batch_size=4", f"--output={tmp_path / 'small.npz'}")
    with pytest.raises(KeyboardInterrupt):
        run(*small)
    stop[0] = 99
    assert run(*small) == 0
    assert drawn == [0, 2, 4, 4]  # groups of two: the finished ones were kept
    assert "resuming: 4 of 5 pictures are there" in capsys.readouterr().out
    again = arrays(tmp_path / "small.npz")
    # An answer does not depend on the group, but for the last bit before it is rounded.
    assert np.abs(again["samples"].astype(int) - whole["samples"].astype(int)).max() <= 17
    assert (again["samples"] == whole["samples"]).mean() > 0.99
    assert not (tmp_path / "small.npz.parts").exists()


def test_measurements_that_are_given(trained, tmp_path):
    model = score_sde.load(trained)
    box = model.edit(
        GREY[:1, :4, :4], "superres", measured=True, method="ddnm", noise_std=0.0, samples=2, factor=2
    )
    assert box.shape == (1, 2, 8, 8, 1) and box.dtype == np.uint8
    editor = edits.Editor.of(
        model, model.change({"edit.task": "superres", "edit.measured": True}).config.edit, 0
    )
    assert editor.taken == ((4, 4, 1),)
    values = editor.measure([GREY[0, :4, :4]]).values
    full = model.encode_state(np.pad(GREY[:1, :4, :4], ((0, 0), (0, 4), (0, 4), (0, 0))))
    np.testing.assert_allclose(values, full[:, :4, :4], atol=1e-6)  # as it is, without noise
    changes = {"edit.task": "superres", "edit.task.kernel": "bicubic", "edit.noise_std": 0.0}
    editor = edits.Editor.of(model, model.change(changes).config.edit, 0)
    assert isinstance(editor.operator, BicubicDown) and not isinstance(editor.operator, BoxDown)
    want = editor.operator.apply(jnp.asarray(model.encode_state(GREY)), {})
    np.testing.assert_allclose(editor.measure(list(GREY)).values, want, atol=1e-6)
    with pytest.raises(ConfigError, match="what 'radon' keeps is no picture"):
        model.edit(GREY, "radon", measured=True)


def test_a_picture_that_is_smaller_by_the_margin_is_continued(trained):
    model = score_sde.load(trained)
    how = {"method": "ddnm", "noise_std": 0.0, "samples": 1, "margin": 2}
    inner = [GREY[0, 2:6, 2:6], GREY[1]]  # of one with the model's size the margin is made anew
    answers = model.edit(inner, "outpaint", **how)[:, 0]
    for one, answer in zip((GREY[0], GREY[1]), answers, strict=True):
        assert np.abs(answer[2:6, 2:6].astype(int) - one[2:6, 2:6]).max() <= 16
    np.testing.assert_array_equal(model.edit(GREY[:2], "outpaint", **how)[:, 0], answers)


@pytest.mark.parametrize(("task", "options"), [("fourier", {"keep": 0.5}), ("radon", {"angles": 4})])
def test_what_is_measured_otherwise_is_shown_as_a_picture(trained, task, options):
    model = score_sde.load(trained)
    changes = {"edit.task": task, "edit.noise_std": 0.1, **{f"edit.task.{k}": v for k, v in options.items()}}
    editor = edits.Editor.of(model, model.change(changes).config.edit, 3)
    one, other = editor.measure(list(GREY)), editor.measure(list(GREY[2:]), first=2)
    assert one.kept.shape == GREY.shape
    np.testing.assert_allclose(one.values[2:], other.values, atol=1e-5)  # a picture's number decides
    clean = editor.operator.apply(
        jnp.asarray(model.encode_state(GREY)), {name: jnp.asarray(a) for name, a in one.given.items()}
    )
    noise = one.values - np.asarray(clean)
    seen = np.broadcast_to(editor.task.seen(one.given), noise.shape) > 0
    assert noise[seen].std() == pytest.approx(0.1, rel=0.15) and not noise[~seen].any()


def test_mistakes_are_named_before_anything_is_compiled(trained, folder, tmp_path, capsys, monkeypatch):
    def never(*_, **__):
        raise AssertionError("something was drawn")

    monkeypatch.setattr(edits.Editor, "answers", never)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((20, 12, 3), np.uint8)).save(photo)
    (tmp_path / "torn.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "float.npy", np.zeros((2, 8, 8, 1)))
    words = ("--mode=edit", f"--workdir={trained}", *FAST)
    for more, said in (
        (
            (f"--input={photo}",),
            "20x12x1 (height x width x channels), and 'inpaint' takes 8x8x1",
        ),
        ((f"--input={photo}",), "--fit=crop scales a file and cuts its middle"),
        ((f"--input={tmp_path / 'torn.png'}",), "torn.png cannot be used"),
        ((f"--input={tmp_path / 'empty'}",), "no pictures in it or its sub-folders"),
        ((f"--input={tmp_path / 'float.npy'}",), "must be uint8 pictures (N, H, W, C)"),
        (("--input=nowhere.png",), "neither a file, a folder nor the number of an example"),
        (("--input=,",), "names nothing"),
        (("--task=outpaint", "--margin=4"), "config.edit.task.margin = 4: must be at least 1 and leave"),
        (("--task=superres", "--kernel=sinc"), "kernel = 'sinc': must be one of box, bicubic"),
        (("--task=superres", "--measured=True"), "'superres' takes 4x4x1"),
        (("--task=fourier", "--measured=True"), "what 'fourier' keeps is no picture"),
        (("--task=fourier", "--config.edit.task.keep=0.1"), "center = 0.2: must be from 0 to keep = 0.1"),
    ):
        assert said in message(capsys, *words, *more)
    model = score_sde.load(trained)
    for pictures, said in (
        (GREY / 255.0, "picture 0 is float64: must be uint8"),
        (GREY[:, :4], "picture 0: a picture of 4x8x1"),
        ([], "no pictures are given"),
    ):
        with pytest.raises(ConfigError, match=said):
            model.edit(pictures)
    with pytest.raises(ConfigError, match="no option 'brush'"):
        model.edit(GREY, brush=3)


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_files_are_fitted_where_that_is_asked_for_and_a_folder_of_answers_is_written(trained, tmp_path, fit):
    photo = np.repeat(np.repeat(GREY[0, ..., 0], 2, axis=0), 3, axis=1)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    np.save(tmp_path / "rows.npy", GREY[1:3, ..., 0])
    words = ("--mode=edit", f"--workdir={trained}", *FAST, f"--fit={fit}", "--mask=half")
    out = tmp_path / "out"
    assert run(*words, f"--input={tmp_path / 'photo.png'},{tmp_path / 'rows.npy'},5", f"--output={out}") == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [*(f"{i:06d}.png" for i in range(8)), "panel.png"]
    with Image.open(out / "000002.png") as answer:  # the first of the second picture
        left = np.asarray(answer)[:, :4].astype(int)
    assert np.abs(left - GREY[1, :, :4, 0]).max() <= 16
