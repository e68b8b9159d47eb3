"""Averaged parameters for others."""

from pathlib import Path
from typing import Any

from score_sde.convert import diffusers_export, own
from score_sde.experiment.assemble import Experiment
from score_sde.names import ConfigError


def export(path: Path, experiment: Experiment, params: Any, step: int) -> None:
    """Write one ``.safetensors`` file with our names and the config, or a folder of diffusers.

    Raises:
      ConfigError: another kind of file, or a model that diffusers does not have.
      FileExistsError: the folder exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        own.write(path, experiment, params, step)
    elif path.suffix == "":
        diffusers_export.write(path, experiment, params)
    else:
        raise ConfigError(f"--output={path}: must end in .safetensors, or be a directory for diffusers")
