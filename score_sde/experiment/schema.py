"""The config: its sections, and the ways to fill it in, to change it and to make it typed.

``complete`` fills a ConfigDict in, ``typed`` makes it into a ``Config``, which everything else sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax
from ml_collections import ConfigDict, config_dict

from score_sde.codecs import CODECS, Codec
from score_sde.experiment import sections
from score_sde.experiment.fields import Choice, checked, choice, section
from score_sde.experiment.measure_sections import (
    ClassifierSection,
    DequantiserSection,
    EditSection,
    Evaluate,
    Inversion,
    Likelihood,
    Outliers,
    Search,
)
from score_sde.experiment.run_sections import (
    Conditions,
    Data,
    DenoiserSection,
    Loss,
    Mesh,
    Sampling,
    Training,
)
from score_sde.nets import NETS
from score_sde.sde import SDE, SDES
from score_sde.tasks import GIVEN, TASKS
from score_sde.tasks.base import Task
from score_sde.train import EMAS, OPTIMIZERS
from score_sde.train.ema import Decay


@dataclass(frozen=True)
class Config:
    """A whole config."""

    seed: int = checked(
        0,
        "in [0, 2^32)",
        lambda x: 0 <= x < 2**32,
        "root of all randomness of a run: initial parameters, data order, training noise, and samples "
        "unless `--seed` says otherwise",
    )
    data: Data = section(Data)
    codec: Choice[Codec] = choice(
        CODECS, "pixels", "data to the model's range and back", given=("grey_levels", "columns")
    )
    sde: Choice[SDE] = choice(SDES, "vp", "the forward process")
    model: Choice[Any] = choice(NETS, None, "the network", given=("conditions",))
    denoiser: DenoiserSection = section(DenoiserSection)
    conditions: Conditions = section(Conditions)
    task: Choice[Task] = choice(TASKS, None, "what training fits", given=GIVEN)
    loss: Loss = section(Loss)
    optimizer: Choice[optax.GradientTransformation] = choice(
        OPTIMIZERS, "adam", "the optimizer", given=("batch_size",)
    )
    ema: Choice[Decay] = choice(EMAS, "constant", "the moving average", given=("batch_size",))
    training: Training = section(Training)
    mesh: Mesh = section(Mesh)
    sampling: Sampling = section(Sampling)
    likelihood: Likelihood = section(Likelihood)
    evaluate: Evaluate = section(Evaluate)
    inversion: Inversion = section(Inversion)
    edit: EditSection = section(EditSection)
    search: Search = section(Search)
    outliers: Outliers = section(Outliers)
    classifier: ClassifierSection = section(ClassifierSection)
    dequantiser: DequantiserSection = section(DequantiserSection)


Given = ConfigDict | Mapping[str, Any]


def _plain(config: Given) -> Mapping[str, Any]:
    return config.to_dict() if isinstance(config, ConfigDict) else config


def complete(config: Given) -> ConfigDict:
    """The config with every field that exists, defaults filled in, locked.

    Raises:
      ConfigError: an unknown section, field or name, or a value of another type or range.
    """
    full = ConfigDict(_with_placeholders(sections.fill(Config, _plain(config))))
    return full.lock()


def _with_placeholders(tree: Mapping[str, Any]) -> dict[str, Any]:
    """None as a field that may get a value."""
    return {
        key: _with_placeholders(entry)
        if isinstance(entry, Mapping)
        else config_dict.placeholder(object)
        if entry is None
        else entry
        for key, entry in tree.items()
    }


def typed(config: Given) -> Config:
    """The typed config of a ConfigDict, complete or not.

    Raises:
      ConfigError: as ``complete``; also fields of a section that contradict each other.
    """
    return sections.typed(Config, _plain(config))


def changed(config: Config, changes: Mapping[str, object]) -> Config:
    """The config with some fields changed, ``{"sampling.solver": "heun", "sampling.solver.s_churn": 40.0}``.

    Naming a member resets its options.

    Raises:
      ConfigError: as ``typed``.
    """
    return typed(sections.change(Config, sections.as_tree(config), changes))


def override(config: Given, words: Mapping[str, str], *, written: bool = False) -> Config:
    """The typed config after changes by words of the command line, ``{"sampling.solver": "heun"}``.

    Args:
      written: the config is what somebody has written, and not a whole one that was saved.

    Raises:
      ConfigError: as ``changed``; also a field that is set and that nothing reads, as another field of its
        section says.
    """
    plain = _plain(config)
    tree = sections.fill(Config, plain)
    if written:  # before the changes: they may switch off what the file had reason to set
        sections.check_read(Config, tree, sections.leaves(plain))
    tree = sections.change(Config, tree, words, words=True)
    sections.check_read(Config, tree, list(words))
    return sections.typed(Config, tree)
