"""Sections of the config about what is measured of a trained model."""

from dataclasses import dataclass

from score_sde.data.images import RESIZES
from score_sde.evaluate import METRICS, Metric
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.index import METRICS as DISTANCES
from score_sde.evaluate.named_extractors import EXTRACTORS
from score_sde.evaluate.outliers import FOREIGN, OUTLIER_SCORES
from score_sde.experiment.choices import TRANSPORTS
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
    value,
)
from score_sde.inverse import EDITS, METHODS, Edit, Posterior
from score_sde.inversion.latents import Transport
from score_sde.likelihood.bounds import DECODERS, VARIANCES, Decoder
from score_sde.likelihood.ode_density import DIVERGENCES, INTEGRATORS, Divergence, Integrator

SPLITS = ("train", "test")


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

    estimates: tuple[str, ...] = value(
        ("ode",), "what is measured: `ode`, `bound`, `vlb`; see [Likelihood](likelihood.md)"
    )
    divergence: Choice[Divergence] = choice(DIVERGENCES, "hutchinson", "of the velocity along the ODE")
    integrator: Choice[Integrator] = choice(INTEGRATORS, "adaptive", "of the ODE")
    nodes: int = natural(0, "intervals of the divergence's quadrature, a multiple of 4; 0: part of the ODE")
    t_min: float | None = positive(None, "the time of the data; none: the `t_min` of the process")
    draws: int = positive(1, "independent draws of the dequantisation noise, and of whatever a bound draws")
    batch_size: int = positive(64, "examples computed together, over all devices")
    num_examples: int | None = positive(None, "only so many held-out examples; none: all")
    dequantize: bool = value(True, "add uniform noise to integer data")
    dequantiser: str = one_of(
        "uniform",
        ("uniform", "learned"),
        "integer data: `uniform` noise, or `learned` by `--mode=dequantiser`",
        when=("dequantize", bool),
    )
    bound: BoundSection = section(BoundSection, when=("estimates", ("bound",)))
    vlb: ChainSection = section(ChainSection, when=("estimates", ("vlb",)))


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
    """Latents of examples: their noise under the probability-flow ODE."""

    transport: Choice[Transport] = choice(
        TRANSPORTS, "ode", "the way between examples and latents", given=("sde",)
    )
    t_min: float | None = positive(None, "the time of the data; none: that of the process")
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
class EditSection:
    """Pictures that agree with what is kept of another; see [Inverse problems](inverse.md)."""

    task: Choice[Edit] = choice(EDITS, "inpaint", "what is kept of a picture, and what is made anew")
    method: Choice[Posterior] = choice(
        METHODS, "mmps", "how samples are made to agree with it", given=("operator", "sde")
    )
    noise_std: float = natural(0.02, "noise of what is kept, in the model's range; it is added to it")
    samples: int = positive(4, "pictures for each")
    split: str = one_of("test", SPLITS, "which examples the numbers of `--input` are of")
    measured: bool = value(
        False,
        "a picture of `--input` is what is kept already: small for `superres`, grey for `colorize`, blurred "
        "for `deblur`; no noise is added, and `noise_std` is the noise that it has",
    )
    fit: str = one_of(
        "none",
        RESIZES,
        "files of another size: `none` refuses them, `crop` scales and cuts the middle, `squash` scales both "
        "sides freely",
    )


@dataclass(frozen=True)
class Search:
    """Retrieval of similar examples."""

    features: tuple[str, ...] = value(
        ("network", "pixels"),
        "`network`, `latents`, `pixels`, `classifier`, `inception` or `file`; of several, the first searches "
        "and the others are compared with it",
    )
    log_snr: tuple[float, ...] = finite(
        (0.0,),
        "network: noise level; of several, the best for the labels of the training data",
        when=("features", ("network",)),
    )
    layer: str = value(
        "",
        "network: name of a layer; empty: the last at the lowest resolution",
        when=("features", ("network",)),
    )
    cells: int = positive(
        2, "network: parts of every axis over which features are averaged", when=("features", ("network",))
    )
    draws: int = natural(
        4,
        "network: draws of the noise to average over; 0: no noise, only its scale",
        when=("features", ("network",)),
    )
    file: str | None = value(
        None, "file: .npy of vectors `(N, d)`, one for each example", when=("features", ("file",))
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
