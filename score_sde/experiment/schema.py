"""The schema of a config: its sections, their fields and defaults."""

import inspect
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, config_dict

from score_sde import nets
from score_sde.names import ConfigError, check_fields, find, options
from score_sde.sde import SDES
from score_sde.train import EMAS, OPTIMIZERS

# The process whose path samples follow: that of the training, or another at equal log-SNR.
PATHS: dict[str, Callable[..., Any]] = {"trained": lambda: None, **SDES}

# Sections whose entry ``name`` picks a member of a table; the other entries are the member's options.
NAMED: dict[str, dict[str, Callable[..., Any]]] = {
    "sde": SDES,
    "path": PATHS,
    "model": nets.NETS,
    "optimizer": OPTIMIZERS,
    "ema": EMAS,
}

# Options of those members that are not fields: assembling fills them in from elsewhere in the config.
GIVEN = ("batch_size", "conditions")

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
        "center_crop": int,
        "held_out": 0.1,
        "on_error": "raise",
        "grey_levels": int,
        "key": "x",
        "label_key": "label",
        "vector_key": str,
        "channels_last": bool,
        "low": -1.0,
        "high": 1.0,
        "dequantize": False,
        "shift": 0.0,
        "scale": 1.0,
        "random_flip": False,
        "augment_probability": 0.0,
        "placement": "auto",
        "num_workers": 0,
    },
    "denoiser": {"prediction": "noise", "time_input": "time_999", "sigma_data": 0.5},
    "loss": {
        "weight": "noise",
        "times": "low_discrepancy",
        "spread": "low_discrepancy",
        "half_sum": False,
        "sigma_data": 0.5,
        "p_mean": -1.2,
        "p_std": 1.2,
    },
    "training": {
        "steps": 1_300_000,
        "batch_size": 128,
        "steps_per_dispatch": 1,
        "accumulate_steps": 1,
        "checkpoint_every_steps": 10_000,
        "keep_last": 2,
        "keep_every_steps": 50_000,
        "log_every_steps": 50,
        "eval_every_steps": 5_000,
        "eval_examples": 512,
        "sample_every_steps": 50_000,
        "sample_count": 64,
        "best_metric": "held_out_loss",
        "conditional": False,
        "label_dropout": 0.0,
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
        "times_file": str,
        "stop_after_steps": int,
        "keep_every_steps": 0,
        "levels": 0,
        "threshold": "none",
        "threshold_quantile": 0.995,
        "batch_size": 64,
        "denoise": True,
        "predictor": "euler_maruyama",
        "corrector": str,
        "corrector_steps": 1,
        "snr": 0.16,
        "norm": str,
        "noise_scale": 1.0,
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
        "inner": str,
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
        "error_control": "sample",
        "dpm_rtol": 0.05,
        "dpm_atol": 0.0078,
        "dpm_first": 0.05,
        "dpm_control": "sample",
        "controller": "plain",
        "max_steps": 4096,
    },
    "likelihood": {
        "estimates": ("ode",),
        "divergence": "hutchinson",
        "probes": 1,
        "kind": "rademacher",
        "chunk": 64,
        "nodes": 0,
        "integrator": "adaptive",
        "rtol": 1e-5,
        "atol": 1e-5,
        "t_min": float,
        "method": str,
        "error_control": "sample",
        "max_steps": 4096,
        "steps": 128,
        "draws": 1,
        "decoder": "gaussian",
        "times": 32,
        "chain_steps": 1000,
        "chain_draws": int,
        "variance": "small",
        "batch_size": 64,
        "dequantize": True,
        "dequantiser": "uniform",
        "num_examples": int,
    },
    "evaluate": {
        "batch_size": 128,
        "levels": 20,
        "metrics": ("frechet", "kid", "prdc"),
        "features": "pixels",
        "weights": str,
        "resize": "tensorflow",
        "reference": str,
        "split": "train",
        "keep_features": 10_000,
        "bootstrap": 20,
        "kid_subsets": 100,
        "kid_subset_size": 1000,
        "kid_seed": 2020,
        "splits": 10,
        "nearest": 5,
    },
    "dequantiser": {
        "width": 32,
        "couplings": 4,
        "steps": 1000,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "ema": 0.99,
    },
    "codes": {
        "solver": "ode",
        "rtol": 1e-5,
        "atol": 1e-5,
        "method": "dopri5",
        "max_steps": 4096,
        "steps": 100,
        "grid": "log_snr",
        "t_min": float,
        "batch_size": 64,
        "split": "test",
        "num_examples": int,
        "frames": 11,
        "temperature": (1.0,),
    },
    "search": {
        "features": ("network", "pixels"),
        "log_snr": (0.0,),
        "layer": "",
        "cells": 2,
        "draws": 4,
        "file": str,
        "metric": "cosine",
        "nearest": 5,
        "split": "test",
        "num_examples": int,
        "batch_size": 128,
    },
    "outliers": {
        "scores": ("typicality", "likelihood", "complexity"),
        "foreign": ("constant", "noise", "rotated"),
        "num_examples": 300,
    },
    "classifier": {"widths": (32, 64), "steps": 1000, "batch_size": 128, "learning_rate": 2e-3},
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
        defaults = options(make, given=GIVEN)
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
