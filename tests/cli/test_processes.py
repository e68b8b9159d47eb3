"""Several processes as one job: the same numbers, an agreed stop, and going on in another number."""

import json
import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.cli.test_cli import DIGITS, TINY, arrays, wait_for_checkpoint
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def start(workdir, steps, processes, devices, *words):
    """One training job of ``processes`` with ``devices`` simulated devices each."""
    return launch(
        processes,
        devices,
        DIGITS,
        "--mode=train",
        f"--workdir={workdir}",
        *TINY,
        *words,
        f"--config.training.steps={steps}",
    )


def launch(processes, devices, *words):
    """One job."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(
        os.environ,
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
        PYTHONUNBUFFERED="1",
    )
    command = [sys.executable, "run.py", *words]
    job = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"] if processes > 1 else []
    return [
        subprocess.Popen(
            [*command, *job, *([f"--process_id={i}"] if job else [])],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]


def finish(job):
    out = [process.communicate(timeout=600)[0] for process in job]
    assert [process.returncode for process in job] == [0] * len(job), "\n".join(out)
    return out


def losses(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_two_processes_train_as_one_does_and_either_goes_on_from_the_other(tmp_path):
    finish(start(tmp_path / "one", 8, 1, 8))
    chief, other = finish(start(tmp_path / "two", 8, 2, 4, "--config.mesh.fsdp=2"))
    assert "8 x cpu" in chief and "finished" in chief and "finished" not in other
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys()
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=1e-5)
    left, right = arrays(tmp_path / "one", 8), arrays(tmp_path / "two", 8)
    for a, b in zip(jax.tree.leaves(left["params"]), jax.tree.leaves(right["params"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    # Elastic: what two processes wrote one goes on from, and the other way round.
    assert "going on from step 8" in finish(start(tmp_path / "two", 12, 1, 2))[0]
    assert "going on from step 8" in finish(start(tmp_path / "one", 12, 2, 2))[0]
    for step, loss in losses(tmp_path / "one").items():
        assert losses(tmp_path / "two")[step] == pytest.approx(loss, rel=1e-4)


def test_a_sigterm_to_one_process_saves_and_stops_all(tmp_path):
    job = start(tmp_path, 4000, 2, 1)
    saved = wait_for_checkpoint(job[0], tmp_path)
    job[1].send_signal(signal.SIGTERM)
    out = finish(job)
    assert "interrupted: saved step" in out[0]
    stopped = int(out[0].split("interrupted: saved step ")[1].split(";")[0])
    assert saved <= stopped < 4000
    assert (tmp_path / "checkpoints" / str(stopped)).is_dir()


def test_two_processes_draw_the_samples_of_one(tmp_path):
    finish(start(tmp_path / "run", 2, 1, 1))
    samples = {}
    for processes, devices, batch in ((1, 1, 7), (2, 2, 4)):
        output = tmp_path / f"{processes}.npz"
        words = (f"--workdir={tmp_path / 'run'}", "--num_samples=7", f"--output={output}")
        words += ("--config.sampling.solver=sde_dpmpp_2m", "--config.sampling.steps=6")
        words += (f"--config.sampling.batch_size={batch}",)
        finish(launch(processes, devices, "--mode=sample", *words))
        with np.load(output) as file:
            samples[processes] = file["samples"].astype(int)
    assert len(np.unique(samples[1].reshape(7, -1), axis=0)) == 7
    np.testing.assert_allclose(samples[2], samples[1], atol=16)  # one level, by rounding
    assert np.mean(samples[2] == samples[1]) > 0.99
