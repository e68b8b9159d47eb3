"""Single steps of the predictors on a Gaussian, whose moments are known: at any scale of the noise."""

import numpy as np
import pytest

from score_sde.sde import EDM, VE, VP
from score_sde.solvers.base import marginals
from score_sde.solvers.predictors import PREDICTORS

STD = 0.7


def variance_after(move, sde, t):
    """Of data of standard deviation ``STD`` after one move with the exact model, which is linear in x."""
    at = marginals(sde, t)
    total = (at.alpha * STD) ** 2 + at.sigma**2
    x0, noise = at.alpha * STD**2 / total, at.sigma / total
    return (move.of_x + move.of_x0 * x0 + move.of_noise * noise) ** 2 * total + move.noise_gain**2


@pytest.mark.parametrize("noise_scale", [0.0, 0.3, 0.5, 1.0, 1.4])
@pytest.mark.parametrize("name", ["euler_maruyama", "reverse_diffusion"])
@pytest.mark.parametrize("sde", [VP(), VE(), EDM()], ids=["vp", "ve", "edm"])
def test_a_step_keeps_the_variance_of_the_process_at_any_noise_scale(sde, name, noise_scale):
    # dx = (f x - (1 + scale^2) / 2 g^2 score) dt + scale g dw has the marginals of the process for every
    # scale (arXiv:2106.02808, eq. 14), so that a step errs by the square of its size.
    t = np.array([0.6])
    errors = []
    for step in (4e-3, 2e-3):
        move = PREDICTORS[name](sde, t, t - step, noise_scale)
        to = marginals(sde, t - step)
        want = (to.alpha * STD) ** 2 + to.sigma**2
        errors.append(abs(float(variance_after(move, sde, t)[0] - want[0])) / want[0])
    assert errors[1] < 0.3 * errors[0] + 1e-12


@pytest.mark.parametrize("noise_scale", [0.0, 0.5, 1.0])
def test_ancestral_steps_put_data_without_spread_where_they_belong(noise_scale):
    # For one point x0 is exact, and the posterior, or DDIM's, keeps the variance sigma^2 whatever eta is.
    sde, t, s = VP(), np.array([0.6]), np.array([0.4])
    move, at, to = PREDICTORS["ancestral"](sde, t, s, noise_scale), marginals(sde, t), marginals(sde, s)
    np.testing.assert_allclose(move.of_x**2 * at.sigma**2 + move.noise_gain**2, to.sigma**2, rtol=1e-9)
    np.testing.assert_allclose(move.of_x * at.alpha + move.of_x0, to.alpha, rtol=1e-9)
    assert (move.noise_gain[0] > 0) == (noise_scale > 0)
