"""Is it training?  Warnings read off the numbers that are logged, and off nothing else.

A resumed run reads its own log first, so that a warning does not depend on when the run was killed; the
report reads the same log with the same rules.
"""

import math
from collections import deque
from typing import NamedTuple

import jax
import numpy as np

from score_sde.tasks.base import Logged
from score_sde.train.ema import Decay

_RECENT, _LEVEL, _HISTORY = 3, 5, 20  # looks: compared, making up a level, remembered
_NOISE = 6.0  # times the usual change between two looks: what counts as more than noise
_GROWN = 1.1  # held-out loss over its best
_LAGS = 1.5  # held-out loss of the average over that of the parameters
_OLD_SHARE, _OLD_WEIGHT = 0.1, 0.05  # the first tenth of a run should weigh less than this at its end


class Alarm(NamedTuple):
    """Something that looks wrong.

    Attributes:
      kind: "loss", "gradient norm", "held-out loss" or "average".
      text: what was seen, with numbers, and what may help.
    """

    kind: str
    text: str


class Level:
    """The lowest level that a noisy positive quantity has had, and whether it is far above it now.

    A level is the median of five looks; what is compared with it is the median of the last three, so that no
    single look counts.

    Args:
      factor: how far above is far; more where the quantity is noisier than that.
    """

    def __init__(self, factor: float):
        self._factor, self._lowest = math.log(factor), math.inf
        self._logs: deque[float] = deque(maxlen=_HISTORY)

    def far_above(self, value: float) -> tuple[float, float] | None:
        """After another look: the value now and the level, if it is far above; None otherwise."""
        if not (math.isfinite(value) and value > 0):
            return None
        self._logs.append(math.log(value))
        logs = np.array(self._logs)
        if len(logs) < _LEVEL + _RECENT:
            return None
        old, now = logs[:-_RECENT], float(np.median(logs[-_RECENT:]))
        self._lowest = min(self._lowest, float(np.median(old[-_LEVEL:])))
        usual = float(np.median(np.abs(np.diff(old))))
        far = now - self._lowest > max(self._factor, _NOISE * usual)
        return (math.exp(now), math.exp(self._lowest)) if far else None


class Watch:
    """Looks at every line of the log.

    Args:
      steps: length of the whole run.
    """

    def __init__(self, steps: int):
        self._steps = steps
        self._loss, self._norm = Level(2.0), Level(10.0)
        self._held_out: list[tuple[int, float]] = []
        self._standing: dict[str, Alarm] = {}

    @property
    def standing(self) -> list[Alarm]:
        """What looks wrong now."""
        return list(self._standing.values())

    @property
    def note(self) -> str:
        """The same in a few words, for a line of progress."""
        return f"! {', '.join(self._standing)}" if self._standing else ""

    def see(self, step: int, values: Logged) -> list[Alarm]:
        """Take in what was measured at a step; what has gone wrong since the look before."""
        looks: dict[str, Alarm | None] = {}
        if "loss" in values:
            looks["loss"] = self._risen(float(values["loss"]))
        if "grad_norm" in values:
            looks["gradient norm"] = self._exploded(float(values["grad_norm"]))
        if "held_out_loss" in values:
            self._held_out.append((step, float(values["held_out_loss"])))
            looks["held-out loss"] = self._grown()
        if "held_out_loss_raw" in values:
            looks["average"] = self._lags(step, values)
        fresh = [alarm for kind, alarm in looks.items() if alarm and kind not in self._standing]
        for kind, alarm in looks.items():
            if alarm is None:
                self._standing.pop(kind, None)
            else:
                self._standing[kind] = alarm
        return fresh

    def _risen(self, loss: float) -> Alarm | None:
        far = self._loss.far_above(loss)
        return far and Alarm(
            "loss",
            f"training has diverged: the loss has risen to {far[0]:.4g} from a level of {far[1]:.4g}; go "
            "back to an earlier checkpoint, and lower optimizer.learning_rate or optimizer.clip_norm",
        )

    def _exploded(self, norm: float) -> Alarm | None:
        far = self._norm.far_above(norm)
        return far and Alarm(
            "gradient norm",
            f"the gradient norm has risen to {far[0]:.3g} from a level of {far[1]:.3g}; a lower "
            "optimizer.learning_rate or optimizer.clip_norm may help",
        )

    def _grown(self) -> Alarm | None:
        if len(self._held_out) < 3:
            return None
        best_step, best = min(self._held_out, key=lambda look: look[1])
        if not all(loss > _GROWN * best for _, loss in self._held_out[-2:]):
            return None
        return Alarm(
            "held-out loss",
            f"the held-out loss of the average has grown to {self._held_out[-1][1]:.4g} from "
            f"{best:.4g} at step {best_step}: the model overfits or diverges",
        )

    def _lags(self, step: int, values: Logged) -> Alarm | None:
        average, raw = float(values["held_out_loss"]), float(values["held_out_loss_raw"])
        if 2 * step < self._steps or not average > _LAGS * raw:
            return None
        return Alarm(
            "average",
            f"the average lags: its held-out loss is {average:.4g}, that of the parameters themselves "
            f"{raw:.4g}; the average (config.ema) is too slow for a run of {self._steps} steps",
        )


def slow_average(decay: Decay, steps: int) -> str | None:
    """What is wrong with an average that at the end of a run is still made of its beginning, or None.

    The weight that updates up to ``m`` have in the average after ``steps`` is the product of the decays of
    all later ones.
    """
    first = max(int(_OLD_SHARE * steps), 1)
    if steps <= first:
        return None
    with np.errstate(divide="ignore"):  # a decay of 0 forgets everything
        logs = np.log(np.asarray(jax.jit(jax.vmap(decay))(np.arange(first, steps)), np.float64))
    weight = math.exp(logs.sum())
    if weight <= _OLD_WEIGHT:
        return None
    later = np.flatnonzero(np.cumsum(logs[::-1]) <= math.log(0.5))
    half_life = f"{later[0] + 1} steps" if len(later) else "longer than that"
    return (
        f"the average is too slow for a run of {steps} steps: its half-life is {half_life}, and at the end "
        f"{weight:.0%} of it will be parameters of the first tenth; use config.ema.name = 'warmup', or a "
        f"half-life of about {max(steps // 20, 1)} steps (a constant decay of {2 ** (-20 / steps):.4g})"
    )
