"""The modes of ``run.py``, one function each: ``Options`` to exit status."""

import importlib
from collections.abc import Callable

from score_sde.flags import MODES, Options


def find(mode: str) -> Callable[[Options], int]:
    """The function of a mode; only now is its module imported, for a start takes no longer than it must."""
    module, _, function = MODES[mode].run.partition(".")
    found: Callable[[Options], int] = getattr(importlib.import_module(f"score_sde.modes.{module}"), function)
    return found
