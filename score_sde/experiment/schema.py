"""The config: its sections and their fields, each stated once.

``complete`` fills a ConfigDict in, ``typed`` makes it into a ``Config``, which everything else sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax
from ml_collections import ConfigDict, config_dict

from score_sde.data import SOURCES, Scaling, Source
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS
from score_sde.evaluate import METRICS, Metric
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.index import METRICS as DISTANCES
from score_sde.evaluate.named_extractors import EXTRACTORS
from score_sde.evaluate.outliers import FOREIGN, OUTLIER_SCORES
from score_sde.experiment import sections
from score_sde.experiment.choices import (
    CODECS,
    GUIDANCES,
    PROCESSES,
    TASKS,
    TRANSPORTS,
    MakePrediction,
    Threshold,
    TimeInput,
    Wrap,
)
from score_sde.experiment.fields import (
    Choice,
    Choices,
    checked,
    choice,
    finite,
    natural,
    one_of,
    positive,
    section,
    several,
    share,
    value,
)
from score_sde.guidance.thresholds import THRESHOLDS
from score_sde.inversion.latents import Transport
from score_sde.likelihood.bounds import DECODERS, VARIANCES, Decoder
from score_sde.likelihood.ode_density import DIVERGENCES, INTEGRATORS, Divergence, Integrator
from score_sde.losses import TIMES, WEIGHTS, Times, Weight
from score_sde.nets import NETS
from score_sde.sde import SDE, SDES
from score_sde.solvers import GRIDS, SOLVERS, Grid, Solver
from score_sde.train import EMAS, OPTIMIZERS
from score_sde.train.ema import Decay

SPLITS = ("train", "test")


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
    num_workers: int = natural(0, "stream: worker processes; 0 reads in a thread")


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

    steps: int = positive(1_300_000, "updates in all; a resumed run goes on to this number")
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
        "held-out loss of average and parameters at multiples of this, and at the end; 0: at the end only",
    )
    eval_examples: int = positive(512, "held-out examples of that loss")
    sample_every_steps: int = natural(
        50_000, "sample grid at multiples of this, and at the end; 0: at the end only"
    )
    sample_count: int = positive(64, "samples of that grid, and of its distance to the training data")
    best_metric: str = value(
        "held_out_loss",
        "the checkpoint where this is lowest is kept: `held_out_loss`, `held_out_loss_raw`, "
        "`sample_pixels_kid` (or another of `evaluate.features`), or empty: none is",
    )

    def __post_init__(self) -> None:
        count = self.steps_per_dispatch
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
        0, "on another process: the model is asked at times i / (levels - 1) only; 0: at any"
    )
    guidance: Choice[Wrap] = choice(GUIDANCES, "none", "what the prediction is changed by")
    threshold: Choice[Threshold] = choice(
        THRESHOLDS, "none", "keeps the expected clean sample in the data's range", given=("low", "high")
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


@dataclass(frozen=True)
class BoundSection:
    """The bound in continuous time."""

    decoder: Choice[Decoder] = choice(
        DECODERS, "gaussian", "of the data at t_min; `levels` and `bins` for integer data", given=("cells",)
    )
    times: int = positive(32, "times an example and draw")


@dataclass(frozen=True)
class ChainSection:
    """The bound of a chain of noise levels."""

    decoder: Choice[Decoder] = choice(
        DECODERS, "gaussian", "of the data at t_min; `levels` and `bins` for integer data", given=("cells",)
    )
    steps: int = positive(1000, "noise levels of a continuous process")
    draws: int | None = positive(None, "steps looked at; none: all")
    variance: str = one_of("small", VARIANCES, "of the reverse steps, `small` or `large`")


@dataclass(frozen=True)
class Likelihood:
    """Log densities of held-out data."""

    estimates: tuple[str, ...] = one_of(
        ("ode",), ("ode", "bound", "vlb"), "what is measured; see [Likelihood](likelihood.md)"
    )
    divergence: Choice[Divergence] = choice(DIVERGENCES, "hutchinson", "of the velocity along the ODE")
    integrator: Choice[Integrator] = choice(INTEGRATORS, "adaptive", "of the ODE")
    nodes: int = natural(0, "intervals of the divergence's quadrature, a multiple of 4; 0: part of the ODE")
    t_min: float | None = positive(None, "where the data are taken to lie; none: the `t_min` of the process")
    draws: int = positive(1, "independent draws of the dequantisation noise, and of whatever a bound draws")
    batch_size: int = positive(64, "examples computed together, over all devices")
    num_examples: int | None = positive(None, "only so many held-out examples; none: all")
    dequantize: bool = value(True, "add uniform noise to integer data")
    dequantiser: str = one_of(
        "uniform",
        ("uniform", "learned"),
        "integer data: `uniform` noise, or `learned` by `--mode=dequantiser`",
    )
    bound: BoundSection = section(BoundSection, when=("estimates", "bound"))
    vlb: ChainSection = section(ChainSection, when=("estimates", "vlb"))


@dataclass(frozen=True)
class Evaluate:
    """Scores of samples, and the held-out loss."""

    batch_size: int = positive(128, "examples computed together, over all devices")
    noise_levels: int = positive(20, "noise levels at which the held-out loss is measured")
    metrics: Choices[Metric] = several(
        METRICS, ("frechet", "kid", "prdc"), "scores of samples; see [Evaluation](evaluation.md)"
    )
    features: Choice[Extractor] = choice(
        EXTRACTORS,
        "pixels",
        "what they compare; also `module:function` of your own",
        given=("read", "workdir", "batch_size"),
    )
    reference: str | None = value(
        None, "what samples are compared with, as `--reference`; none: the split below"
    )
    split: str = one_of("train", SPLITS, "the split of the data that is the reference")
    keep_features: int = positive(
        10_000, "features of the reference to keep for `kid` and `prdc`; moments are of all"
    )


@dataclass(frozen=True)
class Inversion:
    """Latent codes of examples."""

    transport: Choice[Transport] = choice(
        TRANSPORTS, "ode", "the way between examples and latents", given=("sde",)
    )
    t_min: float | None = positive(None, "where the data are taken to lie; none: that of the process")
    batch_size: int = positive(64, "examples computed together, over all devices")
    split: str = one_of("test", SPLITS, "which examples, without `--samples`")
    num_examples: int | None = positive(None, "the first so many; none: all")
    frames: int = checked(
        11,
        "at least 2, the two ends",
        lambda x: x >= 2,
        "interpolate: pictures from one example to the next, ends included",
    )
    temperature: tuple[float, ...] = natural(
        (1.0,), "decode: factor on the latents, or several, one for each column of the grid"
    )

    def __post_init__(self) -> None:
        if not self.temperature:
            raise ValueError("temperature = (): must be one or more numbers, 0 or more")


@dataclass(frozen=True)
class Search:
    """Retrieval of similar examples."""

    features: tuple[str, ...] = one_of(
        ("network", "pixels"),
        ("network", "codes", "pixels", "classifier", "inception", "file"),
        "of several, the first searches and the others are compared with it",
    )
    log_snr: tuple[float, ...] = finite(
        (0.0,),
        "network: noise level; of several, the best for the labels of the training data",
        when=("features", "network"),
    )
    layer: str = value(
        "", "network: name of a layer; empty: the last at the lowest resolution", when=("features", "network")
    )
    cells: int = positive(
        2, "network: parts of every axis over which features are averaged", when=("features", "network")
    )
    draws: int = natural(
        4,
        "network: draws of the noise to average over; 0: no noise, only its scale",
        when=("features", "network"),
    )
    file: str | None = value(
        None, "file: .npy of vectors `(N, d)`, one for each example", when=("features", "file")
    )
    metric: str = one_of("cosine", DISTANCES, "`cosine` (after the mean is subtracted) or `euclidean`")
    nearest: int = positive(5, "neighbours shown, and counted for the accuracy")
    split: str = one_of("test", SPLITS, "which examples are searched, without `--samples`")
    num_examples: int | None = positive(None, "the first so many; none: all")
    batch_size: int = positive(128, "examples computed together, over all devices")


@dataclass(frozen=True)
class Outliers:
    """Examples that are foreign to the model."""

    scores: tuple[str, ...] = one_of(
        ("typicality", "likelihood", "complexity"), OUTLIER_SCORES, "the first chooses what the picture shows"
    )
    foreign: tuple[str, ...] = one_of(
        ("constant", "noise", "rotated"),
        FOREIGN,
        "without `--samples`: what held-out examples are turned into",
    )
    num_examples: int = positive(300, "so many training and held-out examples")


@dataclass(frozen=True)
class ClassifierSection:
    """The classifier of ``--mode=classifier``."""

    widths: tuple[int, ...] = positive((32, 64), "channels of each stage; the last is the number of features")
    steps: int = positive(1000, "updates")
    batch_size: int = positive(128, "examples an update")
    learning_rate: float = positive(2e-3, "of Adam, falling to zero along a cosine")


@dataclass(frozen=True)
class DequantiserSection:
    """The learned dequantisation noise of ``--mode=dequantiser``."""

    width: int = positive(32, "channels of its convolutions")
    couplings: int = positive(4, "affine layers, each of which moves every other pixel")
    steps: int = positive(1000, "updates")
    batch_size: int = positive(64, "examples an update")
    learning_rate: float = positive(1e-3, "of Adam, after a warm-up, falling along a cosine")
    ema: float = checked(0.99, "in [0, 1)", lambda x: 0 <= x < 1, "decay of the average of its parameters")


@dataclass(frozen=True)
class Config:
    """A whole config."""

    seed: int = checked(
        0,
        "in [0, 2^32)",
        lambda x: 0 <= x < 2**32,
        "root of all randomness of a run: initial parameters, data order, training noise, and samples "
        "unless `--seed` says otherwise",
    )
    data: Data = section(Data)
    codec: Choice[Scaling] = choice(CODECS, "pixels", "data to the model's range and back", given=("levels",))
    sde: Choice[SDE] = choice(SDES, "vp", "the forward process")
    model: Choice[Any] = choice(NETS, "ncsnpp", "the network", given=("num_classes", "augment_dim"))
    denoiser: DenoiserSection = section(DenoiserSection)
    conditions: Conditions = section(Conditions)
    task: Choice[None] = choice(TASKS, "diffusion", "what training fits")
    loss: Loss = section(Loss)
    optimizer: Choice[optax.GradientTransformation] = choice(
        OPTIMIZERS, "adam", "the optimizer", given=("batch_size",)
    )
    ema: Choice[Decay] = choice(EMAS, "constant", "the moving average", given=("batch_size",))
    training: Training = section(Training)
    mesh: Mesh = section(Mesh)
    sampling: Sampling = section(Sampling)
    likelihood: Likelihood = section(Likelihood)
    evaluate: Evaluate = section(Evaluate)
    inversion: Inversion = section(Inversion)
    search: Search = section(Search)
    outliers: Outliers = section(Outliers)
    classifier: ClassifierSection = section(ClassifierSection)
    dequantiser: DequantiserSection = section(DequantiserSection)


Given = ConfigDict | Mapping[str, Any]


def _plain(config: Given) -> Mapping[str, Any]:
    return config.to_dict() if isinstance(config, ConfigDict) else config


def complete(config: Given) -> ConfigDict:
    """The config with every field that exists, defaults filled in, locked.

    Raises:
      ConfigError: an unknown section, field or name, or a value of another type or range.
    """
    full = ConfigDict(_with_placeholders(sections.fill(Config, _plain(config))))
    return full.lock()


def _with_placeholders(tree: Mapping[str, Any]) -> dict[str, Any]:
    """None as a field that may get a value."""
    return {
        key: _with_placeholders(entry)
        if isinstance(entry, Mapping)
        else config_dict.placeholder(object)
        if entry is None
        else entry
        for key, entry in tree.items()
    }


def typed(config: Given) -> Config:
    """The typed config of a ConfigDict, complete or not.

    Raises:
      ConfigError: as ``complete``; also fields of a section that contradict each other.
    """
    return sections.typed(Config, _plain(config))


def changed(config: Config, changes: Mapping[str, object]) -> Config:
    """The config with some fields changed, ``{"sampling.solver": "heun", "sampling.solver.s_churn": 40.0}``.

    Naming a member resets its options.

    Raises:
      ConfigError: as ``typed``.
    """
    return typed(sections.change(Config, sections.as_tree(config), changes))


def override(config: Given, words: Mapping[str, str]) -> Config:
    """The typed config after changes by words of the command line, ``{"sampling.solver": "heun"}``.

    Raises:
      ConfigError: as ``changed``; also a field that nothing reads, as another field of its section says.
    """
    tree = sections.change(Config, sections.fill(Config, _plain(config)), words, words=True)
    sections.check_read(Config, tree, list(words))
    return sections.typed(Config, tree)
