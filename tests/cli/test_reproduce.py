"""The script that reproduces published figures asks run.py for things that it has."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from score_sde.evaluate import METRICS
from score_sde.flags import parse
from tests.conftest import ROOT


@pytest.fixture
def reproduce():
    where = ROOT / "experiments/reproduce/reproduce.py"
    spec = importlib.util.spec_from_file_location("reproduce", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_part_is_asked_for_once_and_ends_in_the_table(reproduce, monkeypatch, tmp_path, capsys):
    """With results of known values in place of the modes."""
    asked = []

    def run(*words):
        flags = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
        mode = flags["mode"]
        asked.append((mode, flags.get("config.sampling.solver"), flags.get("seed")))
        words = [word for word in words if not word.startswith(("--config=", "--workdir="))]
        config = parse(["run.py", *words, f"--config={ROOT / 'configs/subvp_cifar.py'}"], "").config
        workdir = Path(flags["workdir"])
        if mode == "import":
            workdir.mkdir(parents=True)
            (workdir / "config.json").write_text("{}")
        elif mode == "evaluate":
            assert set(config.evaluate.metrics.names) <= set(METRICS)
            scores = {"fid": {"value": 3.0}, "inception_score": {"value": 9.5}}
            Path(flags["output"]).write_text(json.dumps({"rows": [{"scores": scores}]}))
        else:
            np.savez(workdir / "likelihood.npz", bits_per_dim=np.float32([2.0, 3.0]))

    monkeypatch.setattr(reproduce, "run", run)
    words = ["reproduce.py", "--official=subvp/cifar10_ddpmpp_continuous", "--checkpoint=x.pth"]
    words += [f"--data={tmp_path}", "--weights=w.npz", f"--workdir={tmp_path / 'run'}", "--passes=2"]
    words += ["--config.model.nf=8", "--config.sampling.steps=30"]  # of which bits/dim read one
    monkeypatch.setattr("sys.argv", words)
    reproduce.main()
    first = list(asked)
    assert [mode for mode, *_ in first].count("likelihood") == 2
    assert len(set(first)) == len(first)
    table = capsys.readouterr().out
    assert "3.00" in table
    assert "2.500 +- 0.500 (2 images, passes: 2)" in table
    reproduce.main()
    assert asked == first  # nothing is measured twice
