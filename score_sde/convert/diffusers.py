"""Folders of the library diffusers: ``UNet2DModel`` networks, both ways.

A folder has ``config.json`` and the weights, itself or in ``unet/``; beside them
``scheduler/scheduler_config.json`` says which process the network was trained for.  Two kinds of network are
ours too: the U-Net of DDPM, which predicts noise at the level of an index, and NCSN++ of ``Skip`` blocks,
which is given ``log sigma`` and predicts the score times sigma.
"""

import json
import warnings
from pathlib import Path

from score_sde.conditions import Json, labelled
from score_sde.convert import diffusers_weights
from score_sde.convert.errors import CheckpointError
from score_sde.convert.release import Release, Section
from score_sde.convert.whole import head_of
from score_sde.data import Spec
from score_sde.nets.diffusers_names import from_diffusers_names

SCHEDULER = "scheduler_config.json"
_CODECS = {"vae", "vqvae", "vqmodel", "movq"}  # in a pipeline: it is one of latents
_CLIPPING = {"DDPMScheduler", "DDIMScheduler"}  # cut x0 to the range of the data unless told otherwise
# Their names on the way down at a level without and with attention, and the mirror image on the way up.
BLOCKS = {
    "ddpm": (("DownBlock2D", "AttnDownBlock2D"), ("UpBlock2D", "AttnUpBlock2D")),
    "ncsnpp_diffusers": (
        ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
        ("SkipUpBlock2D", "AttnSkipUpBlock2D"),
    ),
}
# Another one acts there in the blocks alone, and not on the embedding and the output.
ACTIVATIONS = {"silu": "swish", "swish": "swish"}
SCALE_SHIFT = {"default": False, "scale_shift": True}
VARIANCES = {"fixed_small": "ancestral", "fixed_large": "ancestral_large"}
PREDICTIONS = {"epsilon": "noise", "v_prediction": "v", "sample": "x0"}
# Fields of theirs that ours have no counterpart for, with the one value that can be read.
FIXED: dict[str, Json] = {
    "class_embed_type": None,
    "time_embedding_dim": None,
    "mid_block_type": "UNetMidBlock2D",
    "attn_norm_num_groups": None,
    "add_attention": True,
    "downsample_type": "conv",
    "upsample_type": "conv",
}


def read(path: Path) -> Release:
    """A folder as data.

    Args:
      path: of the folder, of the folder of the network in it (``unet``, ``unet_ema``), or of a file of
        weights in that, to choose one of several.

    Raises:
      CheckpointError: files are missing, or the network or the process is none of ours; does not name the
        folder.
    """
    folder = (path if path.is_dir() else path.parent).resolve()  # "." has a parent too
    _refuse_latents(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    about = _json(unet / "config.json")
    file = diffusers_weights.choose(unet) if path.is_dir() else path
    model = model_of(about)
    tensors = diffusers_weights.read(file)
    _warn_of_average(folder, unet)
    size, channels = about.get("sample_size"), about["in_channels"]
    classes = about.get("num_class_embeds") or 0
    if size is None:
        raise CheckpointError("config.json has no sample_size, the size of the images")
    height, width = (size, size) if isinstance(size, int) else size
    places = (folder / "scheduler", folder, folder.parent / "scheduler")
    scheduler = next((place / SCHEDULER for place in places if (place / SCHEDULER).is_file()), None)
    # Attention is placed by level there and by resolution here.
    names = about["down_block_types"]
    attention = tuple(height // 2**level for level, name in enumerate(names) if name.startswith("Attn"))
    return Release(
        what=f"a diffusers {'DDPM' if model['name'] == 'ddpm' else 'NCSN++'} folder",
        rename=from_diffusers_names,
        average=tensors,
        config={
            "model": {**model, "attn_resolutions": attention},
            **process_of(_json(scheduler) if scheduler else {}, model["name"]),
            "conditions": {"names": tuple(dict(labelled(classes)))},
        },
        spec=Spec((height, width, channels), 256, labelled(classes)),
    )


def _refuse_latents(folder: Path) -> None:
    """Refuse a network whose pictures are the codes of another one beside it."""
    for place in (folder, folder.parent if folder.name.startswith("unet") else folder):
        index = place / "model_index.json"
        parts = {entry.name for entry in place.iterdir() if entry.is_dir()}
        parts |= set(_json(index)) if index.is_file() else set()
        found = sorted(parts & _CODECS)
        if found:
            raise CheckpointError(
                f"{place.name}/ is a pipeline with {found[0]}/: its network makes codes that {found[0]} "
                "turns into pictures; only networks of pictures can be read"
            )


def _warn_of_average(folder: Path, unet: Path) -> None:
    """Say of an average beside the network that is read."""
    other = folder / "unet_ema"
    if unet.name == "unet" and other.is_dir():
        warnings.warn(
            f"{other} holds averaged weights, and {unet} is read; --checkpoint={other} reads the others",
            stacklevel=2,
        )


def _json(path: Path) -> Section:
    if not path.is_file() and not path.is_symlink():
        there = ", ".join(sorted(entry.name for entry in path.parent.iterdir())) or "nothing"
        raise CheckpointError(
            f"no {path.name} in {path.parent.name}/: not a folder of diffusers, or not the whole of it; it "
            f"holds {there}"
        )
    head_of(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path.name} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} is damaged: it is no dictionary")
    return value


def model_of(about: Section) -> Section:
    """Section ``model`` of the config, without ``attn_resolutions``, of a ``config.json``.

    Raises:
      CheckpointError: a network that is none of ours, naming the field and its value.
    """
    kind = about.get("_class_name")
    if kind != "UNet2DModel":
        raise CheckpointError(f"config.json: _class_name = {kind!r}; only 'UNet2DModel' can be read")
    for field in ("in_channels", "out_channels", "block_out_channels", "down_block_types", "up_block_types"):
        if not about.get(field):
            raise CheckpointError(f"config.json: {field} = {about.get(field)!r}: damaged")
    for field, value in FIXED.items():
        if about.get(field, value) != value:
            raise CheckpointError(f"config.json: {field} = {about[field]!r}; only {value!r} can be read")
    down, up = about["down_block_types"], about["up_block_types"]
    name = next((name for name in BLOCKS if list(up) == _mirrored(down, *BLOCKS[name])), None)
    if name is None:
        raise CheckpointError(f"config.json: down_block_types = {down} and up_block_types = {up}: not ours")
    widths = about["block_out_channels"]
    act = about.get("act_fn", "silu")
    if any(width % widths[0] for width in widths) or act not in ACTIVATIONS:
        raise CheckpointError(f"config.json: block_out_channels = {widths} or act_fn = {act!r}: not ours")
    if about["in_channels"] != about["out_channels"]:
        raise CheckpointError("config.json: in_channels and out_channels differ: not ours")
    common = {
        "name": name,
        "nf": widths[0],
        "ch_mult": tuple(width // widths[0] for width in widths),
        "num_res_blocks": about.get("layers_per_block", 2),
        "dropout": about.get("dropout", 0.0),
        "nonlinearity": ACTIVATIONS[act],
        "norm_eps": about.get("norm_eps", 1e-5),
        "norm_num_groups": about.get("norm_num_groups", 32) or 0,
        "attention_head_dim": about.get("attention_head_dim", 8) or 0,
        "input_range": (0.0, 1.0) if about.get("center_input_sample") else (-1.0, 1.0),
    }
    embedding, scale = about.get("time_embedding_type", "positional"), about.get("mid_block_scale_factor", 1)
    if (embedding, round(float(scale) ** 2, 3)) != (("positional", 1) if name == "ddpm" else ("fourier", 2)):
        raise CheckpointError(
            f"config.json: time_embedding_type = {embedding!r} and mid_block_scale_factor = {scale} with "
            f"{down[0]}: not ours"
        )
    shift = about.get("resnet_time_scale_shift", "default")
    if shift not in SCALE_SHIFT or (name != "ddpm" and SCALE_SHIFT[shift]):
        raise CheckpointError(f"config.json: resnet_time_scale_shift = {shift!r} with {down[0]}: not ours")
    if name != "ddpm":
        return common
    return common | {
        "scale_shift": SCALE_SHIFT[shift],
        "up_attention": "block",
        "downsample_padding": about.get("downsample_padding", 1),
        "flip_sin_to_cos": about.get("flip_sin_to_cos", True),
        "freq_shift": float(about.get("freq_shift", 0)),
    }


def _mirrored(down: list[str], downs: tuple[str, ...], ups: tuple[str, ...]) -> list[str] | None:
    """The way up that belongs to a way down; None if it is of another kind."""
    return [ups[downs.index(block)] for block in reversed(down)] if set(down) <= set(downs) else None


def process_of(scheduler: Section, model: str) -> dict[str, Section]:
    """The sections of the config that a ``scheduler_config.json`` determines.

    Without one, the levels are those of the kind's first publication.

    Raises:
      CheckpointError: a process that is none of ours, naming the field and its value.
    """
    if model == "ncsnpp_diffusers":
        return _variance_exploding(scheduler)
    schedule, betas = scheduler.get("beta_schedule", "linear"), scheduler.get("trained_betas")
    prediction = scheduler.get("prediction_type", "epsilon")
    if schedule != "linear" or betas is not None or scheduler.get("rescale_betas_zero_snr"):
        raise CheckpointError(f"{SCHEDULER}: beta_schedule = {schedule!r}; only plain 'linear' can be read")
    if prediction not in PREDICTIONS:
        raise CheckpointError(f"{SCHEDULER}: prediction_type = {prediction!r} is not one of {[*PREDICTIONS]}")
    steps = scheduler.get("num_train_timesteps", 1000)
    return {
        "data": {"source": "folder"},
        "sde": {
            "name": "ddpm",
            "steps": steps,
            "beta_min": round(scheduler.get("beta_start", 1e-4) * steps, 12),
            "beta_max": round(scheduler.get("beta_end", 0.02) * steps, 12),
        },
        "denoiser": {"prediction": PREDICTIONS[prediction], "time_input": "index"},
        "loss": {"weight": "noise", "times": "levels"},
        # From level to level, and from the last to the data.
        "sampling": {
            "solver": {
                "name": "pc",
                "predictor": VARIANCES.get(scheduler.get("variance_type", "fixed_small"), "ancestral"),
            },
            "steps": steps - 1,
            "t_end": 0.0,
            "batch_size": 16,
            **_threshold(scheduler),
        },
    }


def _variance_exploding(scheduler: Section) -> dict[str, Section]:
    """``process_of`` NCSN++."""
    steps = scheduler.get("num_train_timesteps", 2000)
    return {
        "data": {"source": "folder"},
        "codec": {"low": 0.0, "high": 1.0},
        "sde": {
            "name": "ve",
            "sigma_min": float(scheduler.get("sigma_min", 0.01)),
            "sigma_max": float(scheduler.get("sigma_max", 1348.0)),
        },
        "denoiser": {"prediction": "score", "time_input": "log_sigma"},
        "loss": {"weight": "noise", "half_sum": True},
        "sampling": {
            "solver": {
                "name": "pc",
                "predictor": "reverse_diffusion",
                "corrector": "langevin",
                "snr": float(scheduler.get("snr", 0.15)),
            },
            "steps": steps,
            "t_end": 1e-5,
            "batch_size": 16,
        },
    }


def _threshold(scheduler: Section) -> Section:
    """What cuts x0 in every step.  Ancestral steps move by ``x`` and ``x0``, so the noise does not count."""
    clips = scheduler.get("clip_sample", scheduler.get("_class_name") in _CLIPPING)
    reach = scheduler.get("clip_sample_range", 1.0)
    if clips and reach != 1.0:
        raise CheckpointError(f"{SCHEDULER}: clip_sample_range = {reach!r}; only 1.0 can be read")
    return {"threshold": "static"} if clips else {}
