"""The PyTorch library diffusers: its ``UNet2DModel`` of the sizes of our DDPM."""

import sys
from typing import Any


def calls(path: str, config: Any, shape: tuple[int, ...], batch: int) -> Any:
    """Its network evaluation and a training step on noise prediction; see ``peers.calls``."""
    model = config.model
    if model.name not in ("ddpm", "ncsnpp"):
        raise ValueError(f"no counterpart of {model.name} is set up")
    sys.path.insert(0, path)
    import torch  # type: ignore[import-not-found]
    from diffusers import UNet2DModel  # type: ignore[import-not-found]

    from peers import torch_step

    place, sizes = torch_step.device(torch), [shape[0] // 2**i for i in range(len(model.ch_mult))]
    attends = [size in model.attn_resolutions for size in sizes]
    torch.manual_seed(0)
    net = UNet2DModel(
        sample_size=shape[0],
        in_channels=shape[2],
        out_channels=shape[2],
        layers_per_block=model.num_res_blocks,
        block_out_channels=[model.nf * multiple for multiple in model.ch_mult],
        down_block_types=["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        up_block_types=["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        norm_num_groups=min(32, model.nf // 4),
    ).to(place)
    x = torch.randn(batch, shape[2], *shape[:2], device=place)
    times, target = torch.linspace(1.0, 998.0, batch, device=place), torch.randn_like(x)
    context = torch_step.precision(torch, model.dtype)

    def evaluate() -> None:
        with torch.no_grad(), context():
            net(x, times)
        torch_step.wait(torch)

    def loss(net: Any) -> Any:
        return torch.nn.functional.mse_loss(net(x, times).sample, target)

    step = torch_step.training_step(torch, net, loss, config)
    return {"network evaluation": evaluate, "training step": step}
