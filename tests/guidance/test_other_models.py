"""Guidance by another model or a gradient, against closed forms: mixtures and tilted Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.conditions import labelled
from score_sde.denoiser import Estimate, score_from
from score_sde.guidance import (
    CLASSIFIER,
    GUIDE,
    Auto,
    ClassifierGuidance,
    Gradient,
    Guide,
    NoisyClassifier,
    Static,
    compose,
)
from score_sde.sde import EDM, SDES, VP, Flow
from tests.oracles import Gaussian, Mixture

MEANS, STD = np.array([[0.8, -0.2], [-0.5, 0.6]]), 0.3
WHOLE, CLASSES = Mixture(MEANS, STD), [Gaussian(mean, np.full(2, STD)) for mean in MEANS]
LABELS = jnp.array([0, 1, 0, 1, 0, -1])
DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))


def points(sde):
    """Six points at six times, where the noise is neither all nor nothing."""
    t = sde.t_min + (sde.t_max - sde.t_min) * jnp.linspace(0.05, 0.9, 6)
    return jax.random.normal(jax.random.key(0), (6, 2)) * expand(sde.sigma(t), jnp.zeros((6, 2))) + 0.2, t


def scaled(guidance, scale):
    """The guidance's inputs for six samples, with scales of their own."""
    return {**guidance.inputs(6), f"{guidance.prefix}_scale": jnp.asarray(scale)}


def exact_classifier(sde, offset=0.0):
    """Bayes' rule for the two classes of the mixture; ``offset`` is a parameter."""

    def log_prob(parts, x, t, number):
        of_class = jnp.stack([one.log_prob(sde, x, t) for one in CLASSES])
        own = jnp.take_along_axis(of_class, jnp.maximum(number, 0)[None], axis=0)[0]
        return own - jax.nn.logsumexp(of_class, axis=0) + parts["offset"] * jnp.sum(x, axis=1)

    return NoisyClassifier(sde, log_prob, {"offset": jnp.asarray(offset)}, labelled(2)[0])


def by_classifier(sde, classifier, **options):
    return ClassifierGuidance(
        sde=sde, open_classifier=lambda workdir, step: classifier, workdir="", **options
    )


def same(got, want, **tolerance):
    for half, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(half, exact, **tolerance)


# --- by a classifier --------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "trained"), [("vp", "vp"), ("edm", "edm"), ("vp", "edm"), ("edm", "flow")])
def test_an_exact_classifier_makes_the_model_that_of_the_class(name, trained):
    # Also where it was trained for another process.  The last sample has no class, and is not guided.
    sde = SDES[name]()
    guidance = by_classifier(sde, exact_classifier(SDES[trained]()))
    x, t = points(sde)
    cond = {"label": LABELS, **scaled(guidance, np.ones(6))}
    got = guidance(lambda parts, cond: WHOLE.denoise(sde))(_placed(guidance), cond)(x, t)
    every = [one.denoise(sde)(x, t) for one in (*CLASSES, WHOLE)]
    rows = jnp.where(LABELS < 0, 2, LABELS)
    want = Estimate(*(jnp.stack(halves)[rows, jnp.arange(6)] for halves in zip(*every, strict=True)))
    same(got, want, rtol=1e-6, atol=1e-9)


def _placed(guidance):
    return {"net": {}, **guidance.frozen()}


@pytest.mark.usefixtures("x64")
def test_a_scale_of_the_classifier_tilts_the_density_sample_by_sample():
    sde, scale = VP(), np.array([0.0, 1.0, 2.5, -1.0, 4.0, 3.0])
    guidance, (x, t) = by_classifier(sde, exact_classifier(sde)), points(sde)

    def log_tilted(x, t, label, scale):
        each = jnp.stack([one.log_prob(sde, x[None], t)[0] for one in CLASSES])
        tilt = jnp.where(label < 0, 0.0, scale * (each[label] - jax.nn.logsumexp(each)))
        return WHOLE.log_prob(sde, x[None], t)[0] + tilt

    cond = {"label": LABELS, **scaled(guidance, scale)}
    got = guidance(lambda parts, cond: WHOLE.denoise(sde))(_placed(guidance), cond)(x, t)
    want = jax.vmap(jax.grad(log_tilted))(x, t, LABELS, jnp.asarray(scale))
    np.testing.assert_allclose(score_from(sde, got, t), want, rtol=1e-7)
    np.testing.assert_allclose(
        expand(sde.alpha(t), x) * got.x0 + expand(sde.sigma(t), x) * got.noise, x, rtol=1e-9
    )


def test_the_classifier_is_asked_with_the_parameters_that_it_is_given():
    # Parts are inputs: those of ``frozen`` are the part of its name, and others in their place count.
    sde, (x, t) = VP(), points(VP())
    guidance = by_classifier(sde, exact_classifier(sde, 0.25))
    assert guidance.conditions == labelled(2) and guidance.frozen().keys() == {CLASSIFIER}
    bound = guidance(lambda parts, cond: WHOLE.denoise(sde))
    cond = {"label": LABELS, **guidance.inputs(6)}
    own = bound(guidance.frozen(), cond)(x, t)
    other = bound({CLASSIFIER: {"offset": jnp.asarray(1.25)}}, cond)(x, t)
    moved = np.where(np.asarray(LABELS)[:, None] < 0, 0.0, -np.asarray(expand(sde.sigma(t), x)))
    np.testing.assert_allclose(other.noise - own.noise, np.broadcast_to(moved, (6, 2)), atol=2e-5)
    with pytest.raises(ValueError, match="cond has no 'label': the class that the classifier"):
        bound(guidance.frozen(), guidance.inputs(6))


# --- by a weaker model ------------------------------------------------------------------------------


def by_guide(sde, guide, **options):
    return Auto(sde=sde, open_guide=lambda workdir, step: guide, workdir="", **options)


def of_data(sde, widths):
    """A model whose parameter widens its data: ``parts['net']['wider']``."""

    def bind(parts, cond):
        return Gaussian(DATA.mean, DATA.std * parts["net"]["wider"]).denoise(sde)

    return Guide(sde, bind, {"net": {"wider": widths}})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("process", [VP(), EDM(), Flow()])
def test_autoguidance_goes_away_from_the_guide_whatever_its_process(process):
    sde, (x, t) = VP(), points(VP())
    guide, scale = of_data(process, 1.5), np.array([0.0, 1.0, 1.7, 2.0, -0.5, 3.0])
    guidance = by_guide(sde, guide)
    assert guidance.frozen().keys() == {GUIDE}
    bound = guidance(of_data(sde, 1.0).bind)
    got = bound({"net": {"wider": 1.0}, **guidance.frozen()}, scaled(guidance, scale))(x, t)
    weak, strong = (Gaussian(DATA.mean, DATA.std * wider).denoise(sde)(x, t) for wider in (1.5, 1.0))
    want = [w + scale[:, None] * (s - w) for w, s in zip(weak, strong, strict=True)]
    same(got, want, rtol=1e-6, atol=1e-9)
    again = bound({"net": {"wider": 1.0}, GUIDE: {"net": {"wider": 1.0}}}, scaled(guidance, scale))(x, t)
    same(again, strong, rtol=1e-6, atol=1e-9)  # the guide's parameters are inputs too


def test_autoguidance_by_the_model_itself_is_the_identity():
    sde, (x, t) = VP(), points(VP())
    guide = of_data(sde, 1.0)
    guidance = by_guide(sde, guide, scale=7.0)
    got = guidance(guide.bind)({**guide.parts, **guidance.frozen()}, guidance.inputs(6))(x, t)
    for half, own in zip(got, guide.bind(guide.parts, {})(x, t), strict=True):
        np.testing.assert_array_equal(half, own)


# --- by a gradient ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["subvp", "edm"])
def test_a_linear_loss_tilts_a_gaussian_exactly(name):
    # p(x0) exp(-s w.x0) is the Gaussian with its mean moved by -s std^2 w.
    sde, slope, scale = SDES[name](), np.array([0.7, -0.4]), 1.5
    x, t = points(sde)
    guidance = Gradient(lambda x0: slope @ x0 + 3.0, scale=scale, sde=sde)
    got = guidance(lambda parts, cond: DATA.denoise(sde))({}, guidance.inputs(6))(x, t)
    tilted = Gaussian(DATA.mean - scale * DATA.std**2 * slope, DATA.std)
    same(got, tilted.denoise(sde)(x, t), rtol=1e-7, atol=1e-10)


def test_a_loss_of_one_sample_does_not_see_the_others():
    sde, (x, t) = VP(), points(VP())
    guidance = Gradient(lambda x0: jnp.sqrt(jnp.sum((x0 - 0.3) ** 2)), scale=2.0, sde=sde)
    bound = guidance(lambda parts, cond: WHOLE.denoise(sde))
    whole = bound({}, guidance.inputs(6))(x, t)
    for i in range(6):
        same(
            bound({}, guidance.inputs(1))(x[i : i + 1], t[i]), [half[i : i + 1] for half in whole], atol=1e-5
        )


# --- strength, and several --------------------------------------------------------------------------


def every_kind(sde, **options):
    """Each guidance with a scale, and the parts of its model."""
    guide = of_data(sde, 1.5)
    return {
        "auto": by_guide(sde, guide, **options),
        "classifier": by_classifier(sde, exact_classifier(sde), **options),
        "gradient": Gradient(lambda x0: jnp.sum(x0**2), sde=sde, **options),
    }


@pytest.mark.parametrize("kind", ["auto", "classifier", "gradient"])
def test_outside_its_interval_the_model_is_unchanged_to_the_last_bit(kind):
    sde = VP()
    t = sde.time_of(-2.0 * jnp.log(jnp.array([0.1, 0.49, 0.51, 1.9, 2.1, 9.0])))  # by sigma / alpha
    x = points(sde)[0]
    model, own = of_data(sde, 1.0).bind, {"net": {"wider": 1.0}}
    cond, plain = {"label": jnp.array([0, 1, 0, 1, 0, 1])}, model(own, {})(x, t)
    guidance, some = (
        every_kind(sde, scale=3.0)[kind],
        every_kind(sde, scale=3.0, interval_low=0.5, interval_high=2.0)[kind],
    )
    parts = {**own, **guidance.frozen()}
    strong = guidance(model)(parts, {**cond, **guidance.inputs(6)})(x, t)
    for got, want, changed in zip(
        some(model)(parts, {**cond, **some.inputs(6)})(x, t), plain, strong, strict=True
    ):
        np.testing.assert_array_equal(got[jnp.array([0, 1, 4, 5])], want[jnp.array([0, 1, 4, 5])])
        np.testing.assert_array_equal(got[2:4], changed[2:4])
        assert np.all(got[2:4] != want[2:4])


@pytest.mark.parametrize("kind", ["auto", "classifier", "gradient"])
def test_its_numbers_are_inputs_of_one_program(kind):
    sde, (x, t), traced = VP(), points(VP()), []
    guidance = every_kind(sde)[kind]
    model, own = of_data(sde, 1.0).bind, {"net": {"wider": 1.0}}

    @jax.jit
    def run(parts, cond):
        traced.append(1)
        return guidance(model)(parts, cond)(x, t)

    results = [
        run(
            {**own, **changed.frozen()},
            {"label": jnp.maximum(LABELS, 0), **{k: jnp.asarray(v) for k, v in changed.inputs(6).items()}},
        ).x0
        for changed in (
            guidance,
            every_kind(sde, scale=2.0)[kind],
            every_kind(sde, scale=2.0, interval_low=1.0, interval_high=2.0)[kind],
        )
    ]
    assert len(traced) == 1
    assert np.any(results[0] != results[1]) and np.any(results[1] != results[2])


def test_guidances_compose_with_one_another_and_with_a_threshold():
    sde, (x, t) = VP(), points(VP())
    kinds = every_kind(sde, scale=3.0)
    model, own = of_data(sde, 1.0).bind, {"net": {"wider": 1.0}}
    both = compose(kinds["auto"], kinds["gradient"], Static(sde=sde, low=-0.2, high=0.2))
    assert both.inputs(6).keys() == {
        "guidance_scale",
        "guidance_interval",
        "gradient_scale",
        "gradient_interval",
    }
    got = both(model)({**own, **both.frozen()}, both.inputs(6))(x, t)
    inner = kinds["auto"](model)({**own, **both.frozen()}, kinds["auto"].inputs(6))
    outer = kinds["gradient"](lambda parts, cond: inner)({}, kinds["gradient"].inputs(6))(x, t)
    np.testing.assert_allclose(got.x0, np.clip(outer.x0, -0.2, 0.2), rtol=1e-5, atol=1e-6)
    assert compose(kinds["classifier"], kinds["gradient"]).conditions == labelled(2)
    with pytest.raises(ValueError, match="two guidances have 'guidance_scale' among their inputs"):
        compose(kinds["auto"], kinds["classifier"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": float("nan")}, "scale = nan: must be finite"),
        ({"interval_low": 2.0, "interval_high": 1.0}, "interval_low = 2.0: must be 0 or more and below"),
    ],
)
def test_impossible_numbers_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        by_guide(VP(), None, **options)


def test_without_its_numbers_a_guidance_says_how_to_get_them():
    guidance = Gradient(jnp.sum, sde=VP())
    with pytest.raises(ValueError, match=r"cond has no 'gradient_scale': add the guidance's inputs\(count\)"):
        guidance(lambda parts, cond: DATA.denoise(VP()))({}, {})
