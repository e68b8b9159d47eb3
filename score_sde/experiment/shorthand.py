"""Short forms of config fields on the command line: ``--task=inpaint`` for ``--config.edit.task=inpaint``."""

import re
from collections.abc import Mapping

SHORT: Mapping[str, Mapping[str, str]] = {
    "task": {"edit.task": "{}"},
    "mask": {"edit.task.mask": "{}"},
    "factor": {"edit.task.factor": "{}"},
    "strength": {"edit.task.strength": "{}"},
    "margin": {"edit.task.margin": "{}"},
    "kernel": {"edit.task.kernel": "{}"},
    "measured": {"edit.measured": "{}"},
    "fit": {"edit.fit": "{}"},
    "guidance": {"sampling.guidance": "classifier_free", "sampling.guidance.scale": "{}"},
}


def long_forms(word: str) -> list[str]:
    """The words that a short form stands for; any other word by itself."""
    match = re.fullmatch(r"--?(\w+)=(.*)", word, re.DOTALL)
    if match is None or match[1] not in SHORT:
        return [word]
    return [f"--config.{path}={value.format(match[2])}" for path, value in SHORT[match[1]].items()]
