"""What is known of a run, on one page that needs no network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from score_sde.evaluate import Score
from score_sde.evaluate.scores import shown
from score_sde.experiment.sections import as_tree
from score_sde.images.charts import Chart, Line, histogram
from score_sde.report import strips
from score_sde.report.page import Page
from score_sde.report.tables import score_chart
from score_sde.report.verdict import judge
from score_sde.runs.model import Model
from score_sde.runs.workdir import Choice, Workdir
from score_sde.runtime.files import read_json
from score_sde.tasks.base import Logged
from score_sde.train import BEST, CHECKPOINTS, read_best

T = TypeVar("T")
_GRIDS = 6  # sample grids over time


def report_page(workdir: Workdir, which: Choice) -> str:
    """The whole page as HTML: config, curves, samples, scores, likelihoods, denoising."""
    config, path = workdir.config, workdir.path
    page = Page(f"{path.name}: {config.model.name}, {config.sde.name} process")
    lines = read_log(path)
    _answer(page, workdir, lines)
    _training(page, lines)
    _levels(page, path, lines)
    _samples(page, path)
    _scores(page, path)
    _likelihood(page, path)
    _models(page, workdir, which)
    page.heading("Config")
    page.folded("every field", json.dumps(as_tree(config), indent=2, default=str))
    return page.text


def read_log(workdir: Path) -> list[Logged]:
    """The lines of ``metrics.jsonl`` that can be read: a kill may have cut the last one."""
    path, lines = workdir / "metrics.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _answer(page: Page, workdir: Workdir, lines: list[Logged]) -> None:
    """Is it training, and which checkpoint?"""
    directory = workdir.path / CHECKPOINTS
    saved = sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit())
    results = [result for _, result in _results(workdir.path)]
    best = read_best(workdir.path / BEST)
    verdict = judge(lines, workdir.config.training.steps, saved, best, results)
    page.answer("Is it training?", verdict.trains, verdict.why, verdict.state)
    which = f"step {verdict.step}" if saved else verdict.step
    page.answer("Which checkpoint?", which, verdict.by, "good" if best or results else "wait")
    if verdict.warnings:
        page.answer("Warnings?", str(len(verdict.warnings)), "; ".join(verdict.warnings), "bad")
    _losses(page, workdir.path, workdir.config.loss.weight.name, lines)
    for result in results:
        if len(result["rows"]) > 1:
            rows, name = result["rows"], next(iter(result["rows"][0]["scores"]))
            scores = [Score(**row["scores"][name]) for row in rows]
            page.svg(score_chart(name, result["count"], [row["step"] for row in rows], scores).svg())


def _losses(page: Page, workdir: Path, weight: str, lines: list[Logged]) -> None:
    curves = []
    for key, name in (
        ("loss", f"training loss, weighted by {weight!r}"),
        ("held_out_loss", "held-out loss of the average"),
        ("held_out_loss_raw", "held-out loss without averaging"),
    ):
        curves += _curve(lines, key, name)
    best = read_best(workdir / BEST)
    if best is not None and best.metric.startswith("held_out"):
        curves.append(Line(f"best: step {best.step}", np.array([best.step]), np.array([best.value])))
    page.svg(Chart("Loss", "step", "loss", tuple(curves), log=True).svg())


def _training(page: Page, lines: list[Logged]) -> None:
    page.heading("Training")
    norms = _curve(lines, "grad_norm", "gradient norm")
    if norms:
        page.svg(Chart("Gradient norm", "step", "norm", tuple(norms), log=True).svg())
    for key in sorted({key for line in lines for key in line if key.startswith("sample_")}):
        if not key.endswith("_error"):
            title = f"{key}: the few samples of each grid against training data"
            page.svg(Chart(title, "step", "distance", tuple(_curve(lines, key, key))).svg())


def _curve(lines: list[Logged], key: str, name: str) -> list[Line]:
    """One logged number over steps, with its error where there is one; none if it was never logged."""
    points = [
        (line["step"], line[key], line.get(f"{key}_error", 0.0))
        for line in lines
        if line.get(key) is not None
    ]
    if not points:
        return []
    step, value, error = np.array(points, np.float64).T
    return [Line(name, step, value, error)]


def _levels(page: Page, workdir: Path, lines: list[Logged]) -> None:
    by_level = [line for line in lines if "held_out_loss_by_level" in line]
    curves = []
    for line in _spread(by_level, 4):
        snr, loss = np.array(line["held_out_log_snr"]), np.array(line["held_out_loss_by_level"])
        curves.append(Line(f"step {line['step']}", snr, loss))
    if by_level and "held_out_loss_raw_by_level" in by_level[-1]:
        raw = np.array(by_level[-1]["held_out_loss_raw_by_level"])
        name = f"step {by_level[-1]['step']}, without averaging"
        curves.append(Line(name, np.array(by_level[-1]["held_out_log_snr"]), raw))
    path = workdir / "evaluate.json"
    if path.is_file():
        full = read_json(path)
        error = np.array(full["noise_mse_standard_error"])
        curve = Line(
            f"evaluate, {full['step']}", np.array(full["log_snr"]), np.array(full["noise_mse"]), error
        )
        curves.append(curve)
    page.heading("Held-out loss by noise level")
    title = "Mean square error of the noise"
    page.svg(Chart(title, "log signal-to-noise ratio", "per dimension", tuple(curves), log=True).svg())


def _samples(page: Page, workdir: Path) -> None:
    page.heading("Samples")
    grids = sorted((workdir / "samples").glob("step_*.png"))
    for path in _spread(grids, _GRIDS):
        page.picture(path, f"step {int(path.stem.removeprefix('step_'))}")
    if not grids:
        page.paragraph("No sample grids yet.")
    if (workdir / "neighbours.png").is_file():
        page.picture(workdir / "neighbours.png", "samples (left), their nearest training examples")


def _results(workdir: Path) -> list[tuple[str, Logged]]:
    """What ``--mode=evaluate`` has written for samples of this run, by name."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(workdir.glob("scores_*.json"))}
    return [(name, json.loads(text)) for name, text in found.items()]


def _scores(page: Page, workdir: Path) -> None:
    page.heading("Scores")
    results = _results(workdir)
    for _, result in results:
        names = list(result["rows"][0]["scores"])
        rows = [
            [str(row["step"]), *(shown(Score(**row["scores"][name])) for name in names)]
            for row in result["rows"]
        ]
        page.table(["checkpoint", *names], rows)
        against = ", ".join(f"{key} {value}" for key, value in result["reference"].items())
        page.paragraph(
            f"{result['count']} samples against {against}; features {result['features']}, "
            f"weights {result['weights']}, resize {result['resize']}, values {result['values']}."
        )
    if not results:
        page.paragraph("None yet: --mode=evaluate --num_samples=N.")


def _likelihood(page: Page, workdir: Path) -> None:
    page.heading("Likelihood")
    path = workdir / "likelihood.npz"
    if not path.is_file():
        page.paragraph("None yet: --mode=likelihood.")
        return
    with np.load(path, allow_pickle=False) as file:
        bits, nats = file["bits_per_dim"], file["nats"]
    whole = read_json(workdir / "likelihood.json")
    if "bits_per_dim" in whole:
        page.svg(histogram("Held-out examples", "bits per dimension", bits).svg())
        value = f"{whole['bits_per_dim']:.4f} +- {whole['bits_per_dim_standard_error']:.4f} bits/dim"
    else:
        page.svg(histogram("Held-out examples", "nats per example", nats).svg())
        value = f"{whole['nats_per_example']:.5g} nats an example"
    page.paragraph(f"{value} on {whole['examples']} examples, checkpoint {whole['step']}.")


def _models(page: Page, workdir: Workdir, which: Choice) -> None:
    """Pictures that take the model itself."""
    page.heading("Denoising, and samples by number of network evaluations")
    try:
        model = Model.of(workdir, which)
    except (ValueError, OSError) as error:
        page.paragraph(f"Not shown: {error}")
        return
    if not model.architecture.is_picture:
        page.paragraph("The data are no pictures.")
        return
    page.paragraph(f"Of checkpoint {model.step}.")
    try:
        page.picture(*strips.denoising(model, workdir.source("test")))
    except (ValueError, OSError, ImportError) as error:
        page.paragraph(f"No held-out examples under noise: {error}")
    try:
        page.picture(*strips.by_evaluations(model))
    except (ValueError, FloatingPointError) as error:
        page.paragraph(f"No samples by number of evaluations: {error}")


def _spread(items: list[T], count: int) -> Iterator[T]:
    """At most ``count`` of a list, evenly, with its first and last."""
    if items:
        chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
        yield from (items[i] for i in chosen)
