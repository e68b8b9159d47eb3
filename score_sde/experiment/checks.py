"""Numbers of a config that make no sense by themselves, whatever they belong to."""

import math
from typing import Any

from score_sde.names import ConfigError


def check_numbers(config: Any) -> None:
    """Refuse counts, sizes and the seed where they are out of range.

    Raises:
      ConfigError: names the field, its value and what is allowed.
    """
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
