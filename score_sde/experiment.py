"""From a config to the objects of an experiment: the one place where they meet."""

import inspect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import optax
from jax import Array
from ml_collections import ConfigDict, config_dict

from score_sde import likelihood, nets
from score_sde.config import ConfigError, build, check_fields, find, options
from score_sde.data import SOURCES, Scaling, Source, Spec, random_flip
from score_sde.denoiser import LABELS, PREDICTIONS, Denoiser, Precondition
from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss
from score_sde.sde import SDE, SDES
from score_sde.solvers import GRIDS, SOLVERS, Plan, Solver
from score_sde.train import EMAS, OPTIMIZERS, Objective
from score_sde.train.ema import Decay

# Sections whose entry ``name`` picks a member of a table; the other entries are the member's options.
NAMED: dict[str, dict[str, Callable[..., Any]]] = {
    "sde": SDES,
    "model": nets.NETS,
    "optimizer": OPTIMIZERS,
    "ema": EMAS,
}

# Every other section: its fields with their defaults.  A type stands for "not set": whoever takes the field
# has a default of its own.
FIELDS: dict[str, dict[str, Any]] = {
    "data": {
        "source": "digits",
        "path": "",
        "test_path": str,
        "name": "",
        "data_dir": str,
        "train_split": "train",
        "test_split": str,
        "size": object,
        "channels": int,
        "resize": "crop",
        "held_out": 0.1,
        "on_error": "raise",
        "levels": int,
        "key": "x",
        "label_key": "label",
        "channels_last": bool,
        "low": -1.0,
        "high": 1.0,
        "dequantize": False,
        "shift": 0.0,
        "scale": 1.0,
        "random_flip": False,
        "placement": "auto",
        "num_workers": 0,
    },
    "denoiser": {"prediction": "noise", "label": "time_999", "sigma_data": 0.5},
    "loss": {"weight": "noise", "times": "low_discrepancy", "half_sum": False, "sigma_data": 0.5},
    "training": {
        "steps": 1_300_000,
        "batch_size": 128,
        "steps_per_dispatch": 1,
        "checkpoint_every_steps": 10_000,
        "keep_last": 2,
        "keep_every_steps": 50_000,
        "log_every_steps": 50,
        "eval_every_steps": 5_000,
        "eval_examples": 512,
        "sample_every_steps": 50_000,
        "sample_count": 64,
        "conditional": False,
    },
    "mesh": {"fsdp": 1, "cpu_devices": 0, "distributed": False},
    "sampling": {
        "solver": "pc",
        "steps": 1000,
        "t_end": 1e-3,
        "grid": "uniform",
        "rho": 7.0,
        "shift": 1.0,
        "times": (),
        "batch_size": 64,
        "denoise": True,
        "predictor": "euler_maruyama",
        "corrector": str,
        "corrector_steps": 1,
        "snr": 0.16,
        "norm": str,
        "churn": 1.0,
        "table": "ddim",
        "order": int,
        "corrector_order": int,
        "eta": float,
        "noise_rule": str,
        "prediction": str,
        "basis": str,
        "form": str,
        "lower_final_below": int,
        "space": str,
        "stage": float,
        "stages": str,
        "s_churn": 0.0,
        "s_min": 0.0,
        "s_max": float,
        "s_noise": 1.0,
        "restarts": 2,
        "restart_steps": 4,
        "restart_min": 0.06,
        "restart_max": 0.3,
        "sde_rtol": 0.02,
        "sde_atol": 0.0078,
        "safety": 0.9,
        "exponent": 0.9,
        "first_step": 0.01,
        "rtol": 1e-5,
        "atol": 1e-5,
        "method": "dopri5",
        "max_steps": 4096,
    },
    "likelihood": {
        "divergence": "hutchinson",
        "probes": 1,
        "kind": "rademacher",
        "chunk": 64,
        "rtol": 1e-5,
        "atol": 1e-5,
        "t_min": float,
        "method": "dopri5",
        "max_steps": 4096,
        "batch_size": 64,
        "dequantize": True,
        "num_examples": int,
    },
    "evaluate": {"batch_size": 128, "levels": 20},
}


def complete(config: Any) -> Any:
    """The config with every field that exists, defaults filled in; what is misspelt is refused.

    Raises:
      ConfigError: an unknown section, field or name.
    """
    check_fields(config, ["seed", *NAMED, *FIELDS], "")
    full: Any = ConfigDict({"seed": config.get("seed", 0)})
    for section, table in NAMED.items():
        spec = config.get(section, {})
        make = find(table, spec.get("name", next(iter(table))), f"{section}.name")
        defaults = options(make)
        check_fields(spec, ["name", *defaults], section)
        known = {k: _field(v) for k, v in defaults.items() if v is not inspect.Parameter.empty}
        full[section] = ConfigDict({"name": next(iter(table)), **known})
    for section, fields in FIELDS.items():
        check_fields(config.get(section, {}), fields, section)
        full[section] = ConfigDict({key: _field(default) for key, default in fields.items()})
    for section in [*NAMED, *FIELDS]:
        for key, value in config.get(section, {}).items():
            try:
                full[section][key] = value
            except (TypeError, ValueError) as error:
                raise ConfigError(f"config.{section}.{key} = {value!r}: {error}") from error
    return full.lock()


def _field(default: Any) -> Any:
    """A default as a field: None and a type are placeholders, each of its own."""
    if default is None:
        return config_dict.placeholder(object)
    return config_dict.placeholder(default) if isinstance(default, type) else default


def _only_set(section: ConfigDict) -> dict[str, Any]:
    """Entries that have a value; a placeholder leaves the default of whoever takes it."""
    return {key: value for key, value in section.items() if value is not None}


@dataclass(frozen=True)
class Experiment:
    """Everything that a mode needs, frozen.

    Attributes:
      config: complete.
      spec: what one example of the data is.
      scaling: raw data to the model's range and back.
    """

    config: Any
    spec: Spec
    sde: SDE
    net: nets.Net
    precondition: Precondition
    loss: DenoisingLoss
    optimizer: optax.GradientTransformation
    ema: Decay
    solver: Solver
    plan: Plan
    divergence: likelihood.Hutchinson | likelihood.Exact
    scaling: Scaling

    def init(self, key: Array) -> Any:
        """Fresh network parameters."""
        return self.net.init(key, self.spec.shape)

    def bind(self, params: Any, cond: Array | None = None) -> Denoiser:
        """The denoiser of some parameters, for labels ``(B,)`` if the model takes them."""
        return Denoiser(params, self.sde, self.net, self.precondition, cond)

    def prepare(self, raw: Array, key: Array) -> Array:
        """A raw training batch as the model sees it: flipped, dequantised, scaled."""
        key_flip, key_noise = jax.random.split(key)
        if self.config.data.random_flip:
            raw = random_flip(raw, key_flip)
        return self.scaling.encode(raw, key_noise)

    @property
    def objective(self) -> Objective:
        """What a training step minimises."""
        return Objective(self.prepare, self.bind, self.loss, self.config.training.conditional)

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
    net = nets.Net(build(_member(config, "model"), model, "model"))
    try:
        jax.eval_shape(lambda key: net.init(key, spec.shape), jax.random.key(0))
    except ValueError as error:
        raise ConfigError(f"config.model: {error}") from error
    labels = build(find(LABELS, config.denoiser.label, "denoiser.label"), config.denoiser, "denoiser")
    prediction = find(PREDICTIONS, config.denoiser.prediction, "denoiser.prediction")
    levels = config.denoiser.label in ("index", "reverse_index") or config.loss.times == "levels"
    if levels and not hasattr(sde, "steps"):
        raise ConfigError(
            f"config.sde.name = {config.sde.name!r} is continuous: denoiser.label = 'index' or "
            "'reverse_index' and loss.times = 'levels' need 'ddpm' or 'smld'"
        )
    solver = build(
        find(SOLVERS, config.sampling.solver, "sampling.solver"), _only_set(config.sampling), "sampling"
    )
    make_grid = find(GRIDS, config.sampling.grid, "sampling.grid")
    given = {"sde": sde} if "sde" in options(make_grid) else {}
    grid = build(make_grid, config.sampling, "sampling", **given)
    start, end, steps = sde.t_max, config.sampling.t_end, config.sampling.steps
    if not 0 <= end < start:
        raise ConfigError(f"config.sampling.t_end = {end}: must be in [0, {start})")
    try:
        plan = solver.plan(sde, grid(start, end, steps))
    except ValueError as error:
        raise ConfigError(f"config.sampling: {error}") from error
    t_min = config.likelihood.t_min
    if t_min is not None and not 0 < t_min < start:
        raise ConfigError(f"config.likelihood.t_min = {t_min}: must be in (0, {start})")
    divergence = build(
        find(likelihood.DIVERGENCES, config.likelihood.divergence, "likelihood.divergence"),
        config.likelihood,
        "likelihood",
    )
    return Experiment(
        config=config,
        spec=spec,
        sde=sde,
        net=net,
        precondition=Precondition(build(prediction, config.denoiser, "denoiser"), labels),
        loss=DenoisingLoss(
            sde,
            build(find(WEIGHTS, config.loss.weight, "loss.weight"), config.loss, "loss"),
            build(find(TIMES, config.loss.times, "loss.times"), config.loss, "loss"),
            config.loss.half_sum,
        ),
        optimizer=build(_member(config, "optimizer"), config.optimizer, "optimizer"),
        ema=build(_member(config, "ema"), config.ema, "ema"),
        solver=solver,
        plan=plan,
        divergence=divergence,
        scaling=scaling,
    )


def _member(config: Any, section: str) -> Callable[..., Any]:
    return find(NAMED[section], config[section].name, f"{section}.name")


def _check_numbers(config: Any) -> None:
    positive = [
        ("training", ["steps", "batch_size", "steps_per_dispatch", "checkpoint_every_steps"]),
        ("training", ["keep_last", "log_every_steps", "eval_examples", "sample_count"]),
        ("sampling", ["steps", "batch_size"]),
        ("likelihood", ["batch_size", "rtol", "atol", "max_steps"]),
        ("evaluate", ["batch_size", "levels"]),
        ("mesh", ["fsdp"]),
    ]
    natural = [("training", ["keep_every_steps", "eval_every_steps", "sample_every_steps"])]
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
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"config.seed = {config.seed}: must be in [0, 2^32)")
