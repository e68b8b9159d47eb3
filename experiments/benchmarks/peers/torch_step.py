"""The training step of a PyTorch network, for peers whose own one is part of a larger loop."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any


def device(torch: Any) -> Any:
    """Where they run: the first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait(torch: Any) -> None:
    """Return when the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def precision(torch: Any, dtype: str) -> Callable[[], Any]:
    """A context in which matrix products and convolutions have the precision of ours."""
    if dtype == "float32":
        return contextlib.nullcontext
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return lambda: torch.autocast(kind, dtype=torch.bfloat16)


def training_step(torch: Any, net: Any, loss: Callable[[Any], Any], config: Any) -> Callable[[], None]:
    """Loss, gradient, clipping, Adam and moving average, as ours makes them.

    Args:
      net: with its parameters on the device.
      loss: of the network.
    """
    optimizer = torch.optim.Adam(net.parameters(), lr=config.optimizer.learning_rate)
    average = copy.deepcopy(net).requires_grad_(False)
    decay, context = 0.9999, precision(torch, config.model.dtype)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with context():
            value = loss(net)
        value.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
        wait(torch)

    return step
