"""Folders of diffusers, both ways (see tests/data/nets/README.md for the recording)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import convert
from score_sde.conditions import labelled
from score_sde.convert import CheckpointError, diffusers, safetensors
from score_sde.convert.export import export
from score_sde.data import Spec
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.schema import typed
from score_sde.names import ConfigError
from tests.convert.torch_writer import Tensor, save_zip

RECORDED = np.load(Path(__file__).parents[1] / "data/nets/diffusers_ddpm.npz")
# As diffusers 0.42.1 wrote it beside the recorded network.
CONFIG = json.loads("""{
  "_class_name": "UNet2DModel", "_diffusers_version": "0.42.1", "act_fn": "silu", "add_attention": true,
  "attention_head_dim": null, "attn_norm_num_groups": null, "block_out_channels": [16, 32, 32, 32],
  "center_input_sample": false, "class_embed_type": null,
  "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
  "downsample_padding": 0, "downsample_type": "conv", "dropout": 0.0, "flip_sin_to_cos": false,
  "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
  "mid_block_type": "UNetMidBlock2D", "norm_eps": 1e-06, "norm_num_groups": 8, "num_class_embeds": null,
  "num_train_timesteps": null, "out_channels": 3, "resnet_time_scale_shift": "default", "sample_size": 32,
  "time_embedding_dim": null, "time_embedding_type": "positional",
  "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"], "upsample_type": "conv"
}""")
SCHEDULER = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
# google/ncsnpp-church-256, the fields that differ from the above.
NCSNPP = {
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 128, 256, 256, 256, 256, 256],
    "center_input_sample": True,
    "down_block_types": [*["SkipDownBlock2D"] * 4, "AttnSkipDownBlock2D", *["SkipDownBlock2D"] * 2],
    "up_block_types": [*["SkipUpBlock2D"] * 2, "AttnSkipUpBlock2D", *["SkipUpBlock2D"] * 4],
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1.41421356237,
    "norm_eps": 1e-6,
    "norm_num_groups": None,
    "sample_size": 256,
    "time_embedding_type": "fourier",
}
VE = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 380, "snr": 0.075, "num_train_timesteps": 2000}


@pytest.fixture(scope="module")
def tensors():
    """The recorded weights, rounded to eight bits."""
    shapes = [tuple(json.loads(shape)) for shape in RECORDED["shapes"]]
    values = np.split(RECORDED["values"], np.cumsum([np.prod(s, dtype=int) for s in shapes])[:-1])
    rows = zip(RECORDED["names"], shapes, RECORDED["scales"], values, strict=True)
    return {str(name): (v * scale).reshape(shape).astype(np.float32) for name, shape, scale, v in rows}


def folder(path, tensors, config=CONFIG, scheduler=SCHEDULER, pipeline=True):
    unet = path / "unet" if pipeline else path
    (path / "scheduler").mkdir(parents=True)
    unet.mkdir(exist_ok=True)
    (unet / "config.json").write_text(json.dumps(config))
    if scheduler is not None:
        (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    if tensors is not None:
        safetensors.write(unet / "diffusion_pytorch_model.safetensors", tensors, {"format": "pt"})
    return path


@pytest.fixture(scope="module")
def model(tensors, tmp_path_factory):
    return convert.load(folder(tmp_path_factory.mktemp("diffusers") / "ddpm", tensors))


def test_the_recorded_network(model):
    """Rounding the weights moves the output by 2.5 %; the smallest wrong option moves it by 9 %."""
    e = model.architecture
    assert e.spec.shape == (32, 32, 3)
    assert np.allclose(e.sde.betas, np.linspace(1e-4, 0.02, 1000), rtol=1e-12)
    steps = jnp.asarray(RECORDED["t"], jnp.float32)
    row = e.precondition(e.sde, steps / 999)
    np.testing.assert_allclose(row.c_noise, steps, rtol=1e-6)
    x = jnp.moveaxis(jnp.asarray(RECORDED["x"]), 1, -1)
    params = model.state.ema["net"]
    run = jax.jit(e.net).lower(params, x, row.c_noise)
    got = run.compile({"xla_backend_optimization_level": 0})(params, x, row.c_noise)
    for one, want in zip(np.moveaxis(np.asarray(got), -1, 1), RECORDED["out"], strict=True):
        assert np.sqrt(np.mean((one - want) ** 2) / np.mean(want**2)) < 0.04


def test_the_sampler_visits_the_levels(model):
    """At most one level apart, from the last to level 0: the network never sees a label between two."""
    e, sampling = model.architecture, model.config.sampling
    grid = np.linspace(1.0, sampling.t_end, sampling.steps + 1)
    labels = np.asarray(e.precondition.time_input(e.sde, grid))
    np.testing.assert_allclose(labels, np.arange(999, -1, -1), atol=1e-9)


def test_classes_there_and_back(tmp_path):
    """Shapes alone; tests/nets/test_options.py has the outputs."""
    names = {"model": {"name": "ddpm", "nf": 16, "ch_mult": (1, 2), "num_res_blocks": 1, "scale_shift": True}}
    names["model"] |= {"attn_resolutions": (4,), "up_attention": "block", "norm_num_groups": 8}
    config = {**names, "conditions": {"names": ("label",)}, "sde": {"name": "ddpm"}}
    config |= {"denoiser": {"prediction": "noise", "time_input": "index"}, "loss": {"times": "levels"}}
    config = typed(config)
    architecture = architecture_of(config, Spec((8, 8, 3), 256, labelled(5)))
    shapes = architecture.net.shapes((8, 8, 3))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    export(tmp_path / "out", config, architecture, {"net": params}, 0)
    written = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
    assert (written["num_class_embeds"], written["resnet_time_scale_shift"]) == (5, "scale_shift")
    tensors, _ = safetensors.read(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert tensors["class_embedding.weight"].shape == (5, 64)
    again = convert.load(tmp_path / "out")
    assert again.architecture.net == architecture.net
    assert again.architecture.spec.conditions == labelled(5)
    assert again.config.conditions.names == ("label",)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again.state.ema["net"], params)))


def test_a_bare_folder_with_weights_of_torch(tensors, model, tmp_path):
    path = folder(tmp_path / "bare", None, scheduler=None, pipeline=False)
    save_zip(path / "diffusion_pytorch_model.bin", {name: Tensor.of(a) for name, a in tensors.items()})
    other = convert.load(path)
    assert other.architecture.sde == model.architecture.sde
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, other.state.ema, model.state.ema)))


def test_an_export_is_what_diffusers_wrote(tensors, model, tmp_path):
    export(tmp_path / "out", model.config, model.architecture, model.state.ema, 0)
    written = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
    assert written == {key: value for key, value in CONFIG.items() if key != "_diffusers_version"}
    scheduler = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert SCHEDULER.items() <= scheduler.items()
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["_class_name"] == "DDPMPipeline"
    back, metadata = safetensors.read(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert metadata == {"format": "pt"}
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)
    with pytest.raises(FileExistsError, match="exists already"):
        export(tmp_path / "out", model.config, model.architecture, model.state.ema, 0)


def test_ncsnpp_there_and_back(tmp_path):
    """The config of the released network for 256 pixels, on shapes alone."""
    model = diffusers.model_of(NCSNPP)
    config = typed(
        {
            "model": {**model, "attn_resolutions": (16,), "nf": 32},
            **diffusers.process_of(VE, model["name"]),
        }
    )
    assert (config.sde.options["sigma_max"], config.sampling.steps) == (380.0, 2000)
    assert config.sampling.solver.options["snr"] == 0.075
    assert (config.codec.options["low"], config.codec.options["high"]) == (0.0, 1.0)
    assert config.denoiser.time_input.name == "log_sigma"
    architecture = architecture_of(config, Spec((64, 64, 3), 256))
    shapes = architecture.net.shapes((64, 64, 3))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    export(tmp_path / "out", config, architecture, {"net": zeros}, 0)
    written = json.loads((tmp_path / "out" / "unet" / "config.json").read_text())
    small = {"block_out_channels": [n // 4 for n in NCSNPP["block_out_channels"]], "sample_size": 64}
    # Attention at 16 pixels: in this smaller image two levels further up.
    names = {"down_block_types", "up_block_types", "mid_block_scale_factor"}
    for key, value in {**NCSNPP, **small}.items():
        assert key in names or written[key] == value
    assert written["mid_block_scale_factor"] == pytest.approx(NCSNPP["mid_block_scale_factor"])
    assert written["down_block_types"].index("AttnSkipDownBlock2D") == 2
    scheduler = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert VE.items() <= scheduler.items()
    again = typed(convert.read(tmp_path / "out").config)
    for section in ("model", "sde", "denoiser", "loss"):
        assert getattr(again, section) == getattr(config, section)


@pytest.mark.parametrize(
    ("config", "scheduler", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, {}, "_class_name = 'UNet2DConditionModel'"),
        ({"class_embed_type": "timestep"}, {}, "class_embed_type = 'timestep'"),
        ({"mid_block_type": None}, {}, "mid_block_type = None"),
        ({"time_embedding_dim": 64}, {}, "time_embedding_dim = 64"),
        ({"resnet_time_scale_shift": "ada_group"}, {}, "resnet_time_scale_shift = 'ada_group'"),
        ({"up_block_types": ["UpBlock2D"] * 4}, {}, "up_block_types"),
        ({"block_out_channels": [16, 24, 32, 32]}, {}, "block_out_channels"),
        ({"out_channels": 6}, {}, "out_channels"),
        ({"act_fn": "relu"}, {}, "act_fn = 'relu'"),
        ({"block_out_channels": []}, {}, r"block_out_channels = \[\]: damaged"),
        ({"block_out_channels": [0] * 4}, {}, "damaged or foreign"),
        ({"sample_size": "x"}, {}, "damaged or foreign"),
        ({"sample_size": 10**9}, {}, "the size of its images = 1000000000: must be at most 16384"),
        ({"sample_size": -8}, {}, "the size of its images = -8: .* at least 1"),
        ({"block_out_channels": [10**12] * 4}, {}, r"model.nf = 10{12}: must be at most 64, the widest"),
        ({"layers_per_block": 10**9}, {}, "model.num_res_blocks = 10{9}: must be at most .*number of its"),
        ({}, {"num_train_timesteps": 10**12}, "sde.steps = 10{12}: must be at most 1000000"),
        ({"time_embedding_type": "fourier"}, {}, "time_embedding_type = 'fourier'"),
        ({"sample_size": None}, {}, "sample_size"),
        ({}, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule = 'squaredcos_cap_v2'"),
        ({}, {"prediction_type": "flow"}, "prediction_type = 'flow'"),
        (
            {"block_out_channels": [16, 32, 32, 64]},
            {},
            r"does not fit the config: down_blocks.3.resnets.0.conv1.bias: got \[32\], want \[64\]",
        ),
    ],
)
def test_what_is_not_ours_is_named(config, scheduler, message, tensors, tmp_path):
    path = folder(tmp_path / "x", tensors, CONFIG | config, SCHEDULER | scheduler)
    with pytest.raises(CheckpointError, match=message) as error:
        convert.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("scheduler", "threshold"),
    [
        ({}, "static"),  # DDPMScheduler clips unless told otherwise
        ({"clip_sample": False}, "none"),
        ({"_class_name": "PNDMScheduler"}, "none"),
        ({"_class_name": "DDIMScheduler", "clip_sample": True}, "static"),
    ],
)
def test_a_scheduler_that_clips_is_a_threshold(scheduler, threshold, tmp_path):
    release = diffusers.read(
        folder(tmp_path / "x", {"a": np.zeros(1, np.float32)}, CONFIG, SCHEDULER | scheduler)
    )
    assert typed(release.config).sampling.threshold.name == threshold


def test_the_range_that_a_scheduler_clips_to_is_that_of_the_data(tmp_path):
    scheduler = SCHEDULER | {"clip_sample": True, "clip_sample_range": 2.0}
    with pytest.raises(CheckpointError, match=r"clip_sample_range = 2.0; only 1.0 can be read"):
        diffusers.read(folder(tmp_path / "x", {"a": np.zeros(1, np.float32)}, CONFIG, scheduler))


def test_incomplete_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config.json in empty/"):
        convert.read(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"no weights in unet/"):
        convert.read(folder(tmp_path / "x", None))


def test_models_that_diffusers_does_not_have(tmp_path):
    spec = Spec((8, 8, 1), 256)
    config = typed({"model": {"name": "ncsnpp", "nf": 4, "ch_mult": (1,), "attn_resolutions": ()}})
    architecture = architecture_of(config, spec)
    with pytest.raises(ConfigError, match="diffusers has no such network: config.model"):
        export(tmp_path / "out", config, architecture, {"net": {}}, 0)
    model = {"name": "ddpm", "nf": 4, "ch_mult": (1,), "norm_num_groups": 2, "up_attention": "block"}
    config = typed({"model": model, "sde": {"name": "subvp"}})
    architecture = architecture_of(config, spec)
    parts = architecture.init(jax.random.key(0))
    with pytest.raises(ConfigError, match=r"config.sde.name = 'subvp'.*diffusers has 'ddpm'"):
        export(tmp_path / "out", config, architecture, parts, 0)
    with pytest.raises(ConfigError, match="must end in .safetensors"):
        export(tmp_path / "out.onnx", config, architecture, parts, 0)
    assert list(tmp_path.iterdir()) == []
