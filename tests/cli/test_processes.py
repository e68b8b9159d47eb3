"""Several processes as one job: the same numbers, an agreed stop, and going on in another number."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from tests.cli.test_cli import DIGITS, TINY, arrays, wait_for_checkpoint
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

# Wide enough for arrays that fsdp splits; a warm-up that lets the losses change.
WIDE = ["--config.model.nf=48", "--config.optimizer.learning_rate=1e-3"]


def launch(words, processes, devices):
    """One job of ``processes`` with ``devices`` simulated devices each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(
        os.environ,
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
        PYTHONUNBUFFERED="1",
    )
    job = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}"] if processes > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, "run.py", *words, *job, *([f"--process_id={i}"] if job else [])],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(processes)
    ]


def start(workdir, steps, processes, devices, *words):
    train = [DIGITS, "--mode=train", f"--workdir={workdir}", *TINY, f"--config.training.steps={steps}"]
    return launch([*train, *words], processes, devices)


def finish(job):
    out = [process.communicate(timeout=600)[0] for process in job]
    assert [process.returncode for process in job] == [0] * len(job), "\n".join(out)
    return out


def kill(job):
    """SIGKILL to the last process; the others notice, or are killed like it."""
    job[-1].kill()
    for process in job:
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    assert all(process.returncode for process in job)


def losses(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def is_split(workdir, step):
    """Whether a checkpoint was written from arrays that lay in pieces along ``fsdp``."""
    saved = json.loads((workdir / "checkpoints" / str(step) / "state" / "_sharding").read_text())
    return any("fsdp" in json.loads(array)["partition_spec"] for array in saved.values())


def assert_same_losses(a, b, rel=1e-5):
    one, other = losses(a), losses(b)
    assert one.keys() == other.keys() != set()
    for step in one:
        assert other[step] == pytest.approx(one[step], rel=rel)


def test_devices_and_processes_change_nothing_and_each_goes_on_from_the_other(tmp_path):
    one, two, sharded = tmp_path / "one", tmp_path / "two", tmp_path / "sharded"
    finish(start(one, 8, 1, 1, *WIDE))
    chief, other = finish(start(two, 8, 2, 4, *WIDE))
    assert "8 x cpu" in chief and "finished" in chief and "finished" not in other
    finish(start(sharded, 8, 2, 4, *WIDE, "--config.mesh.fsdp=4"))
    finish(start(tmp_path / "eight", 8, 1, 8, *WIDE, "--config.mesh.fsdp=8"))
    assert is_split(sharded, 8) and not is_split(two, 8)
    for workdir in (two, sharded, tmp_path / "eight"):
        assert_same_losses(one, workdir)
        left, right = arrays(one, 8), arrays(workdir, 8)
        for name in ("params", "ema", "opt_state"):
            for a, b in zip(jax.tree.leaves(left[name]), jax.tree.leaves(right[name]), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    # Elastic: what two processes wrote in pieces one goes on from, and the other way round.
    assert "resuming from step 8" in finish(start(sharded, 12, 1, 2, *WIDE))[0]
    assert "resuming from step 8" in finish(start(one, 12, 2, 2, *WIDE, "--config.mesh.fsdp=2"))[0]
    assert_same_losses(sharded, one, rel=1e-4)


def test_a_job_that_loses_a_process_goes_on_where_it_was_saved(tmp_path):
    steps, words = 48, ["--config.mesh.fsdp=2", "--config.training.eval_every_steps=0", *WIDE]
    finish(start(tmp_path / "whole", steps, 1, 4, *words))
    job = start(tmp_path / "killed", steps, 2, 2, *words)
    saved = wait_for_checkpoint(job[0], tmp_path / "killed")
    kill(job)
    assert saved < steps
    out = finish(start(tmp_path / "killed", steps, 2, 2, *words))
    assert "resuming from step" in out[0]
    assert_same_losses(tmp_path / "whole", tmp_path / "killed", rel=1e-4)


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
        # Six: of the last batch of 4 on two processes, the second has no share.
        words = (f"--workdir={tmp_path / 'run'}", "--num_samples=6", f"--output={output}")
        words += ("--config.sampling.solver=sde_dpmpp_2m", "--config.sampling.steps=6")
        words += (f"--config.sampling.batch_size={batch}",)
        finish(launch(["--mode=sample", *words], processes, devices))
        with np.load(output) as file:
            samples[processes] = file["samples"].astype(int)
    assert len(np.unique(samples[1].reshape(6, -1), axis=0)) == 6
    np.testing.assert_allclose(samples[2], samples[1], atol=16)  # one level, by rounding
    assert np.mean(samples[2] == samples[1]) > 0.99


def test_a_process_that_fails_alone_ends_the_job(tmp_path):
    finish(start(tmp_path / "run", 2, 1, 1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "000000.png").touch()  # only the first process looks
    words = (f"--workdir={tmp_path / 'run'}", "--num_samples=4", f"--output={tmp_path / 'other'}")
    job = launch(["--mode=sample", *words], 2, 1)
    chief, _ = (process.communicate(timeout=150)[0] for process in job)
    assert "holds files" in chief and "Traceback" not in chief
    assert all(process.returncode for process in job)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_sampling_goes_on_and_ends_in_the_same_bits(tmp_path, processes):
    run, count = tmp_path / "run", 1500
    finish(start(run, 4, 1, 1))

    def sample(output, processes, devices):
        where = [f"--workdir={run}", f"--output={tmp_path / output}", f"--num_samples={count}"]
        sampling = ["--config.sampling.batch_size=8", "--config.sampling.steps=20"]
        return launch(["--mode=sample", *where, *sampling], processes, devices)

    def wait_for_batch(directory, suffix, process):
        """Until the first batch is whole: its first row and its last are there."""
        first, last = ("000000.png", "000007.png") if suffix == ".png" else ("00000000-*", "*-00000008.npz")
        while not (any(directory.glob(first)) and any(directory.glob(last))):
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)

    finish(sample("whole", 1, 2))
    whole = np.stack([np.asarray(Image.open(tmp_path / "whole" / f"{i:06d}.png")) for i in range(count)])
    devices = 2 // processes
    for output, parts, suffix in (("killed", "killed", ".png"), ("killed.npz", "killed.npz.parts", ".npz")):
        job = sample(output, processes, devices)
        wait_for_batch(tmp_path / parts, suffix, job[0])
        for process in job:  # all at once: sampling needs no other process, and one left would end its share
            process.kill()
        for process in job:
            process.communicate()
        there = len(list((tmp_path / parts).glob(f"*{suffix}")))
        assert 0 < there < (count if suffix == ".png" else count // 8)
        assert "resuming: " in finish(sample(output, processes, devices))[0]
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.png"))
    assert names == sorted(path.name for path in (tmp_path / "killed").glob("*.png"))
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with np.load(tmp_path / "killed.npz") as file:
        np.testing.assert_array_equal(file["samples"][..., 0], whole)
        assert int(file["seed"]) == 0
    assert not (tmp_path / "killed.npz.parts").exists()
