"""A learned schedule and a learned dequantiser from the command line to the report."""

import json

import numpy as np
import pytest

from score_sde.experiment.files import load_saved
from score_sde.experiment.schema import typed
from tests.cli.test_cli import message, run, train

SHORT = ["--config.dequantiser.steps=4", "--config.dequantiser.batch_size=16", "--config.dequantiser.width=4"]
LEARNED = [
    "--config.sde.name=learned",
    "--config.denoiser.time_input=vp_time",
    "--config.loss.weight=likelihood",
    "--config.loss.times=importance",
]


def bits(workdir, *words):
    assert (
        run("--mode=likelihood", f"--workdir={workdir}", "--config.likelihood.num_examples=16", *words) == 0
    )
    with np.load(workdir / "likelihood.npz") as file:
        return file["bits_per_dim"]


@pytest.mark.slow
def test_learned_schedule_and_dequantiser(tmp_path, capsys):
    assert train(tmp_path / "run", *LEARNED) == 0
    workdir = tmp_path / "run"
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "log_snr_max" in line)
    assert first["log_snr_max"] == pytest.approx(13.3, abs=0.01)
    # The dequantiser, untouched by training, is uniform noise to the last bit.
    still = ["--config.dequantiser.learning_rate=1e-30"]
    told = message(
        capsys, "--mode=likelihood", f"--workdir={workdir}", "--config.likelihood.dequantiser=learned"
    )
    assert "no learned dequantiser" in told
    uniform = bits(workdir)
    assert run("--mode=dequantiser", f"--workdir={workdir}", *SHORT, *still) == 0
    learned = bits(workdir, "--config.likelihood.dequantiser=learned")
    np.testing.assert_allclose(learned, uniform, rtol=1e-6)
    about = json.loads((workdir / "dequantiser.json").read_text())
    assert abs(about["held_out_gain_bits_per_dim"]) < 1e-5
    # Sampling and export use the schedule of the checkpoint; an export holds it as numbers.
    assert (
        run("--mode=sample", f"--workdir={workdir}", "--num_samples=4", f"--output={tmp_path / 'a.npz'}") == 0
    )
    file = tmp_path / "model.safetensors"
    assert run("--mode=export", f"--workdir={workdir}", f"--output={file}") == 0
    assert run("--mode=import", f"--checkpoint={file}", f"--workdir={tmp_path / 'back'}") == 0
    config = typed(load_saved(tmp_path / "back")[0])
    assert config.sde.options["trainable"] is False
    assert len(config.sde.options["shares"]) == 12
    again = ["--mode=sample", f"--workdir={tmp_path / 'back'}", "--num_samples=4"]
    assert run(*again, f"--output={tmp_path / 'b.npz'}") == 0
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["samples"], b["samples"])


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (LEARNED[:1], "needs loss.weight = 'likelihood'"),
        ([*LEARNED[:1], *LEARNED[2:]], "needs a time_input other than time_999"),
        ([*LEARNED, "--config.codec.dequantize=False"], "needs codec.dequantize = True"),
        (["--config.sde.t_min=0.0", *LEARNED[2:]], "log-SNR of sde.name = 'vp' is infinite at t_min = 0.0"),
        ([*LEARNED[2:], "--config.loss.times.spread=even"], "spread = 'even' is not one of: low_discrepancy"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(tmp_path, capsys, words, want):
    with pytest.raises(SystemExit):
        train(tmp_path, *words)
    assert want in capsys.readouterr().err
