"""The official PyTorch code (score_sde_pytorch): its own training step, sampler and likelihood."""

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
SOLVER_STEPS = 10
SIZES = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions", "dropout")


def network(path: str, config: Any, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Their recipe with our sizes, its process and its network, as initialised.

    Raises:
      ImportError: PyTorch, or what they need, is not installed.
      ValueError: the config has no counterpart there.
    """
    if config.sde.name not in RECIPES or config.model.name != "ncsnpp":
        raise ValueError(f"it has no recipe for {config.sde.name} with {config.model.name}")
    if config.model.dtype != "float32":
        raise ValueError("it computes in float32")
    if not (Path(path) / "sde_lib.py").is_file():
        raise ValueError("that is no checkout of score_sde_pytorch")
    import torch  # type: ignore[import-not-found]

    sys.path.insert(0, str(Path(path).resolve()))
    _stub_filters(config.model.fir)
    sde_lib = importlib.import_module("sde_lib")
    importlib.import_module("models.ncsnpp")  # enters itself in their table
    theirs = importlib.import_module(RECIPES[config.sde.name]).get_config()
    for name in SIZES:
        setattr(theirs.model, name, config.model[name])
    theirs.data.image_size, theirs.data.num_channels = shape[0], shape[2]
    kind = {"vp": sde_lib.VPSDE, "subvp": sde_lib.subVPSDE, "ve": sde_lib.VESDE}[config.sde.name]
    torch.manual_seed(0)
    model = importlib.import_module("models.utils").create_model(theirs)
    return theirs, kind(*_constants(config), 1000), model


def calls(path: str, config: Any, shape: tuple[int, ...], batch: int) -> dict[str, Callable[[], Any]]:
    """Their calls by the names of ours, in float32; see ``peers.calls``."""
    theirs, sde, model = network(path, config, shape)
    import torch  # type: ignore[import-not-found]

    losses = importlib.import_module("losses")
    models, averages = importlib.import_module("models.utils"), importlib.import_module("models.ema")
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

    sampling, likelihood = importlib.import_module("sampling"), importlib.import_module("likelihood")
    few = type(sde)(*_constants(config), SOLVER_STEPS)  # their samplers make as many steps as the process has
    draw = sampling.get_pc_sampler(
        few,
        (batch, shape[2], *shape[:2]),
        sampling.EulerMaruyamaPredictor,
        sampling.NoneCorrector,
        lambda x: x,
        snr=0.16,
        continuous=True,
        denoise=True,
        device=theirs.device,
    )
    flow = sampling.get_ode_sampler(
        sde,
        (batch, shape[2], *shape[:2]),
        lambda x: x,
        rtol=1e-5,
        atol=1e-5,
        device=theirs.device,
    )
    bits = likelihood.get_likelihood_fn(
        sde, lambda x: x, rtol=config.likelihood.integrator.rtol, atol=config.likelihood.integrator.atol
    )

    score = models.get_score_fn(sde, model, train=False, continuous=True)
    flowing = sde.reverse(score, probability_flow=True)
    divergence = likelihood.get_div_fn(lambda x, t: flowing.sde(x, t)[0])
    signs = 2.0 * torch.randint_like(images, 0, 2) - 1.0

    def slope_and_divergence() -> None:
        with torch.no_grad():  # as their integration calls it: the divergence asks for gradients by itself
            flowing.sde(images, times)
            divergence(images, times, signs)
        _wait(torch)

    return {
        "network evaluation": evaluate,
        "likelihood, one velocity and divergence": slope_and_divergence,
        "training step": train,
        f"sampling, {SOLVER_STEPS} steps": lambda: draw(model),
        "sampling, ODE": lambda: flow(model),
        "likelihood, whole": lambda: bits(model, images),
    }


def _constants(config: Any) -> tuple[float, float]:
    if config.sde.name == "ve":
        return config.sde.sigma_min, config.sde.sigma_max
    return config.sde.beta_min, config.sde.beta_max


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
