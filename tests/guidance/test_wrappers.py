"""Thresholds, a change of process, and what is made of several."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.denoiser import Estimate
from score_sde.guidance import ChangeProcess, Dynamic, Static, compose
from score_sde.guidance.base import Guidance
from score_sde.sampling.draw import sample, sample_keys
from score_sde.sde import DDPM, EDM, VP, Flow
from score_sde.solvers import GRIDS, SOLVERS
from score_sde.solvers.base import marginals
from tests.oracles import Gaussian, denoise_by

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))


def guided(guidance, denoise):
    return guidance(lambda params, cond: denoise)({}, {})


def across(denoise, trained, sampled, **options):
    return guided(ChangeProcess(trained=trained, sampled=sampled, **options), denoise)


# --- change of process -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trained", "sampled", "t"),
    [(VP(), EDM(), 3.0), (EDM(), VP(), 0.5), (Flow(), VP(), 0.3), (VP(), Flow(), 0.7), (DDPM(), EDM(), 1.0)],
)
@pytest.mark.usefixtures("x64")
def test_a_model_of_one_process_is_exact_on_another(trained, sampled, t):
    x = jax.random.normal(jax.random.key(0), (16, 2)) * sampled.sigma(jnp.asarray(t))
    got = across(DATA.denoise(trained), trained, sampled)(x, jnp.asarray(t))
    each = across(DATA.denoise(trained), trained, sampled)(x, jnp.full(16, t))
    for one, other, want in zip(got, each, DATA.denoise(sampled)(x, jnp.asarray(t)), strict=True):
        np.testing.assert_allclose(one, want, rtol=1e-7)
        np.testing.assert_allclose(other, one, rtol=1e-10)


def test_a_vp_model_samples_on_the_grid_of_edm():
    trained, sampled, solver = VP(), EDM(), SOLVERS["dpmpp_2m"]()
    denoise = across(DATA.denoise(trained), trained, sampled)
    plan = solver.plan(sampled, GRIDS["edm"](sampled)(80.0, 0.0, 40))
    keys = sample_keys(0, jnp.arange(4096))
    x = np.asarray(jax.jit(lambda k: sample(k, denoise, sampled, solver, plan, shape=(2,)))(keys))
    error = 5 / np.sqrt(4096)
    assert np.all(np.abs(x.mean(0) - DATA.mean) < error * DATA.std)
    assert np.all(np.abs(x.std(0) / DATA.std - 1) < error / np.sqrt(2) + 0.01)


def test_a_discrete_model_is_asked_for_its_levels_only():
    asked = []
    trained, sampled = DDPM(steps=10, beta_max=5.0), EDM()

    def denoise(x, t):
        asked.append(float(t) * 9)
        return DATA.denoise(trained)(x, t)

    for level in (0.1, 1.0, 5.0, 1e5):
        x = jnp.array([[1.5, -2.0]]) * (1 + level)
        got = across(denoise, trained, sampled, levels=10)(x, jnp.asarray(level))
        np.testing.assert_allclose(got.x0 + level * got.noise, x, rtol=1e-5)  # also between the levels
    np.testing.assert_allclose(asked, np.round(asked), atol=1e-5)
    assert asked[-1] == pytest.approx(9)  # beyond the last level: the last


# --- thresholds ------------------------------------------------------------------------------------


def test_thresholds_limit_x0():
    x = jnp.array([[0.5, -2.0, 4.0, 1.0], [0.1, 0.2, -0.3, 0.4]])
    sde, t = VP(), jnp.float32(0.3)

    def limited(threshold, x):
        return guided(threshold, denoise_by(sde, lambda x, t: x))(x, t).x0

    np.testing.assert_array_equal(limited(Static(sde=sde), x), np.clip(x, -1, 1))
    got = limited(Dynamic(sde=sde, threshold_quantile=1.0), x)
    np.testing.assert_allclose(got[0], np.asarray(x[0]) / 4)  # scaled by its largest
    np.testing.assert_array_equal(got[1], x[1])  # inside already
    got = limited(Dynamic(sde=sde, threshold_quantile=0.5), x)
    np.testing.assert_allclose(got[0], np.clip(x[0], -1.5, 1.5) / 1.5)  # the median of absolute values
    unit = (x + 1) / 2  # data in [0, 1] are treated as those in [-1, 1]
    np.testing.assert_array_equal(limited(Static(sde=sde, low=0.0, high=1.0), unit), np.clip(unit, 0, 1))
    again = limited(Dynamic(sde=sde, threshold_quantile=0.5, low=0.0, high=1.0), unit)
    np.testing.assert_allclose(again, (got + 1) / 2, atol=1e-6)
    with pytest.raises(ValueError, match=r"threshold_quantile = 2\.0"):
        Dynamic(sde=sde, threshold_quantile=2.0)


@pytest.mark.parametrize("make", [Static, Dynamic])
def test_a_threshold_keeps_the_pair_consistent_and_the_noise_where_nothing_is_limited(make):
    sde, t = VP(), jnp.array([1e-3, 0.2, 0.4])
    x = jnp.array([[0.5, -0.3], [2.0, 3.0], [2.0, -7.0]])
    plain = DATA.denoise(sde)(x, t)
    got = guided(make(sde=sde), DATA.denoise(sde))(x, t)
    np.testing.assert_allclose(
        expand(sde.alpha(t), x) * got.x0 + expand(sde.sigma(t), x) * got.noise, x, rtol=1e-6
    )
    assert np.all(np.abs(got.x0) <= 1) and np.all(np.abs(plain.x0[1:]).max(axis=1) > 1)
    np.testing.assert_array_equal(got.noise[0], plain.noise[0])
    kept = guided(make(sde=sde, keep_noise=True), DATA.denoise(sde))(x, t)
    np.testing.assert_array_equal(kept.x0, got.x0)
    np.testing.assert_array_equal(kept.noise, plain.noise)


def test_ddim_steps_with_the_noise_that_the_threshold_leaves():
    # diffusers' DDIM with clip_sample: alpha_s clip(x0) + sigma_s noise, that of the unclipped prediction.
    sde, times = VP(), np.array([1.0, 0.4])
    end = marginals(sde, times[1:])
    x, solver = jnp.array([[3.0, -2.5]]), SOLVERS["ddim"](denoise=False)
    x0, noise = jnp.array([[1.7, 0.2]]), jnp.array([[0.3, -0.8]])
    denoise = guided(Static(sde=sde, keep_noise=True), lambda x, t: Estimate(x0, noise))
    got = solver.run(denoise, sde, x, solver.plan(sde, times), None)
    np.testing.assert_allclose(
        got, end.alpha * np.array([[1.0, 0.2]]) + end.sigma * np.asarray(noise), rtol=1e-5
    )


# --- several ---------------------------------------------------------------------------------------


def test_the_first_of_several_is_the_innermost_and_each_has_its_inputs():
    class Named(Guidance):
        def __init__(self, name):
            self.name = name

        def __call__(self, bind):
            return lambda params, cond: (self.name, bind(params, cond))

        def inputs(self, count):
            return {self.name: np.zeros(count)}

    both = compose(Named("inner"), Named("outer"))
    assert both(lambda params, cond: "model")({}, {}) == ("outer", ("inner", "model"))
    assert {name: len(value) for name, value in both.inputs(3).items()} == {"inner": 3, "outer": 3}


def test_ddim_with_a_kept_noise_is_the_clipped_one_of_diffusers():
    sde, solver, times = VP(), SOLVERS["ddim"](denoise=False), np.linspace(0.9, 0.1, 5)
    first = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

    def plain(x, t):
        noise = jnp.sin(2.0 * x) + t
        return Estimate((x - sde.sigma(t) * noise) / sde.alpha(t), noise)

    def run(keep_noise):
        denoise = guided(Static(sde=sde, low=-0.5, high=0.5, keep_noise=keep_noise), plain)
        return solver.run(denoise, sde, jnp.asarray(first), solver.plan(sde, times), None)

    x = first
    for t, s in itertools.pairwise(times):
        (a, b), (c, d) = ((float(sde.alpha(u)), float(sde.sigma(u))) for u in (t, s))
        noise = np.sin(2.0 * x) + t
        x = c * np.clip((x - b * noise) / a, -0.5, 0.5) + d * noise
    np.testing.assert_allclose(run(keep_noise=True), x, atol=1e-5)
    assert np.abs(run(keep_noise=False) - x).max() > 0.1
