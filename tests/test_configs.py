"""Every config file and variant builds, has its published size, and trains two shrunk steps."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest

from score_sde.architecture import Architecture
from score_sde.conditions import labelled
from score_sde.data import Batches, Spec
from score_sde.data.columns import Column
from score_sde.evaluate.extractors import Pixels
from score_sde.experiment.assemble import (
    architecture_of,
    average_of,
    density_of,
    inversion_of,
    loss_of,
    optimizer_of,
    preparation_of,
    sampler_of,
    task_of,
)
from score_sde.experiment.files import load_file, load_saved, save
from score_sde.experiment.schema import Config, changed, complete, override, typed
from score_sde.names import ConfigError
from score_sde.runtime.mesh import make_mesh
from score_sde.train import compile_step, init_state, make_step
from tests.conftest import ROOT
from tests.test_recipes import TABLE

FILES = sorted((ROOT / "configs").glob("*.py"))


def variants(path):
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "VARIANTS", {"": None})


CASES = [f"{path}:{variant}" for path in FILES for variant in variants(path)]


COLUMNS = (Column("a", 1.0, 2.0), Column("b", categories=("x", "y", "z")))


def spec_of(case):
    if "digits" in case:
        return Spec((8, 8, 1), 17, labelled(10))
    if "fashion" in case:
        return Spec((28, 28, 1), 256, labelled(10))
    if "table" in case:
        return Spec((2,), None, columns=COLUMNS)
    if "series" in case:
        return Spec((48, 2), None, columns=(Column("a"), Column("b", 2.0, 3.0)))
    size = typed(load_file(case)).data.source.options.get("size") or 32
    return Spec((size, size, 3), 256, labelled(10))


OFFICIAL = {f"{ROOT}/configs/{name}" for name in TABLE.values()}  # built in test_recipes.py
OWN = [case for case in CASES if case.removesuffix(":") not in OFFICIAL]


def test_no_file_sets_what_nothing_reads():
    for case in CASES:
        override(load_file(case), {}, written=True)


def without_network(config, spec):
    """The architecture of a config, but for what takes seconds to build."""
    known = dict(spec.conditions)
    conditions = tuple((name, known[name]) for name in config.conditions.names)
    codec = config.codec.build(grey_levels=spec.grey_levels, columns=spec.columns)
    return Architecture(spec, codec, conditions, config.sde.build(), net=None, precondition=None)


@pytest.mark.parametrize("case", CASES, ids=[c.rsplit("/", 1)[1] for c in CASES])
def test_every_variant_is_complete_and_all_but_its_network_builds(case):
    config = typed(load_file(case))
    assert typed(complete(load_file(case))) == config
    model = without_network(config, spec_of(case))
    sde, preparation = model.sde, preparation_of(config, model)
    task = task_of(config, model, Pixels())
    assert (task.architecture, task.preparation, task.objective) == (
        model,
        preparation,
        loss_of(config, model),
    )
    assert preparation.dropout == config.conditions.dropout
    assert sampler_of(config, model).plan.start == sde.t_max
    assert density_of(config, model).t_min >= sde.t_min
    assert inversion_of(config, model)[1] >= sde.t_min
    assert optimizer_of(config).init({}) is not None
    assert average_of(config)(np.int32(0)) <= 1
    assert config.model.build(conditions=())


def test_sampling_does_not_ask_whether_the_likelihood_is_possible():
    config = changed(typed(load_file(f"{ROOT}/configs/vp_digits.py")), {"likelihood.t_min": 3.0})
    model = without_network(config, Spec((8, 8, 1), 17, labelled(10)))
    assert sampler_of(config, model).plan.start == 1.0
    with pytest.raises(ConfigError, match=r"config.likelihood.t_min = 3.0: must be in \(0, 1.0\)"):
        density_of(config, model)


# Networks of full size take seconds to build; these differ from one that is built in a field or two.
LARGE = (
    *("edm_cifar.py:cond", "edm_cifar.py:ncsnpp_cond", "flow_cifar.py:cond", "_cifar.py:ml_deep"),
    "_cifar.py:class_conditional",
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if c.endswith(LARGE) else []) for c in OWN],
    ids=[c.rsplit("/", 1)[1] for c in OWN],
)
def test_every_config_of_our_own_builds(case):
    assert architecture_of(typed(load_file(case)), spec_of(case)).spec == spec_of(case)


def test_attention_where_no_feature_map_has_that_size_is_refused():
    config = typed(load_file(str(ROOT / "configs" / "vp_digits.py")))
    spec = spec_of("digits")
    with pytest.raises(ConfigError, match=r"attn_resolutions=\(4, 5\): .* of the feature maps, 8, 4$"):
        architecture_of(changed(config, {"model.attn_resolutions": (4, 5)}), spec)
    assert architecture_of(changed(config, {"model.attn_resolutions": (8, 4)}), spec)


class Random:
    """Raw bytes in the shape of a data set."""

    def __init__(self, spec):
        self.spec = spec

    def __len__(self):
        return 16

    def read(self, indices):
        rng = np.random.default_rng(0)
        if self.spec.columns:
            columns = [
                rng.integers(0, c.width, (16, *self.spec.shape[:-1]))
                if c.categories
                else c.mean + c.std * rng.standard_normal((16, *self.spec.shape[:-1]))
                for c in self.spec.columns
            ]
            return {"x": np.stack(columns, axis=-1).astype(np.float32)[indices]}
        x = rng.integers(0, self.spec.grey_levels, (16, *self.spec.shape), np.uint8)
        return {"x": x[indices], "label": np.zeros(len(indices), np.int32)}


@pytest.mark.slow  # each takes half a minute; tests/cli trains vp_digits
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_config_trains_two_shrunk_steps(path):
    config = load_file(str(path))
    width = 32 if config.model.name == "ddpm" else 8  # it normalises in 32 groups
    spec = spec_of(str(path))
    if not spec.columns:
        config.model.update({"nf": width, "ch_mult": (1, 1), "num_res_blocks": 1, "attn_resolutions": ()})
        spec = Spec((8, 8, spec.shape[-1]), spec.grey_levels, spec.conditions)
    config = typed(config)
    task = task_of(config, architecture_of(config, spec), Pixels())
    mesh = make_mesh(devices=jax.devices()[:1])
    optimizer = optimizer_of(config)
    make = init_state(task, optimizer, 0)
    step = compile_step(
        make_step(task, optimizer, average_of(config), 0), mesh, jax.eval_shape(make, {}), frozen={}
    )
    state = jax.jit(make)({})
    before = jax.device_get(state.params)
    batches = Batches(Random(spec), batch_size=8, seed=0).from_step(0)
    for _ in range(2):
        state, metrics = step(state, {}, next(batches))
    assert bool(metrics["finite"])
    # At the start the network predicts zero, so the error is the target's square: one for the noise, a third
    # more for a velocity, which has the data in it (times D/2 where the recipe sums).
    scale = 0.5 * np.prod(spec.shape) if config.loss.half_sum else 1.0
    scale *= 4 / 3 if config.loss.weight.name == "velocity" else 1.0
    # Of a table a few rows may have nothing hidden, hence no loss.
    assert float(metrics["loss"]) / scale == pytest.approx(1.0, abs=0.9 if spec.columns else 0.2)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, state.params)), strict=True)]
    assert max(moved) > 0


def test_saved_config_is_read_back_as_it_was(tmp_path):
    config = complete(load_file(f"{ROOT}/configs/ve_cifar.py"))
    save(tmp_path, config.to_dict(), spec={"shape": [8, 8, 1]})
    back, extra = load_saved(tmp_path)
    assert complete(back).to_dict() == config.to_dict()
    assert extra == {"spec": {"shape": [8, 8, 1]}}
    assert json.loads((tmp_path / "config.json").read_text())["config"]["model"]["ch_mult"] == [1, 2, 2, 2]


@pytest.mark.parametrize("section", [f.name for f in dataclasses.fields(Config) if f.name != "seed"])
def test_a_typo_in_any_section_is_refused(section):
    config = load_file(f"{ROOT}/configs/vp_digits.py")
    spec = config.get(section, type(config)()).to_dict()
    config[section] = type(config)({**spec, "stpes": 3})
    with pytest.raises(ConfigError, match=rf"config.{section}( has no field|.stpes: .* no option) 'stpes'"):
        complete(config)


def test_an_unknown_section_is_refused():
    config = load_file(f"{ROOT}/configs/vp_digits.py")
    config.modle = 3
    with pytest.raises(ConfigError, match="no field 'modle'; did you mean 'model'"):
        complete(config)


@pytest.mark.parametrize(
    ("integrator", "default", "named"), [("adaptive", "dopri5", "tsit5"), ("fixed", "adams", "rk4")]
)
def test_an_integrator_has_a_method_of_its_own_and_takes_another(integrator, default, named):
    config = load_file(f"{ROOT}/configs/vp_digits.py")
    config.likelihood.integrator = {"name": integrator}
    assert typed(config).likelihood.integrator.build().method == default
    config.likelihood.integrator.method = named
    assert typed(config).likelihood.integrator.build().method == named
