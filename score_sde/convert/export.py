"""Averaged parameters for others."""

from pathlib import Path
from typing import Any

from score_sde.config import ConfigError
from score_sde.convert import own
from score_sde.experiment import Experiment


def export(path: Path, experiment: Experiment, params: Any, step: int) -> None:
    """Write one ``.safetensors`` file with our names and the config.

    Raises:
      ConfigError: another kind of file.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(f"--output={path}: must end in .safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    own.write(path, experiment, params, step)
