"""From a file to scores, samples, bits/dim and training steps: the official code's (tests/data/README.md).

Every case is a network of a few thousand parameters drawn by a rule. It is written as an official checkpoint,
imported into a workdir, and restored from there as every mode does.
"""

import functools
import gzip
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import cli, convert
from score_sde.convert import recipes
from score_sde.convert.load import _specs
from score_sde.convert.recipes import is_of, of_kind
from score_sde.convert.release import Release
from score_sde.denoiser import score_from
from score_sde.evaluate.extractors import Pixels
from score_sde.experiment.assemble import average_of, optimizer_of, task_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import changed, typed
from score_sde.flags import parse
from score_sde.likelihood.ode_density import Adaptive, Hutchinson, bits_per_dim, log_prob
from score_sde.losses import Drawn
from score_sde.modes.run import model_of, workdir_of
from score_sde.nets.official import from_torch_names
from score_sde.runtime.mesh import make_mesh
from score_sde.tasks.diffusion import Diffusion, Noisy
from score_sde.train import Checkpoints
from score_sde.train.step import init_state, make_step
from tests.conftest import DATA, ROOT
from tests.convert.test_score_sde import checkpoint
from tests.convert.torch_writer import save_zip
from tests.recipe import normals, state_dict, uniforms

RECIPES = json.loads(gzip.decompress((DATA / "imported.json.gz").read_bytes()))
SMALL = ["model.nf=8", "model.ch_mult=(1,2)", "model.num_res_blocks=1", "model.attn_resolutions=(4,)"]
PC = ["sampling.solver=legacy_pc", "sampling.steps=12"]
VE = ["sampling.solver.predictor=reverse_diffusion", "sampling.solver.corrector=langevin"]
CASES = {
    "vp": ("vp_cifar.py", [*SMALL, *PC, "sampling.solver.predictor=euler_maruyama"]),
    "subvp": ("subvp_cifar.py", [*SMALL, *PC, "sampling.solver.predictor=euler_maruyama"]),
    "ve": ("ve_cifar.py", [*SMALL, *PC, *VE]),
    "ddpm": (
        "vp_cifar.py:ddpm_discrete",
        [
            *(*SMALL, "model.nf=32", "sde.steps=50", *PC, "sampling.solver.predictor=ancestral"),
            *("sampling.steps=50", "sampling.t_end=0.001"),
        ],
    ),
    "smld": ("ve_cifar.py:ncsnpp_discrete", [*SMALL, "sde.steps=12", *PC, *VE, "sampling.t_end=1e-5"]),
    "ncsnv2": (
        "ve_cifar.py:ncsnv2",
        ["model.nf=8", "sde.steps=12", "sampling.steps=12", "sampling.solver.corrector_steps=2"],
    ),
}
# The official code integrates the ODE of the continuous process whatever a network was trained on.
CONTINUOUS = {"ddpm": ["sde.name=vp", "denoiser.time_input=time_999"]}
# Bits/dim from a time on, since a random network divided by sigma is stiff before it; our tolerance; the
# largest differences of bits and, relative, of latents: theirs, at a tolerance of 1e-5, err by as much.
LIKELIHOODS = {
    "ve": (0.01, 1e-5, 2e-3, 2e-3),
    "vp": (0.3, 1e-6, 2e-3, 1e-2),
    "ddpm": (0.3, 1e-7, 1e-2, 1e-2),  # at 1e-6 ours err by 5e-3 too
}
WITH_ODE = ("vp", "ve", "ddpm")
FAST = {"xla_backend_optimization_level": 0}  # each program runs once: compile it cheaply


def slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def words(options):
    return [f"--config.{option}" for option in options]


def drawn(tag, suffix="", **changes):
    """The tensors of a recipe; under another suffix, others of the same law."""
    recipe = RECIPES[tag]
    table = [[name + suffix, shape, mean, std] for name, shape, mean, std in recipe["table"]]
    if changes:
        table = [[name, shape, changes["mean"], changes["std"]] for name, shape, *_ in table]
    return {name.removesuffix(suffix): array for name, array in state_dict(recipe["seed"], table).items()}


@functools.cache
def workdir(tag, base):
    """A workdir of the recorded weights: they are the average, and the parameters are others."""
    file, options = CASES[tag]
    average = drawn(tag)
    raw = {name: 0.5 * array if name != "all_modules.0.W" else array for name, array in average.items()}
    path = save_zip(base / f"{tag}.pth", checkpoint(raw, average, step=7, untrained=["all_modules.0.W"]))
    to = base / tag
    arguments = ["run.py", "--mode=import", f"--checkpoint={path}", f"--workdir={to}"]
    arguments += [f"--config={ROOT / 'configs' / file}", *words([*options, "data.source.size=8"])]
    assert cli.run(parse(arguments, "usage")) == 0
    return to


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("imported")


@pytest.fixture(scope="module")
def recorded():
    with np.load(DATA / "imported.npz") as file:
        return {name: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for name, a in file.items()}


def restored(tag, base, *more):
    """What a mode has in hand."""
    return model_of(
        parse(["run.py", "--mode=sample", f"--workdir={workdir(tag, base)}", *words(more)], "usage")
    )


def run(function, *args):
    return np.asarray(jax.jit(function).lower(*args).compile(FAST)(*args))


def close(got, want, tolerance):
    for one, other in zip(got, want, strict=True):
        assert np.abs(one - other).max() < tolerance * np.abs(other).max()


def outside(model, x):
    """In [0, 1], as the official samplers return them."""
    codec = model.architecture.codec
    return (x - codec.low) / (codec.high - codec.low)


@pytest.mark.parametrize("tag", slow(CASES))
def test_score(tag, base, recorded):
    model = restored(tag, base)
    e = model.architecture
    x, t = (jnp.asarray(recorded[f"{tag}/{name}"]) for name in ("x", "t"))
    got = run(lambda p, x: score_from(e.sde, e.bind(p, {})(x, t), t), model.parts, x)
    want = recorded[f"{tag}/score"]
    if tag == "ddpm":  # the network at the time itself, its noise over the table's sigma at the index below
        index = (recorded["ddpm/t"] * 49).astype(int)
        table = np.sqrt(-np.expm1(np.cumsum(np.log1p(-e.sde.betas))))[index]
        want = want * (table / np.asarray(e.sde.sigma(t)))[:, None, None, None]
    close(got, want, 1e-4)


@pytest.mark.parametrize(
    ("tag", "denoise"),
    [
        pytest.param(tag, denoise, marks=[] if (tag, denoise) == ("ve", False) else pytest.mark.slow)
        for tag in CASES
        for denoise in (True, False)
    ],
)
def test_samples(tag, denoise, base, recorded):
    """The official predictor-corrector sampler with the official noise."""
    model = restored(tag, base, f"sampling.solver.denoise={denoise}")
    generator = np.random.Generator(np.random.PCG64(777))
    draws = jnp.stack(
        [
            jnp.moveaxis(jnp.asarray(generator.standard_normal((2, 3, 8, 8)).astype(np.float32)), 1, -1)
            for _ in range(64)
        ]
    )

    s, sde = model.sampler, model.architecture.sde

    def sampler(parts, plan):
        denoise = s.bind(parts, {})
        x = s.solver.run(denoise, sde, sde.prior_sigma * draws[0], plan, lambda i: draws[i])
        return s.solver.finish(denoise, x, plan)

    got = outside(model, run(sampler, model.parts, s.plan))
    close(got, recorded[f"{tag}/pc_denoise{denoise:d}"], 2e-4)


@pytest.mark.parametrize("tag", slow(WITH_ODE))
def test_ode_samples(tag, base, recorded):
    """The official probability flow from the official latents, with and without its last denoising step.

    At their tolerance of 1e-5 theirs err by up to 6e-4, and ours would too.
    """
    options = ["sampling.solver=legacy_ode", "sampling.solver.rtol=1e-6", "sampling.solver.atol=1e-6"]
    options += CONTINUOUS.get(tag, [])
    models = [
        restored(tag, base, f"sampling.solver.denoise={denoise}", *options) for denoise in (True, False)
    ]
    z = jnp.moveaxis(jnp.asarray(normals(900 + list(CASES).index(tag), (2, 3, 8, 8))), 1, -1)
    s, sde, parts = models[0].sampler, models[0].architecture.sde, models[0].parts
    start = z * sde.prior_sigma
    x = run(lambda p, plan: s.solver.run(s.bind(p, {}), sde, start, plan, None), parts, s.plan)
    for denoise, model in zip((1, 0), models, strict=True):
        s = model.sampler
        got = run(lambda p, plan, s=s: s.solver.finish(s.bind(p, {}), x, plan), parts, s.plan)
        close(outside(model, got), recorded[f"{tag}/ode_denoise{denoise}"], 1e-3)


@dataclass(frozen=True, kw_only=True)
class Recorded(Hutchinson):
    """The official probe."""

    tag: int = 0

    def directions(self, keys, shape):
        signs = np.random.Generator(np.random.PCG64(990 + self.tag)).integers(0, 2, (2, 3, 8, 8))
        return jnp.moveaxis(jnp.asarray(2.0 * signs - 1, jnp.float32), 1, -1)[None]


@pytest.mark.slow
@pytest.mark.parametrize("tag", LIKELIHOODS)
def test_bits_per_dim(tag, base, recorded):
    start, tolerance, bits_error, latent_error = LIKELIHOODS[tag]
    model = restored(tag, base, *CONTINUOUS.get(tag, []))
    e, number = model.architecture, list(CASES).index(tag)
    low, high = e.codec.low, e.codec.high
    x = jnp.moveaxis(jnp.asarray(low + (high - low) * uniforms(950 + number, (2, 3, 8, 8))), 1, -1)
    keys = jax.random.split(jax.random.key(0), 2)

    def measure(parts, x):
        follow = Adaptive(rtol=tolerance, atol=tolerance)
        probe = Recorded(tag=number)
        out = log_prob(keys, e.bind(parts, {}), e.sde, x, divergence=probe, integrator=follow, t_min=start)
        # The official offset: 8 for data in [0, 1], 7 for data in [-1, 1].
        width = np.log((high - low) / 256)
        return bits_per_dim(out.nats, 192, width), out.latent

    bits, latent = jax.jit(measure)(model.parts, x)
    np.testing.assert_allclose(bits, recorded[f"{tag}/bpd"], atol=bits_error)
    close(np.asarray(latent), recorded[f"{tag}/latent"], latent_error)


@dataclass(frozen=True)
class Given:
    """A task of diffusion whose batches are what it would draw."""

    task: Diffusion

    def init(self, frozen, key):
        return self.task.init(frozen, key)

    def draw(self, frozen, batch, key):
        return batch

    def loss(self, trained, frozen, ema, examples, key):
        return self.task.loss(trained, frozen, ema, examples, None)  # without dropout


@pytest.mark.slow
@pytest.mark.parametrize("tag", ["vp", "ve", "smld"])
def test_training_goes_on_as_there(tag, tmp_path):
    """Parameters, average, both moments of Adam and both counts arrive: the next three steps are the same."""
    with np.load(DATA / "imported_steps.npz") as file:
        wanted = {name.removeprefix(f"{tag}/"): a for name, a in file.items() if name.startswith(tag)}
    file, options = CASES[tag]
    model, ema = drawn(tag), drawn(tag, "/ema")
    first = drawn(tag, "/exp_avg", mean=0.0, std=0.01)
    second = {k: a**2 + np.float32(1e-6) for k, a in drawn(tag, "/exp_avg_sq", mean=0.0, std=0.02).items()}
    untrained = ["all_modules.0.W"]
    ema |= {name: model[name] for name in untrained if name in model}
    moments = {name: (first[name], second[name]) for name in model if name not in untrained}
    path = save_zip(tmp_path / "x.pth", checkpoint(model, ema, 7, moments, untrained))
    rates = ["optimizer.warmup_steps=10", "optimizer.learning_rate=0.001", "ema.name=warmup"]
    rates += [f"ema.decay={0.9999 if tag == 'vp' else 0.999}", "model.dropout=0.0", "data.source.size=8"]
    arguments = [
        f"--checkpoint={path}",
        f"--workdir={tmp_path / 'run'}",
        f"--config={ROOT / 'configs' / file}",
    ]
    arguments += words([*options, *rates])
    assert cli.run(parse(["run.py", "--mode=import", *arguments], "usage")) == 0

    opened = workdir_of(parse(["run.py", "--mode=train", f"--workdir={tmp_path / 'run'}"], "usage"))
    config, e = opened.config, opened.architecture
    task, optimizer = Given(task_of(config, e, Pixels())), optimizer_of(config)
    like = jax.eval_shape(init_state(task, optimizer, 0), {})
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        state = checkpoints.restore(like, make_mesh())
    start = state
    step = jax.jit(make_step(task, optimizer, average_of(config), 0))
    losses, norms = [], []
    for i in range(3):
        low, high = e.codec.low, e.codec.high
        x0 = jnp.moveaxis(jnp.asarray(low + (high - low) * uniforms(900 + i, (4, 3, 8, 8))), 1, -1)
        noise = jnp.moveaxis(jnp.asarray(normals(800 + i, (4, 3, 8, 8))), 1, -1)
        u = jnp.asarray(uniforms(700 + i, (4,)))
        # Labels of SMLD count from the largest level.
        t = 1 - jnp.floor(u * 12) / 11 if tag == "smld" else u * (1 - 1e-5) + 1e-5
        state, metrics = step(state, {}, Noisy(x0, {}, Drawn(t, noise)))
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    np.testing.assert_allclose(losses, wanted["losses"], rtol=5e-5)
    np.testing.assert_allclose(norms, wanted["grad_norms"], rtol=5e-4)

    # Layouts differ, norms do not: how far every tensor and its average have moved.
    names = [name for name, *_ in RECIPES[tag]["table"]]
    trained = [name for name in names if name not in untrained]
    shapes = {name: tuple(shape) for name, shape, *_ in RECIPES[tag]["table"]}
    codes = {name: np.full(shapes[name], i, np.float32) for i, name in enumerate(names)}
    order = _flat(from_torch_names(codes, e.net, (8, 8, 3)))
    for got, before, key, of in (
        (state.params["net"], start.params["net"], "moved", names),
        (state.ema["net"], start.ema["net"], "ema_moved", trained),
    ):
        distances = dict(zip(of, wanted[key], strict=True))
        now, then = _flat(got), _flat(before)
        for path in now:
            name = names[int(np.asarray(order[path]).flat[0])]
            moved = np.linalg.norm(np.asarray(now[path], np.float64) - np.asarray(then[path], np.float64))
            if name in distances:
                assert moved == pytest.approx(distances[name], rel=5e-3, abs=1e-6), path


def _flat(tree):
    return {jax.tree_util.keystr(p): v for p, v in jax.tree_util.tree_flatten_with_path(tree)[0]}


@pytest.mark.parametrize(("dataset", "size"), [("cifar10", 32), ("cifar10:3.0.2", 32), ("celeb_a", 64)])
def test_the_data_of_the_config_tell_two_recipes_of_equal_shapes_apart(tmp_path, dataset, size):
    average = drawn("ncsnv2")
    path = save_zip(tmp_path / "x.pth", checkpoint(average, average, step=7, untrained=[]))
    config = changed(typed(load_file(str(ROOT / "configs" / "ve_cifar.py") + ":ncsnv2")), {"model.nf": 8})
    found = convert.load(path, changed(config, {"data.source.dataset": dataset}))
    assert found.architecture.spec.shape == (size, size, 3)
    with pytest.raises(convert.CheckpointError, match="fit images of 32, 64 pixels; say which"):
        convert.load(path, changed(config, {"data.source": "folder", "data.source.path": str(tmp_path)}))


def test_a_data_set_is_that_of_a_recipe_by_its_whole_name():
    named = {r.name: r for r in recipes.RECIPES}
    assert is_of(named["ve/ncsnv2/celeba"], "celeb_a:2.1.0")
    assert is_of(named["ve/celeba_ncsnpp"], "celeb_a")
    assert not is_of(named["vp/ddpm/celebahq"], "celeb_a")
    assert is_of(named["vp/ddpm/celebahq"], "celeba_hq")
    assert is_of(named["ve/bedroom_ncsnpp_continuous"], "lsun/bedroom")
    assert not is_of(named["ve/ncsnv2/cifar10"], "")


def test_a_network_of_other_shapes_has_the_size_that_its_kind_has_for_the_data():
    config = changed(
        typed(load_file(str(ROOT / "configs" / "ve_cifar.py") + ":ncsnv2")),
        {"data.source.dataset": "celeb_a"},
    )
    release = Release(what="", rename=from_torch_names, average={"a": np.zeros((3, 3, 3, 16))})
    assert [spec.shape for spec in next(_specs(release, config))] == [(64, 64, 3)]
    assert {recipe.size for recipe in of_kind("ncsnv2_128")} == {32, 64, 128}
