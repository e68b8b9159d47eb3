"""A source with two conditions, from its file to samples: nothing between them knows what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditions import Chosen, Condition, labelled
from score_sde.data import ArrayFile, Batches
from score_sde.experiment.assemble import architecture_of, loss_of, preparation_of, sampler_of
from score_sde.experiment.schema import typed
from score_sde.names import ConfigError
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import generate
from score_sde.tasks.diffusion import Diffusion
from score_sde.train import EMAS, OPTIMIZERS, init_state, make_step

CONFIG = {
    "data": {"source": {"name": "array", "vector_key": "v"}},
    "codec": {"name": "pixels", "dequantize": True},
    "model": {"name": "ddpm", "nf": 4, "ch_mult": (1,), "num_res_blocks": 1, "norm_num_groups": 2},
    "conditions": {"names": ("label", "vector"), "dropout": 0.1},
    "sampling": {"solver": "ddim", "steps": 2},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "two.npz"
    random = np.random.default_rng(0)
    x = random.integers(0, 17, (12, 8, 8, 1)).astype(np.uint8)
    np.savez(path, x=x, label=np.arange(12) % 3, v=random.normal(size=(12, 2)))
    return ArrayFile("train", path, held_out=0, grey_levels=17, vector_key="v")


def test_a_source_yields_exactly_the_fields_of_its_spec(source):
    assert source.spec.conditions == (*labelled(3), ("vector", Condition("vector", (2,))))
    for placement in ("device", "stream"):
        batch = next(Batches(source, batch_size=5, seed=0, placement=placement).from_step(0))
        got = {name: (values.shape[1:], values.dtype) for name, values in batch.items()}
        assert got == source.spec.fields


def test_two_conditions_train_and_sample(source):
    config = typed(CONFIG)
    architecture = architecture_of(config, source.spec)
    assert architecture.conditions == architecture.net.conditions == source.spec.conditions
    mesh = make_mesh(devices=jax.devices()[:1])
    task = Diffusion(
        architecture, preparation_of(config, architecture), loss_of(config, architecture), monitor=None
    )
    optimizer = OPTIMIZERS["adam"](learning_rate=1e-2, warmup_steps=0)
    step = jax.jit(make_step(task, optimizer, EMAS["constant"](), 0))
    first = jax.jit(init_state(task, optimizer, 0))({})
    state = first
    for batch in [next(Batches(source, batch_size=8, seed=0).from_step(i)) for i in range(3)]:
        state, metrics = step(state, {}, batch)
    assert bool(metrics["finite"])
    for name, _ in source.spec.conditions:  # both have a say in the loss
        kernels = [parts["net"][name]["kernel"] for parts in (state.params, first.params)]
        assert jnp.abs(kernels[0] - kernels[1]).max() > 1e-4

    sampler = sampler_of(config, architecture)
    draw = sampler.compile(mesh)

    def drawn(**values):
        chosen = Chosen.fixed(architecture.conditions, values)
        options = {"seed": 0, "num_samples": 4, "batch_size": 4, "chosen": chosen}
        return next(generate(draw, state.params, sampler.plan, mesh, **options))

    one, other, vector = drawn(label=1), drawn(label=2), drawn(label=1, vector=[3.0, -3.0])
    turns = drawn()
    np.testing.assert_array_equal(turns[1], one[1])  # sample i has class i % 3
    np.testing.assert_array_equal(turns[2], other[2])
    assert np.abs(one - other).max() > 1e-4 and np.abs(one - vector).max() > 1e-4


def test_networks_and_data_without_conditions_are_refused(source):
    config = CONFIG | {"model": {"name": "ncsnv2_64", "nf": 4}}
    with pytest.raises(ConfigError, match="'ncsnv2_64': takes no condition 'label'"):
        architecture_of(typed(config), source.spec)
    with pytest.raises(ConfigError, match="the data have no condition 'label'; they have none"):
        architecture_of(typed(CONFIG), type(source.spec)((8, 8, 1), 17))


def test_a_field_of_vectors_must_be_there(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2), np.uint8), v=np.zeros(4))
    with pytest.raises(
        ValueError, match=r"no array 'w' inside, only \['x', 'v'\]; set data.source.vector_key"
    ):
        ArrayFile("train", tmp_path / "a.npz", vector_key="w")
    with pytest.raises(
        ValueError, match=r"vectors \(data.source.vector_key = 'v'\) have shape \(4,\), expected"
    ):
        ArrayFile("train", tmp_path / "a.npz", vector_key="v")


@pytest.mark.slow
def test_conditions_that_the_network_does_not_take_are_left_out(source):
    """Those of the data, and those of other data than the model's own, as an imported model is given them."""
    config = typed(CONFIG | {"conditions": {"names": ("vector",)}})
    architecture = architecture_of(config, source.spec)
    fresh = architecture.init(jax.random.key(0))  # its last layers are zero
    parts = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape), fresh)
    x, t = jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.array([0.3, 0.6])
    vector = jnp.ones((2, 2))
    own = architecture.bind(parts, {"vector": vector})(x, t).x0
    more = {"vector": vector, "label": jnp.array([0, 1]), "other": jnp.zeros((2, 5))}
    np.testing.assert_array_equal(architecture.bind(parts, more)(x, t).x0, own)
    assert jnp.abs(architecture.bind(parts, {})(x, t).x0 - own).max() > 1e-6  # what it takes is kept
