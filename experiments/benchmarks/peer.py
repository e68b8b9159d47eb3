"""The official PyTorch code, set up to be timed beside ours.  Nothing of it is here: the user has it."""

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Their recipe for each of our processes.
RECIPES = {
    "vp": "configs.vp.cifar10_ddpmpp_continuous",
    "subvp": "configs.subvp.cifar10_ddpmpp_continuous",
    "ve": "configs.ve.cifar10_ncsnpp_continuous",
}
SIZES = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions", "dropout")


def calls(path: str, config: Any, shape: tuple[int, ...], batch: int) -> dict[str, Callable[[], Any]]:
    """Their training step and network evaluation by the names of ours, in float32.

    Args:
      path: the checkout.
      config: ours, complete; its sizes replace those of their recipe.
      shape: of one image, ``(H, W, C)``.

    Raises:
      ImportError: no PyTorch, or nothing to import at ``path``.
      ValueError: a config that has no counterpart there.
    """
    if config.sde.name not in RECIPES or config.model.name != "ncsnpp":
        raise ValueError(f"it has no recipe for {config.sde.name} with {config.model.name}")
    if len(shape) != 3 or shape[0] != shape[1] or config.model.dtype != "float32":
        raise ValueError("it takes square images in float32")
    if not (Path(path) / "sde_lib.py").is_file():
        raise ValueError("that is no checkout of score_sde_pytorch")
    import torch

    sys.path.insert(0, str(Path(path).resolve()))
    _stub_filters(config.model.fir)
    losses, sde_lib = importlib.import_module("losses"), importlib.import_module("sde_lib")
    importlib.import_module("models.ncsnpp")  # enters itself in their table
    models, averages = importlib.import_module("models.utils"), importlib.import_module("models.ema")

    theirs = importlib.import_module(RECIPES[config.sde.name]).get_config()
    for name in SIZES:
        setattr(theirs.model, name, config.model[name])
    theirs.data.image_size, theirs.data.num_channels = shape[0], shape[2]
    sde = {
        "vp": lambda: sde_lib.VPSDE(config.sde.beta_min, config.sde.beta_max, 1000),
        "subvp": lambda: sde_lib.subVPSDE(config.sde.beta_min, config.sde.beta_max, 1000),
        "ve": lambda: sde_lib.VESDE(config.sde.sigma_min, config.sde.sigma_max, 1000),
    }[config.sde.name]()
    torch.manual_seed(0)
    model = models.create_model(theirs)
    state = {
        "model": model,
        "optimizer": losses.get_optimizer(theirs, model.parameters()),
        "ema": averages.ExponentialMovingAverage(model.parameters(), decay=theirs.model.ema_rate),
        "step": 0,
    }
    step = losses.get_step_fn(
        sde,
        train=True,
        optimize_fn=losses.optimization_manager(theirs),
        reduce_mean=theirs.training.reduce_mean,
        continuous=True,
        likelihood_weighting=False,
    )
    images = torch.rand(batch, shape[2], *shape[:2], device=theirs.device)
    times = torch.linspace(0.1, 0.9, batch, device=theirs.device)

    def evaluate() -> None:
        with torch.no_grad():
            models.get_score_fn(sde, model, train=False, continuous=True)(images, times)
        _wait(torch)

    def train() -> None:
        step(state, images)
        _wait(torch)

    return {"network evaluation": evaluate, "training step": train}


def _wait(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _stub_filters(needed: bool) -> None:
    """Their FIR filters compile a CUDA extension when imported; where that fails, do without.

    Raises:
      ImportError: the network needs them.
    """
    try:
        importlib.import_module("op")
    except Exception as error:  # no CUDA toolchain: whatever the build raises
        if needed:
            raise ImportError(f"its FIR filters do not build here: {error}") from error
        stub = types.ModuleType("op")
        stub.upfirdn2d = None  # type: ignore[attr-defined]
        sys.modules["op"] = stub
