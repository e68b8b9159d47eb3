"""Step sizes against the formula, and against diffrax's own on an equation that gets harder along the way."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from score_sde.integrate import ode
from score_sde.integrate.step_sizes import StepSizes, first_step

CONTROL = StepSizes(rtol=1e-3, atol=1e-2)


def after(error, was_accepted=True, order=5):
    """Accepted, next start, next size and the state, of a step from 2 to 3 whose error is ``error``."""
    y0, y1 = jnp.array([1.0, -2.0, 0.0]), jnp.array([1.5, 1.0, -3.0])
    tolerated = 1e-2 + 1e-3 * jnp.array([1.5, 2.0, 3.0])
    estimate = error * tolerated * jnp.array([1.0, -1.0, 1.0])
    out = CONTROL.adapt_step_size(2.0, 3.0, y0, y1, None, estimate, order, jnp.asarray(was_accepted))
    return bool(out[0]), float(out[1]), float(out[2] - out[1]), bool(out[4])


@pytest.mark.parametrize("order", [2, 5])
@pytest.mark.parametrize("error", [0.3, 0.95])
def test_an_accepted_step_moves_on_and_may_shrink(error, order):
    accepted, start, size, state = after(error, order=order)
    assert accepted and state and start == 3.0
    np.testing.assert_allclose(size, 0.9 * error ** (-1 / order), rtol=1e-5)


@pytest.mark.parametrize("error", [1.01, 8.0])
def test_a_rejected_step_is_tried_again(error):
    accepted, start, size, state = after(error)
    assert not accepted and not state and start == 2.0
    np.testing.assert_allclose(size, 0.9 * error**-0.2, rtol=1e-5)


@pytest.mark.parametrize(("was_accepted", "most"), [(True, 10.0), (False, 1.0)])
def test_a_step_grows_tenfold_at_most_and_not_after_a_rejected_one(was_accepted, most):
    for error in (0.0, 1e-7):
        assert after(error, was_accepted) == (True, 3.0, most, True)


@pytest.mark.parametrize("error", [np.nan, np.inf, 1e30])
def test_what_is_not_finite_is_rejected_and_tried_at_a_fifth(error):
    accepted, start, size, _ = after(error)
    assert not accepted and start == 2.0
    np.testing.assert_allclose(size, 0.2, rtol=1e-6)


def solve(controller, rate):
    """``y' = -rate(t) y`` from 1 at 0 to 1, in float64: the solution and steps by kind."""
    with jax.enable_x64(True):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, _: -rate(t) * y),
            diffrax.Dopri5(),
            0.0,
            1.0,
            0.01,
            jnp.ones(3),
            stepsize_controller=controller,
            max_steps=512,
        )
        return np.asarray(solution.ys[-1]), {name: int(n) for name, n in solution.stats.items()}


def noising(t):
    """The linear schedule's, from data to noise."""
    return 0.5 * (0.1 + 19.9 * t)


def test_the_steps_are_those_of_scipy_with_fewer_in_vain_than_diffrax():
    scipy = solve_ivp(
        lambda t, y: -noising(t) * y, (0.0, 1.0), np.ones(3), "RK45", rtol=1e-5, atol=1e-5, first_step=0.01
    )
    same = 2e-5 / 3  # diffrax's estimate for dopri5 is two thirds of the usual one
    ours, stats = solve(StepSizes(same, same), noising)
    _, counted = solve(diffrax.PIDController(same, same), noising)
    np.testing.assert_allclose(ours, scipy.y[:, -1], rtol=1e-9)
    assert (stats["num_accepted_steps"], 1 + 6 * stats["num_steps"]) == (len(scipy.t) - 1, scipy.nfev)
    assert stats["num_rejected_steps"] < counted["num_rejected_steps"]


def test_the_error_falls_with_the_tolerance():
    solved = [solve(StepSizes(10.0**-k, 10.0**-k), lambda t: 4.0 * jnp.cos(9.0 * t))[0] for k in (3, 5, 7)]
    errors = [np.max(np.abs(y - np.exp(-4.0 * np.sin(9.0) / 9.0))) for y in solved]
    assert errors[0] > 10.0 * errors[1] > 100.0 * errors[2] and errors[2] < 1e-6


def decay(y, end=1.0):
    """``y' = -y`` from 0 to ``end``."""
    return ode.integrate_each(lambda t, y: -y, y, jnp.zeros_like(end), end, ode.Accuracy()).y


@pytest.mark.parametrize("times", [jnp.float32, jnp.float64])
def test_times_may_be_of_another_precision(times, x64):
    y = decay(jnp.ones((2, 3), jnp.float64), jnp.asarray(1.0, times))
    np.testing.assert_allclose(y, np.exp(-1.0), rtol=1e-4)
    assert y.dtype == jnp.float64


def test_the_derivative_is_that_of_the_flow_also_where_there_is_no_error():
    _, tangent = jax.jvp(decay, (jnp.zeros((2, 3)),), (jnp.ones((2, 3)),))
    np.testing.assert_allclose(tangent, np.exp(-1.0), rtol=1e-3)


def test_the_first_step_sees_how_steep_the_equation_is():
    # As a likelihood at the least noise: one of many entries is a log density that changes as log t.
    def field(t, y):
        return jnp.zeros_like(y).at[:, 0].set(2000.0 / t)

    found = ode.integrate_each(field, jnp.ones((2, 3000)), 1e-5, 1.0, ode.Accuracy(rtol=1e-4, atol=1e-4))
    want = 1.0 + 2000.0 * np.log(1e5)
    np.testing.assert_allclose(found.y[:, 0], want, rtol=2e-3)  # 21 % off after a first step of 0.01


def test_the_first_step_is_scipys():
    def field(t, y):
        return -y + 0.1 * jnp.sin(3.0 * t)

    start, tolerance = np.array([1.0, -0.3, 2.0]), 1e-4
    y0, sizes = jnp.asarray(start, jnp.float32), StepSizes(tolerance, tolerance)
    first, slope = first_step(field, jnp.float32(0.0), 1.0, y0, sizes, error_order=5)
    np.testing.assert_allclose(slope, field(0.0, start), rtol=1e-6)
    want = solve_ivp(lambda t, y: np.asarray(field(t, y)), (0, 1), start, rtol=tolerance, atol=tolerance)
    assert float(first) == pytest.approx(want.t[1], rel=1e-3)
