"""From a config to the objects of an experiment: the one place where they meet."""

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from score_sde import nets
from score_sde.data import AUGMENT_DIM, SOURCES, Scaling, Source, Spec, augment, random_flip
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Cond, Denoise, Denoiser, Precondition
from score_sde.experiment.guided import guidance_of
from score_sde.experiment.schema import NAMED
from score_sde.guidance import Guidance
from score_sde.likelihood import ode_density as likelihood
from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss, Trained, VariationalLoss
from score_sde.names import ConfigError, build, find, options
from score_sde.sde import SDE
from score_sde.solvers import GRIDS, SOLVERS, Plan, Solver
from score_sde.train import Objective
from score_sde.train.ema import Decay

_OF_TIME = ("time_999", "index", "reverse_index")  # labels that say the time and not the noise level


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
      guidance: from the model to what the sampler sees.
      solver, plan: how samples are drawn on that path.
      scaling: raw data to the model's range and back.
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
    guidance: Guidance
    solver: Solver
    plan: Plan
    divergence: likelihood.Divergence
    integrator: likelihood.Integrator
    scaling: Scaling
    learns: bool = False

    def init(self, key: Array) -> Any:
        """Fresh parameters: the network's, or ``{"network", "schedule"}`` where the process is learned."""
        network = self.net.init(key, self.spec.shape)
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

    def bind(self, params: Any, cond: Cond = MappingProxyType({})) -> Denoiser:
        """The denoiser of the network's parameters under some conditions; one without labels ignores them."""
        without = () if self.config.training.conditional else ("label",)
        kept = {name: value for name, value in cond.items() if name not in without}
        return Denoiser(params, self.sde, self.net, self.precondition, kept)

    def bind_sampler(self, params: Any, cond: Cond) -> Denoise:
        """What a solver is given: ``bind``, guided; ``cond`` has the guidance's ``inputs`` too."""
        return self.guidance(self.bind)(params, cond)

    def prepare(self, batch: dict[str, Array], key: Array) -> tuple[Array, Cond]:
        """A raw training batch as the model sees it, flipped, scaled and augmented; and its conditions."""
        data, dropout = self.config.data, self.config.training.label_dropout
        key_flip, key_noise = jax.random.split(key)
        raw, label = batch["x"], batch["label"]
        if data.random_flip:
            raw = random_flip(raw, key_flip)
        x0, cond = self.scaling.encode(raw, key_noise), {}
        if self.config.training.conditional:
            if dropout:
                drop = jax.random.bernoulli(jax.random.fold_in(key, 1), dropout, label.shape)
                label = jnp.where(drop, -1, label)
            cond["label"] = label
        if data.augment_probability:
            x0, cond["augment"] = augment(x0, jax.random.fold_in(key, 2), data.augment_probability)
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
        return {"spec": asdict(self.spec)}


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
    _check_numbers(config)
    sde = build(_member(config, "sde"), config.sde, "sde")
    model = dict(_only_set(config.model))
    if config.training.conditional:
        if not spec.num_classes:
            raise ConfigError("config.training.conditional is on, but the data have no labels")
        if "num_classes" not in options(_member(config, "model")):
            raise ConfigError(f"config.model.name = {config.model.name!r}: takes no labels")
        model["num_classes"] = spec.num_classes
    elif model.get("num_classes"):
        raise ConfigError(
            f"config.model.num_classes = {model['num_classes']}: is set from the data when "
            "config.training.conditional is on; leave it 0"
        )
    fields = ("low", "high", "dequantize", "shift", "scale")
    scaling = build(Scaling, {k: config.data[k] for k in fields}, "data", levels=spec.levels)
    if config.data.random_flip and len(spec.shape) != 3:
        raise ConfigError(
            f"config.data.random_flip is on, but an example has shape {spec.shape}: only images flip"
        )
    if sde.learnt() is not None and scaling.levels is not None and not scaling.dequantize:
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r}: integer data have no bounded density; it needs "
            "data.dequantize = True"
        )
    _check_augmentation(config, spec)
    if "augment_dim" in options(_member(config, "model")):
        model["augment_dim"] = AUGMENT_DIM if config.data.augment_probability else 0
    net = nets.Net(build(_member(config, "model"), model, "model"))
    try:
        net.shapes(spec.shape)
    except ValueError as error:
        raise ConfigError(f"config.model: {error}") from error
    labels = build(
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
        precondition=Precondition(build(prediction, config.denoiser, "denoiser"), labels),
        loss=_loss(config, sde),
        optimizer=_with_batch_size(config, "optimizer"),
        ema=_with_batch_size(config, "ema"),
        path=path,
        guidance=guidance_of(config, sde, path, scaling),
        solver=solver,
        plan=plan,
        divergence=divergence,
        integrator=integrator,
        scaling=scaling,
        learns=sde.learnt() is not None,
    )


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
            f"config.denoiser: label = {config.denoiser.time_input!r}, prediction = "
            f"{config.denoiser.prediction!r}: a learned process needs a label other than "
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


def _member(config: Any, section: str) -> Callable[..., Any]:
    return find(NAMED[section], config[section].name, f"{section}.name")


def _with_batch_size(config: Any, section: str) -> Any:
    """A member that may count in images."""
    make = _member(config, section)
    given = {"batch_size": config.training.batch_size} if "batch_size" in options(make) else {}
    return build(make, config[section], section, **given)


def _check_augmentation(config: Any, spec: Spec) -> None:
    probability, dropout = config.data.augment_probability, config.training.label_dropout
    for field, value in (("data.augment_probability", probability), ("training.label_dropout", dropout)):
        if not 0 <= value <= 1:
            raise ConfigError(f"config.{field} = {value}: must be in [0, 1]")
    if dropout and not config.training.conditional:
        raise ConfigError(f"config.training.label_dropout = {dropout}: needs training.conditional")
    if not probability:
        return
    if len(spec.shape) != 3:
        raise ConfigError(
            f"config.data.augment_probability = {probability}: examples of shape {spec.shape} are no images"
        )
    if "augment_dim" not in options(_member(config, "model")):
        raise ConfigError(
            f"config.data.augment_probability = {probability}: config.model.name = {config.model.name!r} "
            "cannot be told how an image was augmented, and would learn to make such images"
        )


def _check_numbers(config: Any) -> None:
    positive = [
        ("training", ["steps", "batch_size", "steps_per_dispatch", "checkpoint_every_steps"]),
        ("training", ["accumulate_steps", "keep_last", "log_every_steps", "eval_examples", "sample_count"]),
        ("sampling", ["steps", "batch_size"]),
        ("likelihood", ["batch_size", "draws", "times", "chain_steps"]),
        ("evaluate", ["batch_size", "levels", "keep_features", "kid_subsets", "kid_subset_size"]),
        ("evaluate", ["splits", "nearest"]),
        ("classifier", ["steps", "batch_size", "learning_rate"]),
        ("codes", ["batch_size", "rtol", "atol", "max_steps", "steps"]),
        ("search", ["cells", "nearest", "batch_size"]),
        ("outliers", ["num_examples"]),
        ("mesh", ["fsdp"]),
    ]
    natural = [("training", ["keep_every_steps", "eval_every_steps", "sample_every_steps"])]
    natural += [("evaluate", ["bootstrap"]), ("sampling", ["keep_every_steps", "levels"])]
    natural += [("search", ["draws"])]
    for allowed, least, groups in (("positive", 0, positive), ("0 or more", -1, natural)):
        for section, keys in groups:
            for key in keys:
                value = config[section][key]
                if not (math.isfinite(value) and value > least):
                    raise ConfigError(f"config.{section}.{key} = {value}: must be {allowed}")
    count, every = config.training.steps_per_dispatch, config.training
    for key in ("steps", "checkpoint_every_steps", "log_every_steps"):
        if every[key] % count:
            raise ConfigError(
                f"config.training.{key} = {every[key]}: must be a multiple of steps_per_dispatch = {count}"
            )
    if every.batch_size % every.accumulate_steps:
        raise ConfigError(
            f"config.training.batch_size = {every.batch_size}: must be a multiple of accumulate_steps = "
            f"{every.accumulate_steps}"
        )
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"config.seed = {config.seed}: must be in [0, 2^32)")
