"""The official samplers, step for step, against recordings with the recorded noise."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.sde import DDPM, EDM, SMLD, VE, VP, SubVP
from score_sde.solvers import LegacyODE, LegacyPC
from tests.conftest import DATA
from tests.oracles import Gaussian

SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE()}
PREDICTORS = {
    "euler_maruyama": "euler_maruyama",
    "reverse_diffusion": "reverse_diffusion",
    "ancestral_sampling": "ancestral",
    "none": "none",
}
with np.load(DATA / "samplers_analytic.npz") as file:
    RECORDED = dict(file)
MODEL = Gaussian(RECORDED["mu"], RECORDED["s"])
CASES = sorted(k for k in RECORDED if "|x" in k and not k.startswith("N20|vp|ancestral"))


def recorded_noise():
    """One PCG64(777) normal a draw, in the order of the draws; the first is the prior's."""
    generator = np.random.Generator(np.random.PCG64(777))
    return jnp.stack(
        [jnp.asarray(generator.standard_normal((4, 3, 8, 8)).astype(np.float32)) for _ in range(301)]
    )


NOISE = recorded_noise()


def times(name, steps):
    return np.linspace(1.0, 1e-5 if name == "ve" else 1e-3, steps + 1)


def solve(solver, sde, x, plan, noise=None):
    denoise = MODEL.denoise(sde)

    @jax.jit
    def run(x, plan):
        return solver.finish(denoise, solver.run(denoise, sde, x, plan, noise), plan)

    return np.asarray(run(x, plan))


@pytest.mark.parametrize("case", CASES)
def test_predictor_corrector_equals_the_recording(case):
    steps, name, predictor, corrector, *rest = case.split("|")
    solver = LegacyPC(
        predictor=PREDICTORS[predictor],
        corrector=corrector,
        corrector_steps=3 if "nsteps3" in rest else 1,
        noise_scale=0.0 if "pf" in rest else 1.0,
        denoise=case.endswith("_mean"),
    )
    sde = SDES[name]
    plan = solver.plan(sde, times(name, int(steps[1:])))
    got = solve(solver, sde, sde.prior_sigma * NOISE[0], plan, lambda i: NOISE[i])
    # float32 against float32: a few ulp a step, scaled by the largest value.
    want = RECORDED[case]
    np.testing.assert_allclose(got, want, atol=2e-5 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("name", SDES)
def test_ode_sampler_equals_the_recording_and_the_exact_flow(name, denoise, fixture):
    d, sde, solver = fixture("ode_sampler_analytic"), SDES[name], LegacyODE(denoise=denoise)
    plan = solver.plan(sde, times(name, 1000))
    got = solve(solver, sde, jnp.asarray(d["z_unit"]) * sde.prior_sigma, plan)
    # Two integrators with tolerance 1e-5, neither exact: ours is 2e-4 off the closed form for sub-VP.
    np.testing.assert_allclose(got, d[f"{name}|x_denoise{denoise:d}"], atol=4e-4)
    if not denoise:
        np.testing.assert_allclose(got, d[f"{name}|x_exact"], atol=3e-4)


def test_the_last_official_move_differs_from_tweedie():
    sde, grid = VP(), times("vp", 1000)
    legacy, right = LegacyODE().plan(sde, grid).finish, LegacyODE.__mro__[1]().plan(sde, grid).finish
    # In terms of the score, -noise / sigma, at t = 1e-3: beta_0 = 1e-4 there against sigma^2 = 1.0994e-4.
    sigma = float(sde.sigma(jnp.float32(1e-3)))
    alpha = float(sde.alpha(jnp.float32(1e-3)))
    assert -legacy.of_noise * sigma == pytest.approx(1e-4, rel=1e-3)
    assert right.of_x0 * sigma**2 / alpha == pytest.approx(1.0994e-4 / alpha, rel=1e-3)


def test_discrete_models_are_sampled_from_their_table():
    # A DDPM network's noise must be divided by the table's sigma at the truncated index.
    sde, solver = DDPM(steps=100), LegacyPC(predictor="ancestral")
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 101))
    betas = np.linspace(0.1 / 100, 20 / 100, 100)
    sigmas = np.sqrt(1 - np.cumprod(1 - betas))
    grid = np.linspace(np.float32(1), np.float32(1e-3), 100, dtype=np.float32)
    index = (grid * np.float32(99)).astype(int)
    move = plan.rows.predict
    want = -betas[index] / sigmas[index] / np.sqrt(1 - betas[index])
    np.testing.assert_allclose(move.of_noise, want, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LegacyPC().plan(EDM(), np.linspace(80, 0.002, 11)), "exists for VP, DDPM"),
        (lambda: LegacyPC(predictor="ancestral").plan(SubVP(), times("subvp", 50)), "never defined"),
        (lambda: LegacyPC(predictor="ancestral").plan(VP(), times("vp", 20)), "more steps"),
        (lambda: LegacyPC(predictor="ancestral").plan(VP(), times("vp", 12)), "more steps"),
    ],
)
def test_what_was_never_defined_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_ode_plans_a_short_grid_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LegacyODE().plan(VP(), times("vp", 12))


def test_smld_equals_ve():
    grid = times("ve", 30)
    a, b = (LegacyPC(predictor="ancestral").plan(s, grid).rows for s in (VE(), SMLD()))
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(left, right)
