"""From a config to the objects of an experiment: the one place where they meet."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from score_sde import nets
from score_sde.codecs import NO_PARAMS, Codec, Pixels
from score_sde.conditions import Cond, Conditions, drop
from score_sde.data import AUGMENTED, SOURCES, Source, Spec, augment, random_flip
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoise, Denoiser, Precondition
from score_sde.experiment.checks import check_numbers
from score_sde.experiment.schema import NAMED
from score_sde.guidance.change_process import across
from score_sde.guidance.thresholds import THRESHOLDS
from score_sde.likelihood import ode_density as likelihood
from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss, Trained, VariationalLoss
from score_sde.names import ConfigError, build, find, options
from score_sde.sde import SDE
from score_sde.solvers import GRIDS, SOLVERS, Plan, Solver
from score_sde.train import Objective
from score_sde.train.ema import Decay

_OF_TIME = ("time_999", "index", "reverse_index")  # inputs that say the time and not the noise level


def _only_set(section: ConfigDict) -> dict[str, Any]:
    """Entries that have a value; a placeholder leaves the default of whoever takes it."""
    return {key: value for key, value in section.items() if value is not None}


@dataclass(frozen=True)
class Experiment:
    """Everything that a mode needs, frozen.

    Attributes:
      config: complete.
      spec: what one example of the data is.
      path: the process whose path samples follow; ``sde``, or another.
      wrap: the model's denoiser to that of the sampler.
      solver, plan: how samples are drawn on that path.
      codec: raw data to the state and back.
      conditions: those of the data that the model takes.
      dropout: how often training drops each, by name, in [0, 1].
      learns: whether the process is learned; its schedule is then among the parameters, and everything but
        training sees what ``settle`` gives.
    """

    config: Any
    spec: Spec
    sde: SDE
    net: nets.Net
    precondition: Precondition
    loss: DenoisingLoss | VariationalLoss
    optimizer: optax.GradientTransformation
    ema: Decay
    path: SDE
    wrap: Callable[[Denoise], Denoise]
    solver: Solver
    plan: Plan
    divergence: likelihood.Divergence
    integrator: likelihood.Integrator
    codec: Codec
    conditions: Conditions = ()
    dropout: Mapping[str, float] = field(default_factory=dict)
    learns: bool = False

    def init(self, key: Array) -> Any:
        """Fresh parameters: the network's, or ``{"network", "schedule"}`` where the process is learned."""
        network = self.net.init(key, self.state_shape)
        return {"network": network, "schedule": self.sde.learnt()} if self.learns else network

    def network(self, params: Any) -> Any:
        """The network's part of the parameters, for ``bind``."""
        return params["network"] if self.learns else params

    def settle(self, params: Any) -> "Experiment":
        """The experiment with the process that training has come to, given from now on, also in the config.

        Itself, where the process is given anyway.
        """
        if not self.learns:
            return self
        config = self.config.copy_and_resolve_references()
        with config.ignore_type():
            config.sde.update(asdict(self.sde.settled(jax.device_get(params["schedule"]))))
        return assemble(config, self.spec)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of what the process perturbs, of one example."""
        return self.codec.state_shape(self.spec)

    @property
    def pixels(self) -> Pixels:
        """The codec, where the state is the data themselves.

        Raises:
          ConfigError: it is another.
        """
        if not isinstance(self.codec, Pixels):
            raise ConfigError(
                f"config.codec: {type(self.codec).__name__} has no grey levels; this needs pixels"
            )
        return self.codec

    def bind(self, params: Any, cond: Mapping[str, Array] = {}) -> Denoiser:
        """The denoiser of the network's parameters under some conditions.

        Conditions that the data have and the model does not take are left out.
        """
        ignored = {name for name, _ in self.spec.conditions} - {name for name, _ in self.conditions}
        taken = {name: values for name, values in cond.items() if name not in ignored}
        return Denoiser(params, self.sde, self.net, self.precondition, taken)

    def bind_sampler(self, params: Any, cond: Mapping[str, Array] = {}) -> Denoise:
        """What a solver is given: ``bind`` on the path of the samples, under the threshold."""
        return self.wrap(self.bind(params, cond))

    def prepare(self, batch: dict[str, Array], key: Array) -> tuple[Array, Cond]:
        """A raw training batch as the model sees it, flipped, encoded and augmented; and its conditions."""
        data = self.config.data
        key_flip, key_encode, key_drop, key_augment = jax.random.split(key, 4)
        raw = random_flip(batch["x"], key_flip) if data.random_flip else batch["x"]
        x0 = self.codec.encode(NO_PARAMS, raw, key_encode)
        whole = {name: batch[name] for name, _ in self.conditions}
        cond = drop(self.conditions, whole, self.dropout, key_drop)
        if data.augment_probability:
            x0, description = augment(x0, key_augment, data.augment_probability)
            cond |= {name: description for name, _ in AUGMENTED}
        return x0, cond

    @property
    def objective(self) -> Objective:
        """What a training step minimises."""
        if not self.learns:
            return Objective(self.prepare, self.bind, self.loss)

        def bind(params: Any, cond: Cond) -> Trained:
            return Trained(self.bind(self.network(params), cond), params["schedule"])

        return Objective(self.prepare, bind, self.loss)

    @property
    def extra(self) -> dict[str, Any]:
        """What a workdir must remember beside the config."""
        return {"spec": self.spec.to_json()}


def open_source(config: Any, split: str) -> Source:
    """The ``train`` or ``test`` split of the configured data.

    Raises:
      ConfigError, FileNotFoundError, ImportError: from the source, naming the field of ``config.data``.
    """
    make = find(SOURCES, config.data.source, "data.source")
    spec = {k: v for k, v in _only_set(config.data).items() if v != ""}
    for needed, default in options(make, given=["split"]).items():
        if default is inspect.Parameter.empty and needed not in spec:
            raise ConfigError(
                f"config.data.{needed} is not set, and data.source = {config.data.source!r} needs it: "
                f"--config.data.{needed}=..."
            )
    return build(make, spec, "data", split=split)


def assemble(config: Any, spec: Spec) -> Experiment:
    """Build the objects; every impossible value is found here, before anything is compiled.

    Args:
      config: complete.
      spec: of the data.

    Raises:
      ConfigError: names the field, the value and what is allowed.
    """
    check_numbers(config)
    sde = build(_member(config, "sde"), config.sde, "sde")
    conditions, dropout = _conditions(config, spec)
    codec = _codec(config, spec)
    if config.data.random_flip and len(spec.shape) != 3:
        raise ConfigError(
            f"config.data.random_flip is on, but an example has shape {spec.shape}: only images flip"
        )
    if sde.learnt() is not None and codec.grey_levels is not None and not codec.dequantize:
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r}: integer data have no bounded density; it needs "
            "data.dequantize = True"
        )
    _check_augmentation(config, spec)
    taken = conditions + (AUGMENTED if config.data.augment_probability else ())
    given = {"conditions": taken} if taken else {}
    net = nets.Net(build(_member(config, "model"), _only_set(config.model), "model", **given))
    try:
        net.shapes(codec.state_shape(spec))
    except ValueError as error:
        raise ConfigError(f"config.model: {error}") from error
    time_input = build(
        find(TIME_INPUTS, config.denoiser.time_input, "denoiser.time_input"), config.denoiser, "denoiser"
    )
    prediction = find(PREDICTIONS, config.denoiser.prediction, "denoiser.prediction")
    levels = config.denoiser.time_input in ("index", "reverse_index") or config.loss.times == "levels"
    if levels and not hasattr(sde, "steps"):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is continuous: denoiser.time_input = 'index' or "
            "'reverse_index' and loss.times = 'levels' need 'ddpm' or 'smld'"
        )
    path = build(_member(config, "path"), config.path, "path") or sde
    solver, plan = _sampler(config, path)
    t_min = config.likelihood.t_min
    if t_min is not None and not 0 < t_min < sde.t_max:
        raise ConfigError(f"config.likelihood.t_min = {t_min}: must be in (0, {sde.t_max})")
    divergence = build(
        find(likelihood.DIVERGENCES, config.likelihood.divergence, "likelihood.divergence"),
        config.likelihood,
        "likelihood",
    )
    integrator = build(
        find(likelihood.INTEGRATORS, config.likelihood.integrator, "likelihood.integrator"),
        _only_set(config.likelihood),
        "likelihood",
    )
    if config.likelihood.nodes:
        try:
            likelihood.clenshaw_curtis(config.likelihood.nodes)
        except ValueError as error:
            raise ConfigError(f"config.likelihood.{error}") from error
    return Experiment(
        config=config,
        spec=spec,
        sde=sde,
        net=net,
        precondition=Precondition(build(prediction, config.denoiser, "denoiser"), time_input),
        loss=_loss(config, sde),
        optimizer=_with_batch_size(config, "optimizer"),
        ema=_with_batch_size(config, "ema"),
        path=path,
        wrap=_wrapper(config, sde, path, codec),
        solver=solver,
        plan=plan,
        divergence=divergence,
        integrator=integrator,
        codec=codec,
        conditions=conditions,
        dropout=dropout,
        learns=sde.learnt() is not None,
    )


def _conditions(config: Any, spec: Spec) -> tuple[Conditions, dict[str, float]]:
    """The conditions of the data that the model takes, and how often training drops each."""
    rate = config.training.label_dropout
    if not 0 <= rate <= 1:
        raise ConfigError(f"config.training.label_dropout = {rate}: must be in [0, 1]")
    if not config.training.conditional:
        if rate:
            raise ConfigError(f"config.training.label_dropout = {rate}: needs training.conditional")
        return (), {}
    if not spec.conditions:
        raise ConfigError("config.training.conditional is on, but the data have no conditions")
    if "conditions" not in options(_member(config, "model")):
        raise ConfigError(f"config.model.name = {config.model.name!r}: takes no conditions")
    return spec.conditions, {name: rate for name, _ in spec.conditions}


def _codec(config: Any, spec: Spec) -> Pixels:
    fields = ("low", "high", "dequantize", "shift", "scale")
    return build(Pixels, {k: config.data[k] for k in fields}, "data", grey_levels=spec.grey_levels)


def _loss(config: Any, sde: SDE) -> DenoisingLoss | VariationalLoss:
    weight = build(find(WEIGHTS, config.loss.weight, "loss.weight"), config.loss, "loss")
    times = build(find(TIMES, config.loss.times, "loss.times"), config.loss, "loss")
    if config.loss.times == "importance":
        ends = [float(sde.log_snr(jnp.float32(t))) for t in (sde.t_min, sde.t_max)]
        if not all(math.isfinite(end) for end in ends):
            raise ConfigError(
                f"config.loss.times = 'importance': the log-SNR of sde.name = {config.sde.name!r} is "
                f"infinite at t_min = {sde.t_min} or t_max = {sde.t_max}; move that time"
            )
    if sde.learnt() is None:
        return DenoisingLoss(sde, weight, times, config.loss.half_sum)
    if config.loss.weight != "likelihood" or config.loss.times != "importance" or config.loss.half_sum:
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is trained on the variational bound: it needs "
            "loss.weight = 'likelihood', loss.times = 'importance' and loss.half_sum = False"
        )
    if config.denoiser.time_input in _OF_TIME or config.denoiser.prediction == "velocity":
        raise ConfigError(
            f"config.denoiser: time_input = {config.denoiser.time_input!r}, prediction = "
            f"{config.denoiser.prediction!r}: a learned process needs a time_input other than "
            f"{', '.join(_OF_TIME)} and a prediction other than 'velocity', which change with the schedule"
        )
    return VariationalLoss(config.loss.spread)


def _sampler(config: Any, path: SDE) -> tuple[Solver, Plan]:
    """The solver, and its plan on the path of the samples."""
    sampling = config.sampling
    solver = build(find(SOLVERS, sampling.solver, "sampling.solver"), _only_set(sampling), "sampling")
    make_grid = find(GRIDS, sampling.grid, "sampling.grid")
    given = {"sde": path} if "sde" in options(make_grid) else {}
    grid = build(make_grid, sampling, "sampling", **given)
    start, end, steps, last = path.t_max, sampling.t_end, sampling.steps, sampling.stop_after_steps
    if not 0 <= end < start:
        raise ConfigError(f"config.sampling.t_end = {end}: must be in [0, {start})")
    if last is not None and not 1 <= last <= steps:
        raise ConfigError(f"config.sampling.stop_after_steps = {last}: must be in 1 to steps = {steps}")
    if sampling.keep_every_steps and not solver.has_steps:
        raise ConfigError(
            f"config.sampling.keep_every_steps = {sampling.keep_every_steps}: must be 0, for "
            f"sampling.solver = {sampling.solver!r} chooses its steps on the way"
        )
    try:
        return solver, solver.plan(path, grid(start, end, steps)[: None if last is None else last + 1])
    except ValueError as error:
        raise ConfigError(f"config.sampling: {error}") from error


def _wrapper(config: Any, sde: SDE, path: SDE, codec: Pixels) -> Callable[[Denoise], Denoise]:
    """From the model's denoiser to the sampler's: the other path, and then the threshold."""
    sampling = config.sampling
    if sampling.levels and path is sde:
        raise ConfigError(
            f"config.sampling.levels = {sampling.levels}: must be 0 with config.path.name = 'trained'"
        )
    make = find(THRESHOLDS, sampling.threshold, "sampling.threshold")
    if "low" in options(make):
        if codec.grey_levels is None:
            raise ConfigError(
                f"config.sampling.threshold = {sampling.threshold!r}: must be 'none', for continuous data "
                "have no range"
            )
        limit = build(make, sampling, "sampling", low=codec.low, high=codec.high)
    else:
        limit = build(make, sampling, "sampling")
    if path is sde:
        return limit
    return lambda denoise: limit(across(denoise, sde, path, levels=sampling.levels))


def _member(config: Any, section: str) -> Callable[..., Any]:
    return find(NAMED[section], config[section].name, f"{section}.name")


def _with_batch_size(config: Any, section: str) -> Any:
    """A member that may count in images."""
    make = _member(config, section)
    given = {"batch_size": config.training.batch_size} if "batch_size" in options(make) else {}
    return build(make, config[section], section, **given)


def _check_augmentation(config: Any, spec: Spec) -> None:
    probability = config.data.augment_probability
    if not 0 <= probability <= 1:
        raise ConfigError(f"config.data.augment_probability = {probability}: must be in [0, 1]")
    if not probability:
        return
    if len(spec.shape) != 3:
        raise ConfigError(
            f"config.data.augment_probability = {probability}: examples of shape {spec.shape} are no images"
        )
    if "conditions" not in options(_member(config, "model")):
        raise ConfigError(
            f"config.data.augment_probability = {probability}: config.model.name = {config.model.name!r} "
            "takes no condition that says how an image was augmented, and would learn to make such images"
        )
