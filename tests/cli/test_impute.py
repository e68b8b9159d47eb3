"""``--mode=edit --task=impute``: a table with holes in, a table without out."""

import json

import numpy as np
import pytest

from score_sde import cli
from score_sde.data.csv_file import read_cells
from score_sde.flags import parse
from score_sde.runs.impute import impute
from score_sde.runs.model import load
from tests.conftest import ROOT

SMALL = (
    "--config.model.width=8",
    "--config.model.num_blocks=1",
    "--config.training.steps=2",
    "--config.training.steps_per_dispatch=1",
    "--config.training.batch_size=16",
    "--config.training.checkpoint_every_steps=2",
    "--config.training.log_every_steps=2",
    "--config.training.eval_every_steps=0",
    "--config.optimizer.warmup_steps=1",
    "--config.sampling.steps=3",
    "--config.sampling.batch_size=64",
)
ROWS = [f"{0.5 * i:.2f},{('red', 'blue', 'green')[i % 3]},{100 - i}" for i in range(40)]
HOLES = ["colour,id,size,weight", "red,r1,1.50,", ",r2,,91.000", "blue,r3,2.5,90"]


def run(*words):
    return cli.run(parse(["run.py", *words], ""))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    (folder / "table.csv").write_text("\n".join(["size,colour,weight", *ROWS]) + "\n")
    words = [
        "--mode=train",
        f"--workdir={folder / 'run'}",
        f"--config.data.source.path={folder / 'table.csv'}",
    ]
    assert run(f"--config={ROOT / 'configs' / 'edm_table.py'}", *words, *SMALL) == 0
    (folder / "holes.csv").write_text("\n".join(HOLES) + "\n")
    return folder


def fill(folder, *words, name="holes.csv", output="filled.csv"):
    return run(
        "--mode=edit",
        f"--workdir={folder / 'run'}",
        "--task=impute",
        f"--input={folder / name}",
        f"--output={folder / output}",
        *words,
    )


def test_holes_are_filled_and_the_rest_is_copied_letter_by_letter(table):
    assert fill(table, "--config.edit.task.draws=7", "--seed=3") == 0
    before, after = (read_cells(table / name, "here") for name in ("holes.csv", "filled.csv"))
    assert after.header == before.header == ["colour", "id", "size", "weight"]
    filled = []
    for old, new in zip(before.rows, after.rows, strict=True):
        for column, was, now in zip(before.header, old, new, strict=True):
            assert now == was if was else now
            filled += [] if was else [(column, now)]
    assert [column for column, _ in filled] == ["weight", "colour", "size"]
    assert filled[1][1] in ("red", "blue", "green")
    with np.load(table / "filled.npz") as found:
        assert list(found["columns"]) == ["size", "colour", "weight"]
        np.testing.assert_array_equal(found["rows"], [0, 1])
        assert found["samples"].shape == (2, 7, 3) and found["quantiles"].shape == (5, 2, 3)
        assert (np.diff(found["quantiles"][:, 0, 2]) >= 0).all()
        np.testing.assert_allclose(found["quantiles"][2, 0, 2], np.median(found["samples"][0, :, 2]))
        assert list(found["categories_colour"]) == ["blue", "green", "red"]
        np.testing.assert_allclose(found["probabilities_colour"].sum(axis=-1), 1.0)
        assert float(filled[0][1]) == pytest.approx(found["samples"][0, :, 2].mean(), rel=1e-5)
        np.testing.assert_array_equal(found["missing"], [[0, 0, 1], [1, 1, 0], [0, 0, 0]])
        samples = found["samples"]
    model = load(table / "run")  # the same from Python
    columns = {name: before.column(name) for name in before.header}
    again = impute(model, columns, draws=7, seed=3)
    np.testing.assert_allclose(again.samples, samples, rtol=1e-4)
    assert again.texts()["size"][2] == "2.5"


def test_the_run_remembers_its_columns(table):
    spec = json.loads((table / "run" / "config.json").read_text())["spec"]
    assert [c["name"] for c in spec["columns"]] == ["size", "colour", "weight"]
    before = load(table / "run").architecture
    (table / "more.csv").write_text("\n".join(["size,colour,weight", *ROWS, "900,red,7"]) + "\n")
    changes = {"data.source.path": str(table / "more.csv")}
    longer = load(table / "run", changes=changes)
    assert longer.architecture.codec == before.codec  # the moments are those of the training
    assert longer.workdir.source("train").spec.columns != before.spec.columns
    (table / "other.csv").write_text("\n".join(["size,colour,weight", *ROWS, *["1,grey,7"] * 30]) + "\n")
    other = load(table / "run", changes={"data.source.path": str(table / "other.csv")})
    with pytest.raises(ValueError, match="column 'colour' has 'blue', 'green', 'grey', 'red' here"):
        other.workdir.source("train")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["colour,size", "red,1", "blue,"], "has no column 'weight'"),
        (["colour,size,weight", "red,1,2"], "no cell of the model's columns is empty"),
        (["colour,size,weight", "grey,1,"], "row 1: column 'colour': 'grey' is not one of the 3 categories"),
        (["colour,size,weight", "red,1,2", "red,big,"], "row 2: column 'size': 'big' is not a finite number"),
        (["colour,size,weight", "red,1"], "row 1 after the header has 2 cells, not 3"),
    ],
)
def test_tables_that_cannot_be_filled_are_named(table, capsys, lines, said):
    (table / "bad.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(SystemExit):
        fill(table, name="bad.csv")
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--input="], "no such file"),
        (["--output=filled.txt"], "a filled table is a .csv file"),
        (["--config.edit.samples=9"], "of a row it is config.edit.task.draws"),
        (["--config.edit.task.draws=0"], "draws = 0: must be positive"),
    ],
)
def test_options_that_cannot_be_are_named(table, capsys, words, said):
    with pytest.raises(SystemExit):
        fill(table, *words)
    assert said in capsys.readouterr().err


def test_an_input_is_needed(table, capsys):
    with pytest.raises(SystemExit):
        run("--mode=edit", f"--workdir={table / 'run'}", "--task=impute")
    assert "--task=impute: needs --input=FILE.csv" in capsys.readouterr().err


def test_a_series_is_filled(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f}" for a, b in rng.normal(size=(80, 2))]
    (tmp_path / "series.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    words = [f"--workdir={tmp_path / 'run'}", f"--config.data.source.path={tmp_path / 'series.csv'}"]
    config = f"--config={ROOT / 'configs' / 'edm_series.py'}"
    assert run(config, "--mode=train", *words, "--config.data.source.length=8", *SMALL) == 0
    holes = rows[:20]
    holes[4], holes[19] = f",{holes[4].split(',')[1]}", ","
    (tmp_path / "holes.csv").write_text("\n".join(["a,b", *holes]) + "\n")
    assert fill(tmp_path, "--config.edit.task.draws=5") == 0
    after = read_cells(tmp_path / "filled.csv", "here")
    for i, (row, was) in enumerate(zip(after.rows, holes, strict=True)):
        assert all(row) and (i in (4, 19) or row == was.split(","))
    with np.load(tmp_path / "filled.npz") as found:
        assert found["samples"].shape == (1, 5, 20, 2) and found["missing"].sum() == 3
