"""``--mode=report``: what is known of a run, on one page that needs no network."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde import pictures
from score_sde.arrays import normal_per_sample
from score_sde.charts import Chart, Line, histogram
from score_sde.config import ConfigError
from score_sde.evaluate import Score, level_times
from score_sde.experiment import Experiment, open_source
from score_sde.flags import Options
from score_sde.modes.page import Page
from score_sde.modes.tables import shown
from score_sde.modes.workdir import drawable, from_workdir, is_chief, outside, restore_average, say
from score_sde.sampling import sample_keys

_GRIDS = 6  # sample grids over time
_STRIP = (4, 8)  # examples and noise levels of the denoising strip


def report(options: Options) -> int:
    """Write ``report.html``: config, curves, samples, scores, likelihoods, denoising."""
    output = options.workdir / "report.html" if options.output is None else Path(options.output)
    if output.suffix != ".html":
        raise ConfigError(f"--output={output}: a report is a .html")
    experiment = from_workdir(options)
    page = Page(f"{options.workdir.name}: {options.config.model.name}, {options.config.sde.name} process")
    _training(page, options.workdir)
    _levels(page, options.workdir)
    _samples(page, options.workdir)
    _scores(page, options.workdir)
    _likelihood(page, options.workdir)
    _denoising(page, options, experiment)
    page.heading("Config")
    page.folded("every field", json.dumps(options.config.to_dict(), indent=2, default=str))
    if is_chief():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page.text, encoding="utf-8")
    say(f"report in {output}")
    return 0


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` that can be read: a kill may have cut the last one."""
    path, lines = workdir / "metrics.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _training(page: Page, workdir: Path) -> None:
    page.heading("Training")
    lines = read_log(workdir)
    curves = []
    for key, name in (("loss", "training loss"), ("held_out_loss", "held-out loss")):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        if points:
            curves.append(Line(name, *np.array(points, np.float64).T))
    page.svg(Chart("Loss", "step", "loss", tuple(curves), log=True).svg())
    norms = [(line["step"], line["grad_norm"]) for line in lines if line.get("grad_norm") is not None]
    if norms:
        curve = Line("gradient norm", *np.array(norms, np.float64).T)
        page.svg(Chart("Gradient norm", "step", "norm", (curve,), log=True).svg())


def _levels(page: Page, workdir: Path) -> None:
    by_level = [line for line in read_log(workdir) if "held_out_loss_by_level" in line]
    curves = []
    for line in _spread(by_level, 4):
        snr, loss = np.array(line["held_out_log_snr"]), np.array(line["held_out_loss_by_level"])
        curves.append(Line(f"step {line['step']}", snr, loss))
    path = workdir / "evaluate.json"
    if path.is_file():
        full = json.loads(path.read_text(encoding="utf-8"))
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


def _scores(page: Page, workdir: Path) -> None:
    page.heading("Scores")
    files = sorted(workdir.glob("scores_*.json"))
    for path in files:
        result = json.loads(path.read_text(encoding="utf-8"))
        names = list(result["rows"][0]["scores"])
        rows = [
            [str(row["step"]), *(shown(Score(**row["scores"][name])) for name in names)]
            for row in result["rows"]
        ]
        page.table(["checkpoint", *names], rows)
        page.paragraph(
            f"{result['count']} samples against {result['reference']}; features {result['features']}, "
            f"weights {result['weights']}, resize {result['resize']}, values {result['values']}."
        )
        if len(result["rows"]) > 1:
            scores = [row["scores"][names[0]] for row in result["rows"]]
            step, value, error = (
                np.array(column, np.float64)
                for column in (
                    [row["step"] for row in result["rows"]],
                    [score["value"] for score in scores],
                    [score["error"] or 0.0 for score in scores],
                )
            )
            page.svg(Chart(names[0], "step", names[0], (Line(names[0], step, value, error),)).svg())
    if not files:
        page.paragraph("None yet: --mode=evaluate --num_samples=N.")


def _likelihood(page: Page, workdir: Path) -> None:
    page.heading("Likelihood")
    path = workdir / "likelihood.npz"
    if not path.is_file():
        page.paragraph("None yet: --mode=likelihood.")
        return
    with np.load(path, allow_pickle=False) as file:
        bits, nats = file["bits_per_dim"], file["nats"]
    whole = json.loads((workdir / "likelihood.json").read_text(encoding="utf-8"))
    if "bits_per_dim" in whole:
        page.svg(histogram("Held-out examples", "bits per dimension", bits).svg())
        value = f"{whole['bits_per_dim']:.4f} +- {whole['bits_per_dim_standard_error']:.4f} bits/dim"
    else:
        page.svg(histogram("Held-out examples", "nats per example", nats).svg())
        value = f"{whole['nats_per_example']:.5g} nats an example"
    page.paragraph(f"{value} on {whole['examples']} examples, checkpoint {whole['step']}.")


def _denoising(page: Page, options: Options, experiment: Experiment) -> None:
    """Held-out examples at growing noise, and what the model makes of them."""
    page.heading("Denoising")
    if not drawable(experiment.spec):
        page.paragraph("The data are no pictures.")
        return
    count, levels = _STRIP
    try:
        source = open_source(options.config, "test")
        step, _, params = restore_average(options, experiment)
    except (ValueError, OSError, ImportError) as error:
        page.paragraph(f"Not shown: {error}")
        return
    count = min(count, len(source))
    raw = source.read(np.arange(count))
    keys = sample_keys(experiment.config.seed, jnp.arange(count))
    encode = jax.vmap(lambda x, key: experiment.scaling.encode(x[None], key)[0])
    x0 = encode(jnp.asarray(raw["x"]), keys)
    noise = normal_per_sample(keys, experiment.spec.shape)
    cond = {"label": jnp.asarray(raw["label"])}

    @jax.jit
    def denoise(params: Any, x: Any, t: Any) -> Any:
        return experiment.bind(params, cond)(x, t)

    noisy, clean = [x0], [x0]
    times = level_times(experiment.sde, levels)
    for t in times:
        x = experiment.sde.perturb(x0, jnp.float32(t), noise)
        noisy.append(x / float(jnp.hypot(experiment.sde.alpha(t), experiment.sde.sigma(t))))
        clean.append(denoise(params, x, jnp.float32(t)))
    rows = np.stack([np.stack(noisy, axis=1), np.stack(clean, axis=1)], axis=1)  # (n, 2, levels, *shape)
    tiles = outside(experiment, rows.reshape(-1, *experiment.spec.shape))
    caption = (
        f"held-out examples with noise at t = {', '.join(f'{t:.3g}' for t in times)}, and below each what "
        f"checkpoint {step} expects behind it"
    )
    page.picture(pictures.grid(tiles, columns=levels + 1), caption)


def _spread(items: list[Any], count: int) -> Iterator[Any]:
    """At most ``count`` of a list, evenly, with its first and last."""
    if items:
        chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
        yield from (items[i] for i in chosen)
