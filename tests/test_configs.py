"""Every config file and variant builds, has its published size, and trains two shrunk steps."""

import importlib.util
import json

import jax
import numpy as np
import pytest

from score_sde import nets
from score_sde.config import ConfigError, load_file, load_saved, save
from score_sde.data import Batches, Spec
from score_sde.experiment import FIELDS, assemble, complete
from score_sde.mesh import make_mesh
from score_sde.train import compile_step, init_state, make_step
from tests.conftest import ROOT

FILES = sorted((ROOT / "configs").glob("*.py"))


def variants(path):
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "VARIANTS", {"": None})


CASES = [f"{path}:{variant}" for path in FILES for variant in variants(path)]
SPECS = {"digits": Spec((8, 8, 1), 17, 10), "cifar": Spec((32, 32, 3), 256, 10)}


def spec_of(case):
    return SPECS["digits" if "digits" in case else "cifar"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.rsplit("/", 1)[1])
def test_every_config_builds(case):
    config = complete(load_file(case))
    assert assemble(config, spec_of(case)).spec == spec_of(case)


@pytest.mark.parametrize(("name", "count"), [("vp", 61_804_419), ("subvp", 61_804_419), ("ve", 62_758_915)])
def test_published_recipes_have_the_published_size_and_numbers(name, count):
    config = complete(load_file(f"{ROOT}/configs/{name}_cifar.py"))
    experiment = assemble(config, SPECS["cifar"])
    assert nets.parameter_count(jax.eval_shape(experiment.init, jax.random.key(0))) == count
    assert config.training.steps == 1_300_000
    assert config.training.batch_size == 128
    assert config.ema.decay == (0.999 if name == "ve" else 0.9999)
    assert (config.optimizer.learning_rate, config.optimizer.warmup_steps) == (2e-4, 5000)
    assert config.sampling.steps == 1000
    assert config.sampling.t_end == (1e-5 if name == "ve" else 1e-3)
    assert config.loss.half_sum == (name == "ve")


class Random:
    """Raw bytes in the shape of a data set."""

    def __init__(self, spec):
        self.spec = spec

    def __len__(self):
        return 16

    def read(self, indices):
        x = np.random.default_rng(0).integers(0, self.spec.levels, (16, *self.spec.shape), np.uint8)
        return {"x": x[indices], "label": np.zeros(len(indices), np.int32)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_trains_two_shrunk_steps(path):
    config = load_file(str(path))
    config.model.update({"nf": 8, "ch_mult": (1, 1), "num_res_blocks": 1, "attn_resolutions": ()})
    spec = spec_of(str(path))
    experiment = assemble(complete(config), Spec((8, 8, spec.shape[-1]), spec.levels, spec.num_classes))
    mesh = make_mesh(devices=jax.devices()[:1])
    make = init_state(experiment.init, experiment.optimizer, 0)
    step = compile_step(
        make_step(experiment.objective, experiment.optimizer, experiment.ema, 0),
        mesh,
        jax.eval_shape(make),
    )
    state = jax.jit(make)()
    before = jax.device_get(state.params)
    batches = Batches(Random(experiment.spec), batch_size=8, seed=0).from_step(0)
    for _ in range(2):
        state, metrics = step(state, next(batches))
    assert bool(metrics["finite"])
    # At the start the network predicts zero, so the noise error is one (times D/2 where the recipe sums).
    scale = 0.5 * np.prod(experiment.spec.shape) if config.loss.get("half_sum") else 1.0
    assert float(metrics["loss"]) / scale == pytest.approx(1.0, abs=0.2)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, state.params)), strict=True)]
    assert max(moved) > 0


def test_saved_config_is_read_back_as_it_was(tmp_path):
    config = complete(load_file(f"{ROOT}/configs/ve_cifar.py"))
    save(tmp_path, config, spec={"shape": [8, 8, 1]})
    back, extra = load_saved(tmp_path)
    assert complete(back).to_dict() == config.to_dict()
    assert extra == {"spec": {"shape": [8, 8, 1]}}
    assert json.loads((tmp_path / "config.json").read_text())["config"]["model"]["ch_mult"] == [1, 2, 2, 2]


@pytest.mark.parametrize("section", ["sde", "model", "optimizer", "ema", *FIELDS])
def test_a_typo_in_any_section_is_refused(section):
    config = load_file(f"{ROOT}/configs/vp_digits.py")
    spec = config.get(section, type(config)()).to_dict()
    config[section] = type(config)({**spec, "stpes": 3})
    with pytest.raises(ConfigError, match=f"config.{section} has no field 'stpes'"):
        complete(config)


def test_an_unknown_section_is_refused():
    config = load_file(f"{ROOT}/configs/vp_digits.py")
    config.modle = 3
    with pytest.raises(ConfigError, match="no field 'modle'; did you mean 'model'"):
        complete(config)
