"""What can be trained, each a task of one trainer.  To add one: a class as of ``base.Task``, and a line in
``TASKS``.

A task is constructed with its options, the fields of ``config.task``, and of the following what it asks for:
``architecture``, ``preparation`` (raw batches to examples), ``objective`` (the loss of ``config.loss``) and
``monitor`` (what is measured).
"""

from typing import Any

from score_sde.tasks.base import Task
from score_sde.tasks.diffusion import Diffusion
from score_sde.tasks.imputation import Imputation
from score_sde.tasks.noisy_classifier import NoisyClassification

GIVEN = ("architecture", "preparation", "objective", "monitor")
"""Arguments of tasks that are no options."""

TASKS: dict[str, type[Task[Any]]] = {
    "diffusion": Diffusion,
    "noisy_classifier": NoisyClassification,
    "imputation": Imputation,
}
