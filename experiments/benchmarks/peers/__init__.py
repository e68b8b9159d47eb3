"""Codes of others, set up to be timed beside ours.  Nothing of theirs is here: the user has it.

Each module has ``calls(path, config, shape, batch)``: what can be compared, by the names of ``bench.py``.  A
call does its work once and waits for the result.  What a code has no counterpart for is left out, and what is
not installed or does not fit is an ImportError or a ValueError that says why.
"""

import importlib
from collections.abc import Callable
from typing import Any

Calls = dict[str, Callable[[], Any]]

# By the flag that names the checkout.
PEERS = {
    "official": "the official PyTorch code, score_sde_pytorch",
    "edm": "EDM's PyTorch code",
    "edm-compiled": "the same under torch.compile",
    "diffusers": "the PyTorch library diffusers",
    "hackable": "the JAX library hackable_diffusion",
}


def calls(peer: str, path: str, config: Any, shape: tuple[int, ...], batch: int) -> Calls:
    """The calls of one peer.

    Args:
      peer: a key of ``PEERS``.
      path: its checkout; for an installed library anything.
      config: ours, complete; its sizes replace those of their recipe.
      shape: of one image, ``(H, W, C)``.

    Raises:
      ImportError: it, or what it needs, is not installed.
      ValueError: the config has no counterpart there.
    """
    if len(shape) != 3 or shape[0] != shape[1]:
        raise ValueError("it takes square images")
    module = importlib.import_module(f"peers.{peer.partition('-')[0]}")
    options = {"compiled": True} if peer.endswith("-compiled") else {}
    found: Calls = module.calls(path, config, shape, batch, **options)
    return found
