import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.integrate.fixed_steps import METHODS
from score_sde.integrate.ode import integrate_on

ORDERS = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4, "adams": 4}
UNEVEN = np.array([0.0, 0.3, 0.4, 0.9, 1.1, 1.6, 2.0])


def test_adams_weights_of_even_steps_are_bashforths(x64):
    how = METHODS["adams"](jnp.linspace(1.0, 3.0, 21))
    # Once the last four slopes are a step apart.
    np.testing.assert_allclose(how.weights[-15:], 0.1 * np.tile([55, -59, 37, -9], (15, 1)) / 24, atol=1e-12)
    np.testing.assert_allclose(how.weights[0], [0.1 / 2**8, 0, 0, 0], rtol=1e-9)
    np.testing.assert_array_equal(how.interval, [0] * 9 + list(range(1, 20)))


@pytest.mark.parametrize(("method", "degree"), [("euler", 0), ("heun", 1), ("midpoint", 1), ("rk4", 3)])
def test_integrals_of_polynomials_are_exact_on_any_grid(method, degree, x64):
    found = integrate_on(
        lambda t, y: t[:, None] ** degree, jnp.zeros((1, 1)), METHODS[method](jnp.array(UNEVEN)), 6
    )
    np.testing.assert_allclose(found.path[:, 0, 0], UNEVEN ** (degree + 1) / (degree + 1), atol=1e-12)
    np.testing.assert_array_equal(found.y, found.path[-1])


def test_adams_integrates_cubics_exactly_once_it_has_four_slopes(x64):
    found = integrate_on(
        lambda t, y: t[:, None] ** 3, jnp.zeros((1, 1)), METHODS["adams"](jnp.array(UNEVEN)), 6
    )
    np.testing.assert_allclose(np.diff(found.path[:, 0, 0])[1:], np.diff(UNEVEN**4 / 4)[1:], atol=1e-12)
    assert found.path[1, 0, 0] == pytest.approx(0.3**4 / 4, abs=1e-9)  # the lower orders of the start
    assert int(found.evaluations[0]) == 6 + 8


@pytest.mark.parametrize("method", METHODS)
def test_order_on_an_equation(method, x64):
    def error(steps):
        how = METHODS[method](jnp.linspace(0.0, 3.0, steps + 1))
        found = integrate_on(lambda t, y: jnp.cos(t)[:, None] * y, jnp.ones((1, 1)), how, steps)
        return abs(float(found.y[0, 0]) - np.exp(np.sin(3.0)))

    assert np.log2(error(80) / error(160)) == pytest.approx(ORDERS[method], abs=0.35)
