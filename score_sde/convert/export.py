"""Averaged parameters for others."""

from dataclasses import asdict, replace
from pathlib import Path

from score_sde.architecture import Architecture
from score_sde.arrays import Parts
from score_sde.convert import diffusers_export, own
from score_sde.experiment.schema import Config
from score_sde.names import ConfigError


def export(path: Path, config: Config, architecture: Architecture, parts: Parts, step: int) -> None:
    """Write one ``.safetensors`` file with our names and the config, or a folder of diffusers.

    Args:
      architecture: with its process given, so that a learned one is in the config as it was found.

    Raises:
      ConfigError: another kind of file, or a model that diffusers does not have.
      FileExistsError: the folder exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    config = replace(config, sde=config.sde.but(**asdict(architecture.sde)))
    if path.suffix == ".safetensors":
        own.write(path, config, architecture, parts["net"], step)
    elif path.suffix == "":
        diffusers_export.write(path, config, architecture, parts["net"])
    else:
        raise ConfigError(f"--output={path}: must end in .safetensors, or be a directory for diffusers")
