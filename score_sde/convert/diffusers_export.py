"""A model of ours as a folder that ``DDPMPipeline`` or ``ScoreSdeVePipeline`` of diffusers loads."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_sde.architecture import Architecture
from score_sde.arrays import Params
from score_sde.conditions import Json, first_class
from score_sde.convert import safetensors
from score_sde.convert.diffusers import ACTIVATIONS, BLOCKS, FIXED, PREDICTIONS, SCHEDULER, VARIANCES
from score_sde.convert.diffusers_weights import NAME
from score_sde.convert.release import Section
from score_sde.experiment.schema import Config
from score_sde.names import ConfigError
from score_sde.nets.diffusers_names import to_diffusers_names

_DEFAULTS = {"num_train_timesteps": None}


def write(folder: Path, config: Config, architecture: Architecture, params: Params) -> None:
    """Write network, scheduler and index, whole or not at all.

    Raises:
      FileExistsError: the folder exists.
      ConfigError: diffusers has no such network or process, naming the field and its value.
    """
    if folder.exists():
        raise FileExistsError(f"--output={folder}: exists already")
    net = architecture.net
    try:
        tensors = to_diffusers_names(params, net, architecture.spec.shape)
    except ValueError as error:
        raise ConfigError(
            f"--output={folder}: diffusers has no such network: config.model: {error}"
        ) from error
    scheduler = _scheduler(config)
    pipeline = {
        "_class_name": {"DDPMScheduler": "DDPMPipeline"}.get(scheduler["_class_name"], "ScoreSdeVePipeline"),
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "unet": ["diffusers", "UNet2DModel"],
    }
    fresh = folder.with_name(folder.name + ".exporting")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        for name in ("unet", "scheduler"):
            (fresh / name).mkdir(parents=True)
        _write_json(fresh / "unet" / "config.json", _model(config, architecture))
        _write_json(fresh / "scheduler" / SCHEDULER, scheduler)
        _write_json(fresh / "model_index.json", pipeline)
        safetensors.write(fresh / "unet" / f"{NAME}.safetensors", tensors, {"format": "pt"})
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _model(config: Config, architecture: Architecture) -> dict[str, Json]:
    """The ``config.json`` of a network whose names have been found."""
    module: Any = architecture.net.module
    found = first_class(architecture.conditions)
    height, width, channels = architecture.spec.shape
    ddpm = config.model.name == "ddpm"
    downs, ups = BLOCKS["ddpm" if ddpm else "ncsnpp_diffusers"]
    attention = [height // 2**level in module.attn_resolutions for level in range(len(module.ch_mult))]
    activations = {ours: theirs for theirs, ours in ACTIVATIONS.items() if theirs != "swish"}
    if module.nonlinearity not in activations or tuple(module.input_range) not in ((-1, 1), (0, 1)):
        raise ConfigError(
            f"config.model.nonlinearity = {module.nonlinearity!r} or config.model.input_range = "
            f"{module.input_range}: diffusers has no such option"
        )
    groups, heads = getattr(module, "norm_num_groups", 0), getattr(module, "attention_head_dim", 0)
    return {
        **FIXED,
        **_DEFAULTS,
        "_class_name": "UNet2DModel",
        "act_fn": activations[module.nonlinearity],
        "attention_head_dim": heads if heads else None,
        "block_out_channels": [module.nf * multiple for multiple in module.ch_mult],
        "center_input_sample": tuple(module.input_range) == (0, 1),
        "down_block_types": [downs[here] for here in attention],
        "downsample_padding": module.downsample_padding if ddpm else 1,
        "dropout": module.dropout,
        "flip_sin_to_cos": module.flip_sin_to_cos if ddpm else True,
        "freq_shift": _integer(module.freq_shift) if ddpm else 0,
        "in_channels": channels,
        "layers_per_block": module.num_res_blocks,
        "num_class_embeds": None if found is None else found[1].classes,
        "resnet_time_scale_shift": "scale_shift" if getattr(module, "scale_shift", False) else "default",
        "mid_block_scale_factor": 1 if ddpm else math.sqrt(2),
        "norm_eps": getattr(module, "norm_eps", 1e-6),
        "norm_num_groups": groups if groups else None,
        "out_channels": channels,
        "sample_size": height if height == width else [height, width],
        "time_embedding_type": "positional" if ddpm else "fourier",
        "up_block_types": [ups[here] for here in reversed(attention)],
    }


def _integer(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _scheduler(config: Config) -> Section:
    names = {ours: theirs for theirs, ours in VARIANCES.items()}
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    asked = (
        config.model.name == "ddpm",
        config.sde.name,
        config.denoiser.time_input.name,
        config.denoiser.prediction.name,
    )
    sde, solver = config.sde.options, config.sampling.solver.options
    if asked[:3] == (True, "ddpm", "index") and asked[3] in predictions:
        steps = sde["steps"]
        return {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": steps,
            "beta_schedule": "linear",
            "beta_start": sde["beta_min"] / steps,
            "beta_end": sde["beta_max"] / steps,
            "prediction_type": predictions[asked[3]],
            "trained_betas": None,
            "variance_type": names.get(solver.get("predictor", ""), "fixed_small"),
            "clip_sample": True,
        }
    if asked == (False, "ve", "log_sigma", "score"):
        return {
            "_class_name": "ScoreSdeVeScheduler",
            "num_train_timesteps": config.sampling.steps,
            "sigma_min": sde["sigma_min"],
            "sigma_max": sde["sigma_max"],
            "snr": solver.get("snr", 0.15),
            "sampling_eps": config.sampling.t_end,
            "correct_steps": solver.get("corrector_steps", 1),
        }
    raise ConfigError(
        f"config.sde.name = {config.sde.name!r}, denoiser.time_input = {asked[2]!r} and "
        f"denoiser.prediction = {asked[3]!r} for model.name = {config.model.name!r}: "
        "diffusers has 'ddpm' with 'index' for the network 'ddpm', and 've' with 'log_sigma' and 'score' for "
        "NCSN++"
    )
