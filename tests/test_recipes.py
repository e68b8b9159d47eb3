"""Every official config, as docs/recipes.md names it, has the official numbers and the official size."""

import gzip
import json
import re

import pytest

from score_sde import nets
from score_sde.data import Spec
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import typed
from tests.conftest import DATA, ROOT

OFFICIAL = json.loads(gzip.decompress((DATA / "official_configs.json.gz").read_bytes()))
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "recipes.md").read_text().splitlines()
    if re.match(r"\| (vp|subvp|ve)/", line)
]
TABLE = {row[0]: row[1].strip("`") for row in ROWS}
COUNTS = {row[0]: int(next(cell for cell in row[2:] if "," in cell).replace(",", "")) for row in ROWS}
TIME_INPUTS = {"vpsde": "time_999", "subvpsde": "time_999", "vesde": "log_sigma"}
PREDICTORS = {"ancestral_sampling": "ancestral"}


def load(official):
    return typed(load_file(f"{ROOT}/configs/{TABLE[official]}"))


def test_the_table_names_all_39():
    assert sorted(TABLE) == sorted(OFFICIAL) and len(TABLE) == 39
    assert len(set(TABLE.values())) == 39


@pytest.mark.parametrize("name", sorted(OFFICIAL))
def test_numbers_are_the_official_ones(name):
    official, ours = OFFICIAL[name]["config"], load(name)
    training, sampling, data = official["training"], official["sampling"], official["data"]
    model, optim = official["model"], official["optim"]
    kind = training.get("sde") or training["loss"]
    # One file misspells the field that makes it discrete; the number of levels says what was meant.
    discrete = training.get("continuouse") is False or not training["continuous"]
    levels = model["num_scales"]
    sde, network, solver = ours.sde.options, ours.model.options, ours.sampling.solver.options

    assert ours.sde.name == {"vpsde": "ddpm" if discrete else "vp", "subvpsde": "subvp"}.get(
        kind, "smld" if discrete else "ve"
    )
    if kind == "vesde":
        assert (sde["sigma_min"], sde["sigma_max"]) == (model["sigma_min"], model["sigma_max"])
    else:
        assert (sde["beta_min"], sde["beta_max"]) == (model["beta_min"], model["beta_max"])
    if discrete:
        assert sde["steps"] == levels
        assert ours.loss.times.name == "levels"
        assert ours.denoiser.time_input.name == ("reverse_index" if kind == "vesde" else "index")
    else:
        assert ours.denoiser.time_input.name == TIME_INPUTS[kind]
    assert ours.denoiser.prediction.name == (
        "noise" if kind != "vesde" else "score" if model["scale_by_sigma"] else "raw_score"
    )
    assert ours.loss.half_sum == (not training["reduce_mean"])
    assert ours.loss.weight.name == "noise" and not training["likelihood_weighting"]

    assert ours.training.steps == training["n_iters"] - 1
    assert ours.training.batch_size == training["batch_size"]
    assert ours.optimizer.options["learning_rate"] == optim["lr"]
    assert ours.optimizer.options["warmup_steps"] == optim["warmup"]
    assert ours.optimizer.options["clip_norm"] == max(optim["grad_clip"], 0.0)
    assert (ours.optimizer.options["beta1"], ours.optimizer.options["epsilon"]) == (
        optim["beta1"],
        optim["eps"],
    )
    assert (ours.ema.name, ours.ema.options["decay"]) == ("constant", model["ema_rate"])

    assert ours.codec.options["low"] == (-1.0 if data["centered"] else 0.0)
    assert ours.codec.options["high"] == 1.0
    assert ours.data.random_flip == data["random_flip"]
    assert ours.codec.options["dequantize"] == data["uniform_dequantization"]
    assert (ours.data.source.options.get("size") or 32) == data["image_size"]
    assert network.get("input_range") == ((-1.0, 1.0) if data["centered"] else (0.0, 1.0))

    assert solver["predictor"] == PREDICTORS.get(sampling["predictor"], sampling["predictor"])
    assert solver["corrector"] == sampling["corrector"]
    if solver["corrector"] != "none":
        assert solver["corrector_steps"] == sampling["n_steps_each"]
        assert solver["snr"] == sampling["snr"]
    own_levels = (
        discrete and ours.sampling.solver.name == "pc"
    )  # the last evaluation is Tweedie's, at level 0
    assert ours.sampling.steps == levels - own_levels
    if own_levels:
        assert ours.sampling.t_end == 0.0
    else:
        assert ours.sampling.t_end == (1e-5 if kind == "vesde" else 1e-3)

    for field in ("nf", "ch_mult", "num_res_blocks", "attn_resolutions", "resamp_with_conv"):
        if field in model and field in network and model["name"] in ("ncsnpp", "ddpm"):
            value = model[field]
            assert network[field] == (tuple(value) if isinstance(value, list) else value), field
    if "conditional" in model and "noise_conditional" in network:
        assert network["noise_conditional"] == model["conditional"]
    fields = ("fir", "skip_rescale", "resblock_type", "progressive", "progressive_input", "embedding_type")
    for field in fields if model["name"] == "ncsnpp" else ():
        assert network[field] == model[field], field
    if "dropout" in network:
        assert network["dropout"] == model["dropout"]


# One of each family by default; the others differ in sizes.
FAMILIES = (
    "subvp/cifar10_ddpm_continuous",
    "vp/cifar10_ddpmpp_deep_continuous",
    "ve/cifar10_ncsnpp_continuous",
    "ve/ffhq_ncsnpp_continuous",
    "ve/ncsn/celeba",
    "ve/ncsnv2/celeba",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FAMILIES else pytest.mark.slow) for n in sorted(OFFICIAL)]
)
def test_networks_have_the_official_size(name):
    size = OFFICIAL[name]["config"]["data"]["image_size"]
    architecture = architecture_of(load(name), Spec((size, size, 3), 256))
    count = nets.parameter_count(architecture.net.shapes(architecture.state_shape))
    assert count == COUNTS[name]
    if OFFICIAL[name]["params"] is not None:
        assert count == OFFICIAL[name]["params"]
