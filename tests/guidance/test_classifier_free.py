"""Guided denoisers against the closed forms of two Gaussians, of which a class has one each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.conditions import Chosen, against, labelled
from score_sde.denoiser import Estimate, score_from
from score_sde.guidance import GUIDANCE_SCALE, ClassifierFree
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample, generate
from score_sde.sde import SDES, VP
from score_sde.solvers import SOLVERS
from tests.oracles import Gaussian, Mixture

MEANS, STD = np.array([[0.8, -0.2], [-0.5, 0.6]]), 0.3
WHOLE, CLASSES = Mixture(MEANS, STD), [Gaussian(mean, np.full(2, STD)) for mean in MEANS]
LABELS, SCALES = jnp.array([0, 1, 0, 1, 0, 1]), jnp.array([0.0, 1.0, 1.0, 2.5, -0.5, 7.5])


def bind(sde, batches):
    """The exact model: of a class, or of both where the label is -1; notes the sizes of its batches."""

    def bound(params, cond):
        def denoise(x, t):
            batches.append(len(x))
            label = expand(cond["label"], x)
            every = [WHOLE.denoise(sde)(x, t), *(one.denoise(sde)(x, t) for one in CLASSES)]
            return Estimate(
                *(
                    jnp.select([label == -1, label == 0], halves[:2], halves[2])
                    for halves in zip(*every, strict=True)
                )
            )

        return denoise

    return bound


def no_class(cond, negative=()):
    return {"label": jnp.full_like(cond["label"], -1)}


def guided(sde, scales, batches=None):
    model = ClassifierFree(null=no_class, sde=sde)(bind(sde, [] if batches is None else batches))
    return model({}, {"label": LABELS, GUIDANCE_SCALE: scales})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["subvp", "edm"])
def test_the_guided_score_is_that_of_the_tilted_density(name):
    # grad of scale log p_t(x | c) + (1 - scale) log p_t(x), each sample with its own scale, class and time.
    sde, batches = SDES[name](), []
    t = sde.t_min + (sde.t_max - sde.t_min) * jnp.linspace(0.05, 0.9, 6)
    x = jax.random.normal(jax.random.key(0), (6, 2)) * expand(sde.sigma(t), jnp.zeros((6, 2))) + 0.2

    def log_tilted(x, t, label, scale):
        of_class = jnp.stack([one.log_prob(sde, x[None], t)[0] for one in CLASSES])[label]
        return scale * of_class + (1 - scale) * WHOLE.log_prob(sde, x[None], t)[0]

    got = guided(sde, SCALES, batches)(x, t)
    want = jax.vmap(jax.grad(log_tilted))(x, t, LABELS, SCALES)
    np.testing.assert_allclose(score_from(sde, got, t), want, rtol=1e-7, atol=1e-9 * np.abs(want).max())
    np.testing.assert_allclose(
        expand(sde.alpha(t), x) * got.x0 + expand(sde.sigma(t), x) * got.noise, x, rtol=1e-9
    )
    assert batches == [12]  # one pass of the network for both


@pytest.mark.usefixtures("x64")
def test_scale_0_is_the_unconditional_model_and_scale_1_the_conditional_one():
    sde, x, t = VP(), jax.random.normal(jax.random.key(0), (6, 2)), jnp.asarray(0.4)
    for scale, label in ((0.0, no_class({"label": LABELS})["label"]), (1.0, LABELS)):
        got, want = guided(sde, jnp.full(6, scale))(x, t), bind(sde, [])({}, {"label": label})(x, t)
        for half, exact in zip(got, want, strict=True):
            np.testing.assert_allclose(half, exact, rtol=1e-12)


def test_a_condition_without_a_null_value_stays_and_the_scale_is_taken_away():
    seen = {}

    def bound(params, cond):
        seen.update(cond)
        return lambda x, t: Estimate(x, x)

    cond = {"label": jnp.array([3, 4]), "augment": jnp.eye(2), GUIDANCE_SCALE: jnp.ones(2)}
    ClassifierFree(null=no_class, sde=VP())(bound)({}, cond)
    assert seen.keys() == {"label", "augment"}
    np.testing.assert_array_equal(seen["label"], [3, -1, 4, -1])
    np.testing.assert_array_equal(seen["augment"], np.repeat(np.eye(2), 2, axis=0))
    with pytest.raises(ValueError, match=r"cond has no 'guidance_scale': add the guidance's inputs"):
        ClassifierFree(null=no_class, sde=VP())(bound)({}, {"label": jnp.array([3, 4])})


def test_samples_have_a_scale_of_their_own_and_another_compiles_nothing():
    # Over two devices, the unguided class beside strongly guided ones.
    sde, mesh, batches, guidance = (
        VP(),
        make_mesh(devices=jax.devices()[:2]),
        [],
        ClassifierFree(null=no_class, sde=VP(), scale=4.0),
    )
    solver = SOLVERS["dpmpp_2m"]()
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 9))
    labels, turns = np.arange(8) % 2, Chosen.every_class(labelled(2))
    options = {"seed": 0, "num_samples": 8, "batch_size": 8, "chosen": turns}
    plain = compile_sample(bind(sde, []), sde, solver, mesh, shape=(2,))
    want = np.concatenate(list(generate(plain, {}, plan, mesh, **options)))
    draw = compile_sample(guidance(bind(sde, batches)), sde, solver, mesh, shape=(2,))
    inputs = guidance.inputs(8)
    np.testing.assert_array_equal(inputs[GUIDANCE_SCALE], np.full(8, 4.0))
    strong = np.concatenate(list(generate(draw, {}, plan, mesh, **options, inputs=inputs)))
    traced = len(batches)
    inputs[GUIDANCE_SCALE][:5] = 1.0
    some = np.concatenate(list(generate(draw, {}, plan, mesh, **options, inputs=inputs)))
    assert len(batches) == traced
    np.testing.assert_allclose(some, np.concatenate([want[:5], strong[5:]]), atol=2e-5)
    # Guided samples lie farther out along the axis between the classes.
    axis = (MEANS[0] - MEANS[1]) * np.where(labels == 0, 1, -1)[:, None]
    assert np.mean(np.sum((strong - want) * axis, axis=1)) > 0.05


def numbers(**options):
    """A guided model whose numbers are those of the options, at six points, and the model itself."""
    sde = options.pop("sde", VP())
    guidance = ClassifierFree(null=options.pop("null", no_class), sde=sde, **options)
    guided = guidance(bind(sde, []))({}, {"label": LABELS, **guidance.inputs(6)})
    return guided, bind(sde, [])({}, {"label": LABELS}), jax.random.normal(jax.random.key(0), (6, 2))


def test_outside_its_interval_the_model_is_unchanged_to_the_last_bit():
    sde = VP()
    t = sde.time_of(-2.0 * jnp.log(jnp.array([0.1, 0.49, 0.51, 1.9, 2.1, 9.0])))  # by sigma / alpha
    guided, plain, x = numbers(scale=3.0, interval_low=0.5, interval_high=2.0)
    everywhere = numbers(scale=3.0)[0](x, t)
    for got, want, strong in zip(guided(x, t), plain(x, t), everywhere, strict=True):
        np.testing.assert_array_equal(got[jnp.array([0, 1, 4, 5])], want[jnp.array([0, 1, 4, 5])])
        np.testing.assert_array_equal(got[2:4], strong[2:4])
        assert np.all(got[2:4] != want[2:4])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_deviation_is_brought_back_to_that_of_the_conditional_model(share):
    sde, t = VP(), jnp.asarray(0.5)
    guided, plain, x = numbers(scale=4.0, rescale=share)
    got, strong, want = guided(x, t), numbers(scale=4.0)[0](x, t), plain(x, t)
    ratio = np.std(want.x0, axis=1) / np.std(strong.x0, axis=1)
    mixed = share * ratio[:, None] * strong.x0 + (1 - share) * strong.x0
    np.testing.assert_allclose(got.x0, mixed, rtol=1e-6)  # the share is a float32
    if share == 1:
        np.testing.assert_allclose(np.std(got.x0, axis=1), np.std(want.x0, axis=1), rtol=1e-9)
    np.testing.assert_allclose(sde.alpha(t) * got.x0 + sde.sigma(t) * got.noise, x, rtol=1e-8)


def test_a_negative_class_takes_the_place_of_none():
    conditions = labelled(2, ("cat", "dog"))
    guided, plain, x = numbers(
        scale=3.0, negative=("label=dog",), null=lambda cond, negative: against(conditions, negative, cond)
    )
    t = jnp.asarray(0.4)
    dog = bind(VP(), [])({}, {"label": jnp.ones(6, jnp.int32)})(x, t)
    for got, own, other in zip(guided(x, t), plain(x, t), dog, strict=True):
        np.testing.assert_allclose(got, other + 3.0 * (own - other), rtol=1e-4, atol=1e-5)
    for word in ("dog", "size=3", "label=bird"):
        with pytest.raises(ValueError, match="negative = |label=bird"):
            against(conditions, (word,), {"label": LABELS})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interval_low": 2.0, "interval_high": 1.0}, "interval_low = 2.0"),
        ({"interval_low": -1.0}, "interval_low = -1.0"),
        ({"rescale": 1.5}, "rescale = 1.5"),
    ],
)
def test_impossible_numbers_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        ClassifierFree(null=no_class, sde=VP(), **options)
