"""EDM's PyTorch code (NVlabs/edm): DDPM++ with its VP preconditioning and loss."""

import importlib
import sys
from pathlib import Path
from typing import Any


def calls(path: str, config: Any, shape: tuple[int, ...], batch: int, compiled: bool = False) -> Any:
    """Their network evaluation and a training step with it; see ``peers.calls``."""
    model = config.model
    if config.sde.name != "vp" or model.name not in ("ncsnpp", "songunet") or model.fir:
        raise ValueError("only DDPM++ with the VP process is set up")
    if not (Path(path) / "training" / "networks.py").is_file():
        raise ValueError("that is no checkout of edm")
    import torch  # type: ignore[import-not-found]

    from peers import torch_step

    sys.path.insert(0, str(Path(path).resolve()))
    networks, losses = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))
    place = torch_step.device(torch)
    torch.manual_seed(0)
    net = networks.VPPrecond(
        shape[0],
        shape[2],
        model_channels=model.nf,
        channel_mult=list(model.ch_mult),
        num_blocks=model.num_res_blocks,
        attn_resolutions=list(model.attn_resolutions),
        dropout=model.dropout,
    ).to(place)
    theirs = losses.VPLoss()
    images = torch.rand(batch, shape[2], *shape[:2], device=place) * 2 - 1
    sigma = torch.linspace(0.1, 10.0, batch, device=place)
    run = torch.compile(net) if compiled else net
    context = torch_step.precision(torch, model.dtype)

    def evaluate() -> None:
        with torch.no_grad(), context():
            run(images, sigma)
        torch_step.wait(torch)

    train = torch_step.training_step(torch, net, lambda _: theirs(run, images, None).mean(), config)
    return {"network evaluation": evaluate, "training step": train}
