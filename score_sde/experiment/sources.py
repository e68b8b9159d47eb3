"""From a config to the data."""

from score_sde.data import Source
from score_sde.experiment.schema import Config


def open_source(config: Config, split: str) -> Source:
    """The ``train`` or ``test`` split of the configured data.

    Raises:
      ConfigError, FileNotFoundError, ImportError: from the source, naming the field.
    """
    return config.data.source.build(split=split)


def data_name(config: Config) -> str:
    """The data, for messages and reports: where the source reads, or its own name."""
    source = config.data.source
    return str(source.options.get("path") or source.options.get("dataset") or source.name)
