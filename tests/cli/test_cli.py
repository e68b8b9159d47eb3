"""``run.py`` as a user meets it: the modes, and what it says to mistakes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import score_sde
from score_sde import cli
from score_sde.data import Digits, batch_indices
from score_sde.experiment.assemble import open_source
from score_sde.flags import parse
from score_sde.inverse import EDITS
from score_sde.runs.posterior import measure
from tests.conftest import ROOT

TINY = [
    "--config.model.nf=4",
    "--config.model.ch_mult=(1,)",
    "--config.model.attn_resolutions=()",
    "--config.training.batch_size=16",
    "--config.training.checkpoint_every_steps=4",
    "--config.training.log_every_steps=2",
    "--config.training.eval_every_steps=4",
    "--config.training.eval_examples=16",
    "--config.training.sample_count=4",
    "--config.optimizer.decay_steps=0",
    "--config.optimizer.warmup_steps=2",
    "--config.sampling.steps=5",
    "--config.likelihood.integrator.rtol=1e-2",
    "--config.likelihood.integrator.atol=1e-2",
    "--config.likelihood.batch_size=16",
]
DIGITS = f"--config={ROOT / 'configs' / 'vp_digits.py'}"


def run(*words):
    return cli.run(parse(["run.py", *words], "usage"))


def train(workdir, *words, steps=4):
    return run(
        DIGITS, "--mode=train", f"--workdir={workdir}", *TINY, f"--config.training.steps={steps}", *words
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    assert train(workdir) == 0
    return workdir


def message(capsys, *words):
    """What a failing command prints; it must exit with status 2."""
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_training_leaves_checkpoint_metrics_and_grid(trained):
    assert (trained / "checkpoints" / "4").is_dir()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]
    assert len(next(line for line in lines if "held_out_loss" in line)["held_out_loss_by_level"]) == 10
    assert list((trained / "tensorboard").iterdir())
    assert Image.open(trained / "samples" / "step_00000004.png").size[0] > 2 * 8
    assert json.loads((trained / "config.json").read_text())["config"]["model"]["nf"] == 4


def test_a_mode_runs_where_jax_runs_already(trained, monkeypatch, tmp_path):
    """As in a notebook, where no flag has said how many devices there are."""
    assert jax.device_count() == 8
    monkeypatch.delenv("XLA_FLAGS")
    assert run("--mode=export", f"--workdir={trained}", f"--output={tmp_path / 'a.safetensors'}") == 0
    assert jax.device_count() == 8


@pytest.mark.slow
def test_training_measures_the_average_the_parameters_and_the_few_samples(trained):
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    held_out = next(line for line in lines if "held_out_loss" in line)
    for name in ("held_out_loss", "held_out_loss_raw"):
        assert held_out[name] == pytest.approx(np.mean(held_out[f"{name}_by_level"]), rel=1e-6)
    assert held_out["held_out_loss"] != held_out["held_out_loss_raw"]
    assert all(line["grad_norm"] > 0 for line in lines if "loss" in line)
    # The logged distance is that of the very samples in the picture, computed by hand.
    assert (
        run("--mode=sample", f"--workdir={trained}", "--num_samples=4", "--output=" + str(trained / "s.npz"))
        == 0
    )
    with np.load(trained / "s.npz") as file:
        x = file["samples"].reshape(4, -1) / 255
    data = Digits("train")
    order = batch_indices(0, 0, len(data), len(data))[:1000]
    y = np.round(data.read(order)["x"].reshape(1000, -1) * (255 / 16)) / 255
    kernel = [(a @ b.T / 64 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    xx, yy = ((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in kernel[:2])
    drawn = next(line for line in lines if "sample_pixels_kid" in line)
    assert drawn["sample_pixels_kid"] == pytest.approx(xx + yy - 2 * kernel[2].mean(), rel=1e-4)
    best = json.loads((trained / "best.json").read_text())
    assert best == {"step": 4, "metric": "held_out_loss", "value": held_out["held_out_loss"]}
    assert run("--mode=evaluate", f"--workdir={trained}", "--best", "--config.evaluate.noise_levels=2") == 0


def test_the_best_checkpoint_is_asked_for_where_there_is_one(trained, tmp_path, capsys):
    sample = ("--mode=sample", "--best", "--num_samples=2")
    assert "leave out --step" in message(capsys, *sample, f"--workdir={trained}", "--step=4")
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "best.json").unlink()
    assert "no best checkpoint" in message(capsys, *sample, f"--workdir={tmp_path / 'run'}")


@pytest.mark.slow
def test_sample_writes_array_grid_and_folder_the_same(trained, tmp_path):
    for output in ("a.npz", "b.npz", "grid.png", "folder"):
        words = ["--config.sampling.batch_size=2"] if output == "b.npz" else []
        sample = ["--mode=sample", f"--workdir={trained}", "--num_samples=5", f"--output={tmp_path / output}"]
        assert run(*sample, *words) == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        samples = a["samples"]
        assert samples.shape == (5, 8, 8, 1)
        assert samples.dtype == np.uint8
        assert int(a["seed"]) == 0
        np.testing.assert_allclose(b["samples"].astype(int), samples.astype(int), atol=16)  # one level
        assert np.mean(b["samples"] == samples) > 0.99
    files = sorted((tmp_path / "folder").glob("*.png"))
    assert len(files) == 5
    np.testing.assert_array_equal(np.asarray(Image.open(files[3])), samples[3, ..., 0])
    # Without a last denoising the last state is the sample.
    states = ("--config.sampling.keep_every_steps=2", "--config.sampling.steps=4")
    states += ("--config.sampling.solver.denoise=False", f"--output={trained / 'samples' / 'samples.npz'}")
    assert run("--mode=sample", f"--workdir={trained}", "--num_samples=3", *states) == 0
    assert (trained / "samples" / "samples_states.png").exists()
    with np.load(trained / "samples" / "samples_states.npz") as file:
        assert file["states"].shape == (3, 2, 8, 8, 1)
        np.testing.assert_array_equal(file["every_steps"], 2)
        last = np.clip(np.floor((file["states"][:, -1] + 1) / 2 * 17), 0, 16)
    with np.load(trained / "samples" / "samples.npz") as file:
        np.testing.assert_array_equal(file["samples"], np.round(last * 255 / 16))


def test_likelihood_covers_the_whole_held_out_set_and_can_be_repeated(trained):
    words = ("--mode=likelihood", f"--workdir={trained}", "--config.likelihood.num_examples=21")
    words += ("--config.likelihood.integrator=fixed", "--config.likelihood.integrator.method=euler")
    words += ("--config.likelihood.integrator.steps=8",)
    assert run(*words) == 0
    report = json.loads((trained / "likelihood.json").read_text())
    with np.load(trained / "likelihood.npz") as file:
        bits = file["bits_per_dim"]
    assert report["examples"] == len(bits) == 21
    assert report["bits_per_dim"] == pytest.approx(bits.mean())
    assert report["bits_per_dim_standard_error"] == pytest.approx(bits.std(ddof=1) / np.sqrt(21))
    assert report["dequantized"]
    assert report["grey_levels"] == 17
    assert run(*words, "--config.likelihood.batch_size=8") == 0
    with np.load(trained / "likelihood.npz") as file:
        np.testing.assert_allclose(file["bits_per_dim"], bits, atol=1e-4)


@pytest.mark.slow
def test_estimates_share_a_table_that_states_their_conventions(trained):
    words = ("--mode=likelihood", f"--workdir={trained}", "--config.likelihood.num_examples=8")
    words += ("--config.likelihood.estimates=('bound', 'vlb')", "--config.likelihood.bound.decoder=levels")
    words += ("--config.likelihood.vlb.decoder=levels",)
    words += ("--config.likelihood.bound.times=2", "--config.likelihood.vlb.draws=2")
    assert run(*words, "--config.likelihood.draws=2") == 0
    report = json.loads((trained / "likelihood.json").read_text())
    page = (trained / "likelihood.md").read_text()
    assert list(report["estimates"]) == ["bound", "vlb"]
    for name, row in report["estimates"].items():
        assert f"| {name} | {row['bits_per_dim']:.5g} |" in page
        assert row["conventions"]["time range"] == [1e-5, 1.0]
        assert row["bits_per_dim_standard_errors"]["dequantization"] > 0
    with np.load(trained / "likelihood.npz") as file:
        assert file["vlb_draws"].shape == file["draws"].shape == (8, 2, 1)
    assert "levels" in page


def test_evaluate_reports_the_loss_by_level(trained, capsys):
    assert run("--mode=evaluate", f"--workdir={trained}", "--config.evaluate.noise_levels=4") == 0
    report = json.loads((trained / "evaluate.json").read_text())
    assert report["examples"] == 300
    assert len(report["noise_mse"]) == 4
    assert report["loss"] == pytest.approx(np.mean(report["noise_mse"]))
    assert "held-out loss" in capsys.readouterr().out


def test_training_goes_on_from_the_workdir_alone(tmp_path, capsys):
    train(tmp_path)
    assert run("--mode=train", f"--workdir={tmp_path}", "--config.training.steps=6") == 0
    assert "resuming from step 4" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "6").is_dir()


def test_another_architecture_in_the_same_workdir_is_refused(trained, capsys):
    error = message(
        capsys, "--mode=train", f"--workdir={trained}", "--config.model.nf=8", "--config.training.steps=6"
    )
    assert "does not fit the config" in error
    assert "arrays differ" in error
    assert "down_0_block_0/time/kernel: saved float32[16, 4], config float32[32, 8]" in error


@pytest.mark.slow
def test_conditional_training_and_sampling(tmp_path, capsys):
    train(tmp_path, "--config.conditions.names=label")
    sample = ("--mode=sample", f"--workdir={tmp_path}", "--num_samples=2")
    assert run(*sample, "--condition=3") == 0
    assert "classes 0 to 9" in message(capsys, *sample, "--condition=label=10")


@pytest.mark.slow
def test_signals_of_any_rank_train_and_sample(tmp_path):
    signals = np.sin(np.linspace(0, 6, 16)[None] + np.random.default_rng(0).uniform(0, 6, (64, 1)))
    np.save(tmp_path / "signals.npy", signals.astype(np.float32))
    workdir = tmp_path / "run"
    words = ["--config.data.source=array", f"--config.data.source.path={tmp_path / 'signals.npy'}"]
    assert train(workdir, *words, "--config.codec.dequantize=False") == 0
    assert run("--mode=sample", f"--workdir={workdir}", "--num_samples=3") == 0
    with np.load(workdir / "samples" / "samples.npz") as file:
        assert file["samples"].shape == (3, 16, 1)
        assert file["samples"].dtype == np.float32
    likelihood = ("--mode=likelihood", f"--workdir={workdir}", "--config.likelihood.num_examples=4")
    assert run(*likelihood) == 0
    assert "bits_per_dim" not in json.loads((workdir / "likelihood.json").read_text())


BAD = [
    (
        ["--config.training.batchsize=8"],
        "config.training has no field 'batchsize'; did you mean 'batch_size'?",
    ),
    (["--config.batch_size=8"], "did you mean config.training.batch_size?"),
    (["--config.trainning.steps=8"], "did you mean 'training'?"),
    (["--config.training.steps=many"], "many"),
    (["--config.training.steps=0"], "config.training.steps = 0: must be positive"),
    (["--config.training.batch_size=-3"], "config.training.batch_size = -3"),
    (["--config.training=3"], "is a section"),
    (["--config.optimizer.learning_rate=-1.0"], "learning_rate = -1.0: must be positive"),
    (["--config.sde.beta_min=30.0"], "beta_min < beta_max"),
    (["--config.model.ch_mult=(1,2,2,2,2)"], "divisible by 16"),
    (["--config.model.resblock_type=resnet"], "biggan"),
    (["--config.sampling.solver=dpm"], "is not one of: pc, ode"),
    (["--config.sampling.solver.predictor=euler"], "did you mean 'euler_maruyama'"),
    (["--config.sampling.t_end=2.0"], "must be in [0, 1.0)"),
    (["--config.likelihood.divergence=hutch"], "did you mean 'hutchinson'"),
    (["--config.loss.weight=snr"], "config.loss.weight.name = 'snr' is not one of"),
    (["--config.denoiser.time_input=index"], "is continuous"),
    (["--config.ema.decay=1.5"], "decay = 1.5"),
    (["--config.mesh.fsdp=3"], "must divide the number of devices, 8"),
    (["--config.training.batch_size=12"], "training.batch_size = 12"),
    (["--config.training.steps_per_dispatch=3"], "must be a multiple of steps_per_dispatch"),
    (["--config.data.source=folders"], "did you mean 'folder'?"),
    (["--config.data.source=folder"], "config.data.source.path is not set"),
    (["--config.data.source=folder", "--config.data.source.path=/nonexistent/place"], "/nonexistent/place"),
    (
        ["--config.training.best_metric=fid"],
        "must be one of held_out_loss, held_out_loss_raw, sample_pixels_kid",
    ),
    (["--config.seed=-1"], "config.seed = -1"),
    (["stray"], "unexpected 'stray'"),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(w) for w, _ in BAD])
def test_mistakes_are_named(words, expected, capsys, tmp_path):
    assert expected in message(capsys, DIGITS, "--mode=train", f"--workdir={tmp_path / 'w'}", *words)
    assert not (tmp_path / "w" / "config.json").exists()  # nothing was begun


def test_mistakes_of_the_command_itself_are_named(capsys, tmp_path, trained):
    assert "did you mean" in message(capsys, "--config=configs/vp_digit.py", "--mode=train")
    assert "train|sample" in message(capsys, DIGITS, "--mode=trian")
    assert "name a mode" in message(capsys, DIGITS)
    assert "no config.json there" in message(capsys, "--mode=sample", f"--workdir={tmp_path}")
    assert "name a config" in message(capsys, "--mode=train")
    sample = ("--mode=sample", f"--workdir={trained}")
    assert ".jpg" in message(capsys, *sample, "--output=x.jpg")
    assert "the model takes no condition" in message(capsys, *sample, "--condition=3")
    assert "num_samples" in message(capsys, *sample, "--num_samples=0")
    assert "there are [" in message(capsys, *sample, "--step=3")
    assert "variant 'big'" in message(capsys, f"--config={ROOT}/configs/vp_cifar.py:big", "--mode=train")


def test_a_corrupt_image_names_its_file(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes((folder / "3.png").read_bytes()[:40])
    words = [
        DIGITS,
        "--mode=train",
        f"--workdir={tmp_path / 'w'}",
        *TINY,
        "--config.training.steps=4",
        "--config.data.source=folder",
        f"--config.data.source.path={folder}",
        "--config.data.source.channels=1",
        "--config.data.source.held_out=0.3",
    ]
    assert "broken.png" in message(capsys, *words)
    config = parse(["run.py", *words, "--config.data.source.on_error=skip"], "usage").config
    with pytest.warns(UserWarning, match="skipped 1 of .*broken.png"):
        assert sum(len(open_source(config, split)) for split in ("train", "test")) == 20


def test_help_shows_every_mode_at_once_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['run.py', '--help']\n"
        "try:\n    import runpy; runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "assert not {'jax', 'flax', 'orbax', 'grain'} & set(sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    for mode in ("train", "sample", "likelihood", "evaluate"):
        assert f"--mode={mode}" in out.stdout


def start(workdir, steps, *words):
    environment = dict(os.environ, XLA_FLAGS="", PYTHONUNBUFFERED="1")
    command = [sys.executable, "run.py", DIGITS, "--mode=train", f"--workdir={workdir}", *TINY]
    return subprocess.Popen(
        [*command, f"--config.training.steps={steps}", "--config.training.eval_every_steps=0", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_checkpoint(process, workdir, after=0):
    for _ in range(2400):
        folder = workdir / "checkpoints"
        steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
        if max(steps, default=0) > after:
            return max(steps)
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


def arrays(workdir, step):
    import orbax.checkpoint as ocp

    from score_sde.train import Checkpoints

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert step in checkpoints.steps
    reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    tree = reader.metadata(workdir / "checkpoints" / str(step) / "state").item_metadata
    restore = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree.tree)
    return reader.restore(
        workdir / "checkpoints" / str(step) / "state", args=ocp.args.PyTreeRestore(restore_args=restore)
    )


@pytest.mark.slow
def test_kill_and_resume_end_in_the_same_bits(tmp_path):
    steps = 60
    whole = start(tmp_path / "whole", steps)
    assert whole.wait(300) == 0, whole.communicate()[0]
    killed = start(tmp_path / "killed", steps)
    saved = wait_for_checkpoint(killed, tmp_path / "killed")
    killed.kill()  # SIGKILL, in the middle of whatever it was doing
    killed.wait()
    assert saved < steps
    asked = start(tmp_path / "killed", steps)
    saved = wait_for_checkpoint(asked, tmp_path / "killed", saved + 8)
    asked.send_signal(signal.SIGTERM)  # saves the step it is at, and exits cleanly
    out = asked.communicate()[0]
    assert asked.returncode == 0, out
    assert "interrupted: saved step" in out or saved >= steps - 8
    last = start(tmp_path / "killed", steps)
    out = last.communicate()[0]
    assert last.returncode == 0, out
    assert "resuming from step" in out
    a, b = (arrays(tmp_path / name, steps) for name in ("whole", "killed"))
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_what_was_written(tmp_path):
    # A file-size limit stands in for the disk: small files pass, the arrays of a checkpoint do not.
    train(tmp_path)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "import runpy; sys.argv = ['run.py', *sys.argv[1:]]; runpy.run_path('run.py', run_name='__main__')"
    )
    words = ["--mode=train", f"--workdir={tmp_path}", "--config.training.steps=8"]
    out = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        env=dict(os.environ, XLA_FLAGS="", JAX_COMPILATION_CACHE_DIR=""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 2, out.stderr
    assert "File too large" in out.stderr
    assert run("--mode=sample", f"--workdir={tmp_path}", "--num_samples=2", "--step=4") == 0


@pytest.mark.slow
def test_samples_that_are_there_are_kept_and_others_refused(trained, tmp_path, capsys):
    words = ["--mode=sample", f"--workdir={trained}", f"--output={tmp_path}"]
    assert run(*words, "--num_samples=8", "--config.sampling.batch_size=8") == 0
    kept, gone = tmp_path / "000003.png", tmp_path / "000009.png"
    kept.write_bytes(b"mark")  # would be written anew if it were made again
    assert run(*words, "--num_samples=16", "--config.sampling.batch_size=8") == 0
    assert "resuming: 8 of 16" in capsys.readouterr().out
    before = gone.read_bytes()
    gone.unlink()
    assert run(*words, "--num_samples=16", "--config.sampling.batch_size=8") == 0
    assert gone.read_bytes() == before
    assert kept.read_bytes() == b"mark"
    assert "differ in seed" in message(capsys, *words, "--seed=5", "--config.sampling.batch_size=8")
    (tmp_path / "samples.json").unlink()
    assert "no samples.json" in message(capsys, *words)


def test_ctrl_c_is_one_line_and_a_status_of_its_own(trained):
    words = ["--mode=evaluate", f"--workdir={trained}", "--num_samples=5000"]
    process = subprocess.Popen(
        [sys.executable, "run.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    time.sleep(2.0)  # JAX is being imported, or a program compiled; at no time is there a trace
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 130, out
    assert out.splitlines()[-1] == "run.py: interrupted; the same command continues with what is finished"
    assert "Traceback" not in out


EXACT = ("--config.edit.method=ddnm", "--config.edit.noise_std=0", "--config.edit.samples=3")


def test_edited_pictures_keep_what_is_kept(trained, tmp_path, capsys):
    words = ("--mode=edit", f"--workdir={trained}", "--input=5,7", *EXACT)
    assert run(*words, "--mask=half", f"--output={tmp_path / 'x.npz'}") == 0
    with np.load(tmp_path / "x.npz") as file:
        half = dict(file)
    assert half["samples"].shape == (2, 3, 8, 8, 1)
    before = half["input"][:, None]
    np.testing.assert_allclose(half["samples"][..., :4, :], before[..., :4, :].repeat(3, axis=1), atol=16)
    assert np.any(half["samples"][:, 0, :, 4:] != half["samples"][:, 1, :, 4:])  # several answers
    model = score_sde.load(trained)
    task = EDITS["inpaint"](mask="half")
    given = task.given((8, 8, 1), 2)
    measured = measure(model, half["input"], task.operator((8, 8, 1)), given)
    again = model.posterior(
        measured, task.operator((8, 8, 1)), given=given, noise_std=0.0, method="ddnm", samples=3
    )
    np.testing.assert_array_equal(again, half["samples"])
    for more, said in (
        (("--task=erase",), "config.edit.task.name = 'erase' is not one of: inpaint"),
        (("--task=colorize",), "config.edit.task: the model's pictures have 1 channels"),
        (("--task=superres", "--factor=3"), "config.edit.task.factor = 3: must be at least 2 and divide 8x8"),
        (("--mask=circle",), "config.edit.task.mask = 'circle': neither box"),
        (("--task=deblur", "--mask=half"), "'deblur' has no option 'mask'; 'inpaint' has"),
        (("--config.edit.method=dsp",), "config.edit.method.name = 'dsp' is not one of: mmps"),
        (("--input=400",), "--input: '400': digits (test) holds the examples 0 to 299"),
    ):
        assert said in message(capsys, *words, *more)
