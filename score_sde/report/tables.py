"""Scores as JSON, Markdown and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from score_sde.conditions import Json
from score_sde.evaluate import Score
from score_sde.evaluate.scores import shown
from score_sde.images import pictures
from score_sde.images.charts import Chart, Line
from score_sde.runs.scores import Row, Scored
from score_sde.runtime.files import write_json
from score_sde.runtime.processes import is_chief, say

_SMALLER_IS_BETTER = ("fid", "cfd", "frechet", "kid")


def best(rows: list[Row], name: str) -> Row:
    """The row with the best score of that name."""
    pick = min if name.endswith(_SMALLER_IS_BETTER) else max
    return pick(rows, key=lambda row: row.scores[name].value)


def write_tables(path: Path, scored: Scored) -> None:
    """Write a ``.json``, and a ``.md`` and a ``.png`` beside it.

    The picture is the first score by checkpoint, or for one set of samples the first of them.
    """
    rows, what, first = scored.rows, scored.about, scored.first
    names = list(rows[0].scores)
    winner = best(rows, names[0])
    report = {
        **what,
        "best_step": winner.step,
        "rows": [
            {
                "step": row.step,
                "parameters_sha256": row.parameters,
                "scores": {name: score._asdict() for name, score in row.scores.items()},
                "warnings": row.warnings,
            }
            for row in rows
        ],
    }
    if is_chief():
        write_json(path, report)
        path.with_suffix(".md").write_text(markdown(rows, what, winner), encoding="utf-8")
        if len(rows) > 1:
            steps = [row.step or 0 for row in rows]
            chart = score_chart(names[0], str(what["count"]), steps, [row.scores[names[0]] for row in rows])
            chart.write_png(path.with_suffix(".png"))
        elif pictures.is_picture(first.shape[1:], 256 if first.dtype == np.uint8 else None):
            pictures.grid(first).save(path.with_suffix(".png"))
    if len(rows) > 1:
        say(f"best checkpoint by {names[0]}: {winner.step} ({shown(winner.scores[names[0]])})")
    else:
        say(f"{winner.line()} ({what['count']} samples)")
    say(f"details in {path}")


def markdown(rows: list[Row], what: Mapping[str, Json], winner: Row) -> str:
    """A table of scores, the best row in bold, and the protocol below it."""
    names = list(rows[0].scores)
    lines = ["| checkpoint | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        cells = [str(row.step) if row.step is not None else "-", *(shown(row.scores[n]) for n in names)]
        if row is winner and len(rows) > 1:
            cells = [f"**{cell}**" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {key}: {value}" for key, value in what.items())]
    warned = sorted({message for row in rows for message in row.warnings})
    return "\n".join([*lines, *(f"- warning: {message}" for message in warned)]) + "\n"


def score_chart(name: str, count: str, steps: Sequence[int], scores: Sequence[Score]) -> Chart:
    """A score by checkpoint with its error bars."""
    value = np.array([score.value for score in scores])
    error = np.array([score.error or 0.0 for score in scores])
    wide = bool(value.min() > 0 and value.max() > 10 * value.min())
    title = f"{name} of {count} samples, by checkpoint"
    return Chart(title, "training step", name, (Line(name, np.array(steps, float), value, error),), log=wide)
