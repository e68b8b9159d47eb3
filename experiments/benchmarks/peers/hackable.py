"""The JAX library hackable_diffusion: its ``Unet`` of the same sizes, under optax as ours."""

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax


def calls(path: str, config: Any, shape: tuple[int, ...], batch: int) -> Any:
    """Its network evaluation and a training step on noise prediction; see ``peers.calls``."""
    model = config.model
    if model.name not in ("ddpm", "ncsnpp"):
        raise ValueError(f"no counterpart of {model.name} is set up")
    if not (Path(path) / "hackable_diffusion" / "lib").is_dir():
        raise ValueError("that is no checkout of hackable_diffusion")
    sys.path.insert(0, str(Path(path).resolve()))
    lib = "hackable_diffusion.lib.architecture"
    unet, typing = (importlib.import_module(f"{lib}.{name}") for name in ("unet", "arch_typing"))
    levels = len(model.ch_mult)
    attends = [shape[0] // 2**i in model.attn_resolutions for i in range(levels)]
    net = unet.Unet(
        base_channels=model.nf,
        channels_multiplier=list(model.ch_mult),
        num_residual_blocks=[model.num_res_blocks] * levels,
        downsample_method=typing.DownsampleType.AVG_POOL,
        upsample_method=typing.UpsampleType.NEAREST,
        dropout_rate=[model.dropout] * levels,
        bottleneck_dropout_rate=model.dropout,
        self_attention_bool=attends,
        cross_attention_bool=[False] * levels,
        attention_num_heads=1,
        attention_head_dim=typing.INVALID_INT,
        attention_normalize_qk=False,
        attention_use_rope=False,
        attention_rope_position_type=typing.RoPEPositionType.SQUARE,
        normalization_type=typing.NormalizationType.GROUP_NORM,
        normalization_num_groups=min(32, model.nf // 4),
        activation="silu",
        skip_connection_method=typing.SkipConnectionMethod.NORMALIZED_ADD,
        dtype=jnp.dtype(model.dtype),
    )
    x = jax.random.normal(jax.random.key(0), (batch, *shape))
    embedding = {typing.ConditioningMechanism.ADAPTIVE_NORM: jnp.ones((batch, 4 * model.nf))}
    start = jax.jit(lambda key: net.init(key, x, embedding, is_training=False))(jax.random.key(0))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-4))

    @jax.jit
    def forward(params: Any, x: Any) -> Any:
        return net.apply(params, x, embedding, is_training=False)

    def loss(params: Any, key: Any) -> Any:
        noise = jax.random.normal(key, x.shape)
        output = net.apply(params, x + noise, embedding, is_training=True, rngs={"dropout": key})
        return jnp.mean((output - noise) ** 2)

    @jax.jit
    def update(params: Any, average: Any, state: Any, key: Any) -> Any:
        gradient = jax.grad(loss)(params, key)
        changes, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, changes)
        average = jax.tree.map(lambda e, p: e + 1e-4 * (p - e), average, params)
        return params, average, state, jax.random.split(key)[0]

    latest = [(start, start, optimizer.init(start), jax.random.key(1))]

    def train() -> None:
        latest[0] = jax.block_until_ready(update(*latest[0]))

    return {"network evaluation": lambda: jax.block_until_ready(forward(start, x)), "training step": train}
