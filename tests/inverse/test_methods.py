"""Methods against the posteriors of Gaussians, which linear measurements leave Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.denoiser import Estimate
from score_sde.guidance import compose
from score_sde.inverse import (
    DDNM,
    MASK,
    MEASURED,
    METHODS,
    MMPS,
    NOISE_STD,
    Blur,
    BoxDown,
    Function,
    Mask,
    PiGDM,
)
from score_sde.inverse.base import conjugate_gradients
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample
from score_sde.sde import EDM, VE, VP
from score_sde.solvers import GRIDS, SOLVERS
from tests.oracles import Gaussian

SHAPE, COUNT = (4, 2, 1), 6
RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=SHAPE) * 0.3
SEEN = (RNG.random((COUNT, *SHAPE)) < 0.5).astype(np.float32)


def rows_apart(x):
    """A third operator, whose eigenvalues nobody has told: differences of rows."""
    return x[1:] - x[:-1]


OPERATORS = {
    "mask": Mask(),
    "box_down": BoxDown(factor=2),
    "blur": Blur(blur_sigma=0.6),
    "function": Function(function=rows_apart, shape=SHAPE),
}
ISOTROPIC, ANY = np.full(SHAPE, 0.5), 0.1 + RNG.random(SHAPE)


def matrix(operator, sample):
    units = np.eye(8, dtype=np.float32).reshape(8, *SHAPE)
    given = {MASK: jnp.broadcast_to(jnp.asarray(SEEN[sample]), units.shape)}
    return np.asarray(operator.apply(jnp.asarray(units), given), np.float64).reshape(8, -1).T


def given_of(operator, noise_std, seed=1):
    """Measurements of examples, and what they are of: per sample."""
    data = Gaussian(MEAN, ANY)
    x0 = data.sample(jax.random.key(seed), COUNT).astype(jnp.float32)
    given = {MASK: jnp.asarray(SEEN)}
    clean = operator.apply(x0, given)
    noise = noise_std * jax.random.normal(jax.random.key(seed + 1), clean.shape)
    noise = operator.apply(operator.adjoint(noise, given), given) * 0 + noise
    if isinstance(operator, Mask):
        noise = noise * given[MASK]
    own = {name: given[name] for name in operator.needs}
    return {MEASURED: clean + noise, NOISE_STD: jnp.full(COUNT, noise_std), **own}


def exact(sde, std, operator, given, x, t):
    """``E[x0 | x_t, y]`` of data ``N(MEAN, std^2)``, by the formula for two independent observations."""
    alpha, sigma = float(sde.alpha(jnp.asarray(t))), float(sde.sigma(jnp.asarray(t)))
    results = []
    for i in range(COUNT):
        a, y = matrix(operator, i), np.asarray(given[MEASURED][i], np.float64).ravel()
        noise = float(given[NOISE_STD][i]) ** 2
        prior = std.ravel() ** -2.0
        precision = np.diag(prior + alpha**2 / sigma**2) + a.T @ a / noise
        pull = (
            prior * MEAN.ravel() + alpha / sigma**2 * np.asarray(x[i], np.float64).ravel() + a.T @ y / noise
        )
        results.append(np.linalg.solve(precision, pull).reshape(SHAPE))
    return np.stack(results)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "sde"),
    [(name, VP()) for name in OPERATORS] + [("mask", VE()), ("box_down", EDM())],
)
@pytest.mark.parametrize(
    ("make", "std"),
    [
        (lambda **k: PiGDM(sigma_data=0.5, solve_steps=8, **k), ISOTROPIC),
        (lambda **k: MMPS(solve_steps=8, **k), ISOTROPIC),
        (lambda **k: MMPS(solve_steps=8, **k), ANY),
    ],
    ids=["pigdm", "mmps", "mmps_any"],
)
def test_the_estimate_is_the_mean_of_the_exact_posterior(sde, name, make, std):
    operator = OPERATORS[name]
    given, x = given_of(operator, 0.2), 0.8 * jax.random.normal(jax.random.key(3), (COUNT, *SHAPE))
    method = make(operator=operator, sde=sde)
    denoise = method(lambda parts, cond: Gaussian(MEAN, std).denoise(sde))({}, given)
    for t in (0.05, 0.3):
        got = denoise(x, jnp.asarray(t))
        np.testing.assert_allclose(got.x0, exact(sde, std, operator, given, x, t), rtol=1e-5, atol=1e-6)
        back = sde.alpha(jnp.asarray(t)) * got.x0 + sde.sigma(jnp.asarray(t)) * got.noise
        np.testing.assert_allclose(back, x, atol=1e-8)  # the two halves belong together


@pytest.mark.parametrize("name", ["pigdm", "mmps"])
def test_samples_have_the_moments_of_the_posterior(name):
    sde, count, noise_std = EDM(t_max=20.0), 4096, 0.2
    operator, options = Mask(), {"sigma_data": 0.5} if name == "pigdm" else {}
    method = METHODS[name](operator=operator, sde=sde, **options)
    seen, y = SEEN[0], np.asarray(MEAN + 0.6, np.float32) * SEEN[0]
    cond = {
        MEASURED: jnp.broadcast_to(y, (count, *SHAPE)),
        MASK: jnp.broadcast_to(seen, (count, *SHAPE)),
        NOISE_STD: jnp.full(count, noise_std),
    }
    mesh, solver = make_mesh(devices=jax.devices()[:1]), SOLVERS["heun"]()
    bind = method(lambda parts, cond: Gaussian(MEAN, ISOTROPIC).denoise(sde))
    draw = compile_sample(bind, sde, solver, mesh, shape=SHAPE)
    plan = solver.plan(sde, GRIDS["karras"](sde=sde)(20.0, 2e-3, 24))
    samples = np.asarray(draw({}, plan, jax.random.split(jax.random.key(0), count), cond), np.float64)
    gain = 0.5**2 / (0.5**2 + noise_std**2)
    mean = np.where(seen > 0, MEAN + gain * (y - MEAN), MEAN)
    variance = np.where(seen > 0, 0.5**2 * (1 - gain), 0.5**2)
    np.testing.assert_allclose(samples.mean(axis=0), mean, atol=4 * 0.5 / np.sqrt(count) + 0.01)
    np.testing.assert_allclose(samples.var(axis=0), variance, rtol=0.12)


@pytest.mark.parametrize("name", ["mask", "box_down", "blur"])
def test_projected_samples_fulfil_the_measurement_and_end_without_noise(name):
    sde, operator = VP(), OPERATORS[name]
    given = given_of(operator, 0.0)
    bind = DDNM(operator=operator, sde=sde)(lambda parts, cond: Gaussian(MEAN, ANY).denoise(sde))
    x = jax.random.normal(jax.random.key(0), (COUNT, *SHAPE))
    for t in (0.9, 0.3, 1e-3):
        x0 = bind({}, given)(x, jnp.asarray(t)).x0
        np.testing.assert_allclose(operator.apply(x0, given), given[MEASURED], atol=2e-3)
    solver = SOLVERS["ddpm"]()
    draw = compile_sample(bind, sde, solver, make_mesh(devices=jax.devices()[:1]), shape=SHAPE)
    plan = solver.plan(sde, GRIDS["uniform"]()(1.0, 1e-3, 30))
    samples = draw({}, plan, jax.random.split(jax.random.key(1), COUNT), given)
    np.testing.assert_allclose(operator.apply(samples, given), given[MEASURED], atol=2e-3)


def test_projection_is_weaker_than_the_noise_of_the_measurement():
    sde, operator = EDM(), Mask()
    given = given_of(operator, 0.4)
    denoise = DDNM(operator=operator, sde=sde)(lambda p, c: Gaussian(MEAN, ANY).denoise(sde))({}, given)
    plain = Gaussian(MEAN, ANY).denoise(sde)
    x = jax.random.normal(jax.random.key(0), (COUNT, *SHAPE))
    for t, share in ((1.0, 1.0), (0.4, 1.0), (0.1, 0.25)):
        before, after = plain(x, jnp.asarray(t)).x0, denoise(x, jnp.asarray(t)).x0
        want = before + share * given[MASK] * (given[MEASURED] - before)
        np.testing.assert_allclose(after, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_no_sample_sees_another_and_conditions_of_the_model_pass(name):
    sde, operator = VP(), Mask()
    given = given_of(operator, 0.2)
    seen = []

    def bind(parts, cond):
        seen.append(sorted(cond))
        return Gaussian(MEAN, ANY).denoise(sde)

    method = METHODS[name](operator=operator, sde=sde)
    x, t = jax.random.normal(jax.random.key(0), (COUNT, *SHAPE)), jnp.asarray(0.3)
    whole = compose(method)(bind)({}, {**given, "label": jnp.arange(COUNT)})(x, t)
    assert seen == [["known", "label"] if name == "conditional" else ["label"]]
    half = method(bind)({}, {key: value[:2] for key, value in given.items()})(x[:2], t)
    for a, b in zip(whole, half, strict=True):
        np.testing.assert_allclose(a[:2], b, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="cond has no noise_std, mask: a measurement is an input"):
        method(bind)({}, {MEASURED: given[MEASURED]})


@pytest.mark.usefixtures("x64")
def test_conjugate_gradients_end_after_as_many_steps_as_there_are_dimensions():
    roots = RNG.normal(size=(3, 5, 5))
    matrices = jnp.asarray(roots @ roots.transpose(0, 2, 1) + 0.5 * np.eye(5))
    y = jnp.asarray(RNG.normal(size=(3, 5))).at[1].set(0.0)  # nothing to do for the second
    got = conjugate_gradients(lambda v: jnp.einsum("bij,bj->bi", matrices, v), y, 8)
    want = np.linalg.solve(np.asarray(matrices), np.asarray(y)[..., None])[..., 0]
    np.testing.assert_allclose(got, want, atol=1e-8)


def test_without_a_pseudo_inverse_projection_is_refused():
    sde, operator = VP(), OPERATORS["function"]
    denoise = DDNM(operator=operator, sde=sde)(lambda p, c: lambda x, t: Estimate(x, x))
    with pytest.raises(ValueError, match="Function: its singular values are not known"):
        denoise({}, given_of(operator, 0.1))(jnp.zeros((COUNT, *SHAPE)), jnp.asarray(0.3))
