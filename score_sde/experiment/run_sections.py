"""Sections of the config about the model, its training and its samples."""

from dataclasses import dataclass

from score_sde.data import SOURCES, Source
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS
from score_sde.experiment.choices import PROCESSES, MakePrediction, TimeInput
from score_sde.experiment.fields import Choice, choice, natural, one_of, positive, share, value
from score_sde.guidance import GUIDANCES, THRESHOLDS, Guidance
from score_sde.losses import TIMES, WEIGHTS, Times, Weight
from score_sde.sde import SDE
from score_sde.solvers import GRIDS, SOLVERS, Grid, Solver


@dataclass(frozen=True)
class Data:
    """The examples."""

    source: Choice[Source] = choice(SOURCES, "digits", "where examples come from", given=("split",))
    random_flip: bool = value(False, "images: mirror each training image left to right with probability 1/2")
    augment_probability: float = share(
        0.0, "images: of each of six non-leaking augmentations of EDM; 0 is none"
    )
    placement: str = one_of(
        "auto",
        ("auto", "device", "stream"),
        "`device` (the whole set), `stream`, or `auto`: `device` up to 1 GiB in one process",
    )
    num_workers: int = natural(
        0, "stream: worker processes; 0 reads in a thread", when=("placement", ("stream", "auto"))
    )


@dataclass(frozen=True)
class DenoiserSection:
    """How the network is made a denoiser."""

    prediction: Choice[MakePrediction] = choice(PREDICTIONS, "noise", "what the network predicts")
    time_input: Choice[TimeInput] = choice(TIME_INPUTS, "time_999", "how it is given the noise level")


@dataclass(frozen=True)
class Conditions:
    """What the model is given beside the noisy example."""

    names: tuple[str, ...] = value((), "conditions of the data that the model takes, such as `label`")
    dropout: float = share(0.0, "share of conditions withheld in training, for classifier-free guidance")

    def __post_init__(self) -> None:
        if self.dropout and not self.names:
            raise ValueError(f"dropout = {self.dropout}: needs conditions.names, there is nothing to drop")


@dataclass(frozen=True)
class Loss:
    """The objective."""

    weight: Choice[Weight] = choice(WEIGHTS, "noise", "weight of the square error by noise level")
    times: Choice[Times] = choice(TIMES, "low_discrepancy", "training times")
    half_sum: bool = value(
        False, "half the sum over the dimensions, not their mean, as in the published VE recipes"
    )


@dataclass(frozen=True)
class Training:
    """The loop."""

    steps: int = positive(1_300_000, "updates in all; a resumed run continues to this number")
    batch_size: int = positive(128, "examples an update, over all devices")
    steps_per_dispatch: int = positive(1, "updates in one compiled loop")
    accumulate_steps: int = positive(
        1, "shares of the batch whose gradients are computed one after another and added"
    )
    checkpoint_every_steps: int = positive(10_000, "write a checkpoint at multiples of this, and at the end")
    keep_last: int = positive(2, "newest checkpoints to keep")
    keep_every_steps: int = natural(50_000, "keep those at multiples of this for good; 0: none")
    log_every_steps: int = positive(
        50, "write metrics, and look for values that are not finite, at multiples of this"
    )
    eval_every_steps: int = natural(
        5_000,
        "held-out loss of average and parameters at multiples of this, and at the end; 0: never",
    )
    eval_examples: int | None = positive(
        None,
        "held-out examples of that loss; none: at most 512, and so few that it costs about a twentieth of "
        "the training between two of them",
        when=("eval_every_steps", bool),
    )
    sample_every_steps: int = natural(50_000, "sample grid at multiples of this, and at the end; 0: never")
    sample_count: int = positive(
        64,
        "samples of that grid, and of its distance to the training data",
        when=("sample_every_steps", bool),
    )
    best_metric: str = value(
        "held_out_loss",
        "the checkpoint where this is lowest is kept: `held_out_loss`, `held_out_loss_raw`, "
        "`sample_pixels_kid` (or another of `evaluate.features`), or empty: none is",
    )

    @property
    def held_out_examples(self) -> int:
        """``eval_examples``, or what it is by default.

        The loss at ten noise levels, of the average and of the parameters, is 20 forward passes an example;
        an update is about three.
        """
        if self.eval_examples is not None:
            return self.eval_examples
        between = min(self.eval_every_steps, self.steps) * self.batch_size
        return min(512, max(16, between * 3 // (20 * 20)))

    def __post_init__(self) -> None:
        count = self.steps_per_dispatch
        metric = self.best_metric
        needs = "eval_every_steps" if metric.startswith("held_out") else "sample_every_steps"
        if metric not in ("", "held_out_loss") and not getattr(self, needs):
            raise ValueError(
                f"best_metric = {metric!r}: is never measured with training.{needs} = 0; set that field, or "
                "another metric, or '' to keep none"
            )
        for key in ("steps", "checkpoint_every_steps", "log_every_steps"):
            if getattr(self, key) % count:
                raise ValueError(
                    f"{key} = {getattr(self, key)}: must be a multiple of steps_per_dispatch = {count}"
                )
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"batch_size = {self.batch_size}: must be a multiple of accumulate_steps = "
                f"{self.accumulate_steps}"
            )


@dataclass(frozen=True)
class Mesh:
    """The devices."""

    fsdp: int = positive(1, "devices that share one copy of the parameters; see [Training](training.md)")
    cpu_devices: int = natural(0, "devices to make of a CPU; 0: one a core that gets 16 or more examples")
    distributed: bool = value(False, "call `jax.distributed.initialize()` first: TPU pods, SLURM")


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn."""

    solver: Choice[Solver] = choice(SOLVERS, "pc", "see [Sampling](sampling.md)")
    grid: Choice[Grid] = choice(GRIDS, "uniform", "the times of the steps", given=("sde",))
    steps: int = positive(1000, "steps of the time grid")
    t_end: float = natural(1e-3, "the last time")
    process: Choice[SDE | None] = choice(
        PROCESSES, "trained", "the process whose path samples follow: `trained`, or another at equal log-SNR"
    )
    round_to_levels: int = natural(
        0,
        "on another process: the model is asked at times i / (levels - 1) only; 0: at any",
        when=("process", tuple(name for name in PROCESSES if name != "trained")),
    )
    guidance: Choice[Guidance] = choice(
        GUIDANCES,
        "none",
        "what the prediction is changed by",
        given=("null", "sde", "prefix", "open_guide", "open_classifier"),
    )
    threshold: Choice[Guidance] = choice(
        THRESHOLDS,
        "none",
        "keeps the expected clean sample in the data's range",
        given=("sde", "low", "high"),
    )
    batch_size: int = positive(
        64, "samples computed together, over all devices; the result does not depend on it"
    )
    stop_after_steps: int | None = positive(
        None, "stop early, after so many of the steps; none: at the end of the grid"
    )
    keep_every_steps: int = natural(0, "sample mode: write the states after so many steps too; 0: none")

    def __post_init__(self) -> None:
        if self.stop_after_steps is not None and self.stop_after_steps > self.steps:
            raise ValueError(
                f"stop_after_steps = {self.stop_after_steps}: must be in 1 to steps = {self.steps}"
            )
