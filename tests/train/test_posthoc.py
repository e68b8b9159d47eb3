"""Power averages: the profile the paper states, and averages made of others after the fact."""

import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.train.ema import EMAS, exponent
from score_sde.train.posthoc import combine, inner


def average(values, sigma_rel, keep=()):
    """The running average of ``values`` of updates 1, 2, ..., and what it was at ``keep``."""
    decays = np.asarray(EMAS["power"](sigma_rel)(jnp.arange(len(values))), np.float64)
    mean, kept = 1e9, {}  # any initial value is forgotten at once
    for n, (value, decay) in enumerate(zip(values, decays, strict=True), start=1):
        mean = mean + (1 - decay) * (value - mean)
        if n in keep:
            kept[n] = mean
    return mean, kept


def test_exponents_are_those_of_the_paper():
    # Karras et al. 2024, section 3.1: 6.94 for 0.10, 16.97 for 0.05.
    assert exponent(0.10) == pytest.approx(6.94, abs=5e-3)
    assert exponent(0.05) == pytest.approx(16.97, abs=5e-3)
    with pytest.raises(ValueError, match=r"sigma_rel = 0.3: must be between 0 and 0.2887"):
        exponent(0.3)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_weights_have_the_stated_mean_and_deviation(sigma_rel):
    n = np.arange(1, 4001, dtype=np.float64)
    gamma = exponent(sigma_rel)
    first, second = average(n, sigma_rel)[0], average(n**2, sigma_rel)[0]
    assert first / 4000 == pytest.approx((gamma + 1) / (gamma + 2), rel=1e-3)
    assert np.sqrt(second - first**2) / 4000 == pytest.approx(sigma_rel, rel=5e-3)


def test_inner_products_are_the_integrals():
    tau = (np.arange(200_000) + 0.5) / 200_000 * 9.0

    def weights(t, gamma):
        return np.where(tau <= t, (gamma + 1) * tau**gamma / t ** (gamma + 1), 0.0)

    for t_a, a, t_b, b in ((9.0, 3.0, 9.0, 3.0), (4.0, 2.0, 7.0, 6.0), (9.0, 17.0, 2.0, 7.0)):
        numeric = np.sum(weights(t_a, a) * weights(t_b, b)) * 9.0 / len(tau)
        assert inner(*map(np.array, (t_a, a, t_b, b))) == pytest.approx(numeric, rel=1e-4)


def test_its_own_average_is_found_again():
    plan = combine([100, 200, 300], 0.1, 200, 0.1)
    np.testing.assert_allclose(plan.weights, [0, 1, 0], atol=1e-9)
    assert plan.error < 1e-6


@pytest.mark.parametrize("wanted", [0.06, 0.15])
def test_another_average_is_made_of_kept_ones(wanted):
    n = np.arange(1, 2001)
    values = np.sin(n / 150) + 5 * np.exp(-n / 300)  # parameters that drift and settle
    steps = list(range(100, 2001, 100))
    _, kept = average(values, 0.1, steps)
    plan = combine(steps, 0.1, 2000, wanted)
    direct = average(values, wanted)[0]
    made = plan.weights @ [kept[step] for step in steps]
    assert plan.error < 0.1
    gamma, last = np.array(exponent(wanted)), np.array(2000.0)
    bound = plan.error * np.sqrt(inner(last, gamma, last, gamma) * np.sum(values**2))  # Cauchy-Schwarz
    assert abs(made - direct) <= bound
    assert abs(made - direct) < 0.25 * abs(kept[2000] - direct)
    few = combine(steps[9::10], 0.1, 2000, wanted)
    assert few.error > 2 * plan.error


def test_each_update_keeps_the_share_that_the_power_says():
    # (1 - 1/n)^(gamma + 1) for update n = 1, 2, ...: nothing of what was there before the first.
    n = np.arange(1, 50)
    got = EMAS["power"](0.1)(jnp.asarray(n - 1))
    np.testing.assert_allclose(got, (1 - 1 / n) ** (exponent(0.1) + 1), rtol=1e-5, atol=1e-30)
