"""A random key is used once: no draw shares its key with another, and a key that is split is not drawn from.

In JAX ``split(key)[i]`` is ``fold_in(key, i)``, so that a function that does both gives two of its draws one
key.  The marginal law of each draw is as it should be; only their dependence tells, which no other test sees.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.codecs import Pixels
from score_sde.conditions import drop
from score_sde.data import Digits, random_flip
from score_sde.denoiser import Estimate
from score_sde.evaluate.batches import encoded_batches
from score_sde.experiment.assemble import architecture_of, loss_of, preparation_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import typed
from score_sde.likelihood.bounds import continuous_bound, discrete_bound
from score_sde.likelihood.ode_density import Fixed, Hutchinson, log_prob
from score_sde.losses import loss_at_level
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import sample, sample_keys
from score_sde.solvers import SOLVERS
from score_sde.tasks.dequantiser import Dequantisation
from score_sde.tasks.diffusion import Diffusion
from score_sde.train import EMAS, OPTIMIZERS, init_state, make_step
from tests.conftest import ROOT

NO_DRAW = {"fold_in", "key_data", "key_impl", "clone", "split"}
DRAWS = [
    name
    for name, function in vars(jax.random).items()
    if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters), "") == "key"
    if name not in NO_DRAW
]
MODEL = {"name": "songunet", "nf": 4, "ch_mult": (1,), "num_res_blocks": 1, "dropout": 0.1}


class Recorder:
    """Keys as bytes, in the order in which the devices meet them."""

    def __init__(self):
        self.drawn, self.split, self.folded = [], [], []

    def watch(self, function, where):
        def watched(key, *args, **kwargs):
            def note(data):
                where.extend(row.tobytes() for row in np.asarray(data).reshape(-1, data.shape[-1]))

            jax.debug.callback(note, jax.random.key_data(key))
            return function(key, *args, **kwargs)

        return watched

    def run(self, function, *args):
        """The value of a compiled function, with its keys noted."""
        for where in (self.drawn, self.split, self.folded):
            where.clear()
        # As little optimisation as there is: it runs once.
        lowered = jax.jit(lambda *given: function(*given)).lower(*args)
        value = lowered.compile({"xla_backend_optimization_level": 0})(*args)
        jax.block_until_ready(value)
        jax.effects_barrier()
        return value

    def check(self, draws):
        """Draws so many, or more, and every key in one way only."""
        assert len(self.drawn) >= draws
        assert len(set(self.drawn)) == len(self.drawn), "two draws with one key"
        assert len(set(self.split)) == len(self.split), "a key split twice"
        assert set(self.drawn).isdisjoint([*self.split, *self.folded]), "drawn from, and parent of others"
        assert set(self.split).isdisjoint(self.folded), "split and folded: these children may be the same"


@pytest.fixture
def keys(monkeypatch):
    recorder = Recorder()
    assert {"bits", "uniform", "normal", "bernoulli", "randint", "rademacher"} <= set(DRAWS)
    for name in DRAWS:
        monkeypatch.setattr(jax.random, name, recorder.watch(getattr(jax.random, name), recorder.drawn))
    monkeypatch.setattr(jax.random, "split", recorder.watch(jax.random.split, recorder.split))
    monkeypatch.setattr(jax.random, "fold_in", recorder.watch(jax.random.fold_in, recorder.folded))
    return recorder


@pytest.fixture(scope="module")
def digits():
    """All that is random: flip, dequantisation, dropout of conditions and in the network, augmentation."""
    config = load_file(str(ROOT / "configs" / "vp_digits.py"))
    with config.ignore_type():
        config.model = MODEL
        config.data.update({"random_flip": True, "augment_probability": 0.5})
        config.conditions = {"names": ("label",), "dropout": 0.5}
    source, config = Digits("train"), typed(config)
    architecture = architecture_of(config, source.spec)
    task = Diffusion(
        architecture, preparation_of(config, architecture), loss_of(config, architecture), monitor=None
    )
    return task, source, jax.jit(architecture.init)(jax.random.key(7))


def example(architecture, parts, batch):
    """A denoiser and clean examples, for what is measured after training."""
    x0 = architecture.codec.middle({}, batch["x"])
    return architecture.bind(parts, {"label": batch["label"]}), x0


@pytest.mark.parametrize("shares", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_first_training_step_and_the_parameters_before_it(keys, digits, shares):
    task, source, _ = digits
    batch = jax.tree.map(jnp.asarray, source.read(np.arange(4)))
    optimizer = OPTIMIZERS["adam"]()
    step, init = make_step(task, optimizer, EMAS["constant"](), 0, shares), init_state(task, optimizer, 0)
    state, _ = keys.run(lambda batch: step(init({}), {}, batch), batch)
    assert int(state.step) == 1
    # Parameters, flip, noise, conditions, augmentation, loss, and dropout of five blocks for each share.
    keys.check(draws=2 + 1 + 1 + 1 + 4 * 7 + 2 + 5 * shares)


def test_one_key_for_two_draws_is_seen(keys, digits):
    """What ``prepare`` did before: noise and dropout met the same key."""
    task, source, _ = digits
    architecture = task.architecture

    def prepare(batch, key):
        key_flip, key_noise = jax.random.split(key)
        x0 = architecture.codec.encode({}, random_flip(batch["x"], key_flip), key_noise)
        return x0, drop(architecture.conditions, batch, {"label": 0.5}, jax.random.fold_in(key, 1))

    keys.run(prepare, source.read(np.arange(4)), jax.random.key(0))
    with pytest.raises(AssertionError):
        keys.check(draws=3)
    keys.run(lambda key: (jax.random.normal(key), jax.random.bits(key, ())), jax.random.key(0))
    with pytest.raises(AssertionError, match="two draws with one key"):
        keys.check(draws=2)


def test_likelihood_and_bounds(keys, digits):
    task, source, parts = digits
    batch, sde = source.read(np.arange(2)), task.architecture.sde

    def measure(parts, own, batch):
        denoise, x0 = example(task.architecture, parts, batch)
        own = [jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(own) for i in range(3)]
        exact = log_prob(own[0], denoise, sde, x0, divergence=Hutchinson(probes=2), integrator=Fixed(steps=2))
        times = np.linspace(0.01, 1.0, 4)
        return (
            exact.nats,
            continuous_bound(own[1], denoise, sde, x0, draws=2).nats,
            discrete_bound(own[2], denoise, sde, x0, times=times, draws=2).nats,
        )

    keys.run(measure, parts, sample_keys(0, jnp.arange(2)), batch)
    keys.check(draws=2 * (2 + 5 + 5))


@pytest.mark.parametrize("name", ["pc", "adaptive_sde"])
def test_one_sample(keys, digits, name):
    task, _, parts = digits
    sde = task.architecture.sde
    options = (
        {"predictor": "ancestral", "corrector": "langevin", "corrector_steps": 2} if name == "pc" else {}
    )
    solver = SOLVERS[name](**options, **({} if options else {"max_steps": 5}))
    plan = solver.plan(sde, np.linspace(1.0, 0.1, 4))

    def draw(parts, own):
        denoise = task.architecture.bind(parts, {"label": jnp.array([1, 2])})
        return sample(own, denoise, sde, solver, plan, shape=(8, 8, 1))

    keys.run(draw, parts, sample_keys(0, jnp.arange(2)))
    keys.check(draws=2 * (1 + 3))


def test_one_training_step_of_a_dequantiser(keys, digits):
    model, source, parts = digits
    batch = jax.tree.map(jnp.asarray, source.read(np.arange(2)))
    task = Dequantisation(model.architecture, parts, width=4, couplings=1, random_flip=True)
    optimizer = OPTIMIZERS["adam"]()
    state = init_state(task, optimizer, 1)(task.frozen())
    keys.run(make_step(task, optimizer, EMAS["constant"](), 0), state, task.frozen(), batch)
    keys.check(draws=1 + 1 + 2)  # flip, noise, bound


class Two:
    """The first examples of a source."""

    def __init__(self, source):
        self.spec, self._batch = source.spec, source.read(np.arange(2))

    def __len__(self):
        return 2

    def read(self, indices):
        return {name: values[indices] for name, values in self._batch.items()}


def test_examples_of_a_set(keys, digits):
    """Draws of the dequantisation noise, and of what is measured of each after it."""
    task, source, _ = digits
    mesh, encoder = make_mesh(devices=jax.devices()[:1]), Pixels(grey_levels=17, dequantize=True)
    for batch in encoded_batches(Two(source), encoder, mesh, batch_size=2, seed=0, draws=2):
        for i, t in enumerate(jnp.array([0.3, 0.5])):
            loss_at_level(lambda x, t: Estimate(x, x), task.architecture.sde, batch.x, batch.keys, i, t)
    jax.effects_barrier()
    keys.check(draws=2 * 2 * (1 + 2))
