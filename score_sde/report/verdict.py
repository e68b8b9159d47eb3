"""Is it training, and which checkpoint?  The answer, computed from what has been logged."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from score_sde.evaluate import Score
from score_sde.evaluate.scores import shown
from score_sde.train import Record, Watch

_LATE = 2 / 3  # of the run: what came after is its last third
_STILL = 0.02  # a fall of the held-out loss over the last third that is worth going on for
_STATES = {
    "Yes, still improving": "good",
    "Yes, but hardly any more": "good",
    "Too early to say": "wait",
    "No": "bad",
}

Line = Mapping[str, Any]


class Verdict(NamedTuple):
    """What a person wants to know first.

    Attributes:
      state: "good", "wait" (too early to say) or "bad".
      trains, why: whether it is training, in a few words, and why.
      step, by: which checkpoint to use, and by what.
      warnings: what was warned of during training.
    """

    state: str
    trains: str
    why: str
    step: str
    by: str
    warnings: list[str]


def judge(
    lines: Sequence[Line], steps: int, saved: Sequence[int], best: Record | None, results: Sequence[Line]
) -> Verdict:
    """The verdict on a run.

    Args:
      lines: of its log, in order.
      steps: its whole length.
      saved: steps of its checkpoints, ascending.
      best: the checkpoint that training has kept.
      results: what ``--mode=evaluate`` has written for samples.
    """
    watch = Watch(steps)
    for line in lines:
        watch.see(line["step"], line)
    trains, why = _training(lines, steps, watch)
    warned = [f"step {line['step']}: {line['warning']}" for line in lines if "warning" in line]
    return Verdict(_STATES[trains], trains, why, *_checkpoint(saved, best, results), warned)


def _training(lines: Sequence[Line], steps: int, watch: Watch) -> tuple[str, str]:
    done = max((line["step"] for line in lines), default=0)
    if not done:
        return "Too early to say", "nothing has been logged yet."
    where = "It has made all" if done >= steps else f"It is at step {done} of"
    where += f" {steps} steps." if done >= steps else f" {steps}."
    wrong = [alarm.text for alarm in watch.standing]
    if wrong:
        return "No", f"{'; '.join(wrong)}. {where}"
    looks = [(line["step"], float(line["held_out_loss"])) for line in lines if "held_out_loss" in line]
    if len(looks) < 2:
        return "Too early to say", f"the held-out loss was measured {len(looks)} times. {where}"
    (first_step, first), (last_step, last) = looks[0], looks[-1]
    if last >= first:
        return (
            "No",
            f"the held-out loss has not fallen: {first:.4g} at step {first_step}, {last:.4g} at step "
            f"{last_step}. {where}",
        )
    before = [loss for step, loss in looks[:-1] if step <= _LATE * last_step] or [first]
    fall = 1 - last / before[-1]
    outlook = (
        f"In the last third of that it fell by {fall:.1%}: more steps would still help."
        if fall > _STILL
        else f"In the last third of that it changed by {-fall:+.1%}: more steps would help little."
    )
    return (
        "Yes, still improving" if fall > _STILL else "Yes, but hardly any more",
        f"the held-out loss has fallen from {first:.4g} at step {first_step} to {last:.4g} at step "
        f"{last_step}. {outlook} {where}",
    )


def _checkpoint(saved: Sequence[int], best: Record | None, results: Sequence[Line]) -> tuple[str, str]:
    said = [(result["best_step"], _by_samples(result)) for result in results if len(result["rows"]) > 1]
    if best is not None:
        name = best.metric.replace("_", " ")
        said.append(
            (best.step, f"{best.step} by {name} ({best.value:.4g}), kept by training: --best takes it.")
        )
    if said:
        return str(said[0][0]), " ".join(text for _, text in said)
    if not saved:
        return "None", "there is none yet."
    return str(saved[-1]), (
        f"the newest of {len(saved)}: nothing has been measured that tells them apart. "
        "--mode=evaluate --num_samples=N --all_checkpoints scores them all."
    )


def _by_samples(result: Line) -> str:
    """The best by the first score, and which are as good within the error bars."""
    rows = result["rows"]
    name = next(iter(rows[0]["scores"]))
    of = {row["step"]: Score(**row["scores"][name]) for row in rows}
    winner = of[result["best_step"]]
    close = [
        str(step)
        for step, score in of.items()
        if step != result["best_step"]
        and abs(score.value - winner.value) <= 2 * ((score.error or 0) ** 2 + (winner.error or 0) ** 2) ** 0.5
    ]
    also = f"; within two error bars of it: {', '.join(close)}" if close else ""
    return f"{result['best_step']} by {name} of {result['count']} samples ({shown(winner)}{also})."
