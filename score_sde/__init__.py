"""Score-based generative modelling through stochastic differential equations, in JAX.

>>> import score_sde
>>> model = score_sde.load("runs/digits")
>>> pictures = model.sample(16)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from score_sde.runs.model import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> object:
    """``load`` and ``Model``, imported when they are first used: the command line starts without JAX."""
    if name in ("load", "Model"):
        from score_sde.runs import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
