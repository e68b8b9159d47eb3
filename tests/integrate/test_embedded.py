"""Steps against diffrax's own, and what is left out where it has no weight."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.integrate import ode
from score_sde.integrate.embedded import Embedded
from score_sde.integrate.step_sizes import StepSizes

TIMES = np.array([0.0, 0.31, 1.7, 2.0])


def swing(t, y, args=None):
    """A pendulum that is pushed, and the sum of its squares."""
    x, _ = y
    slope = jnp.stack([x[..., 1], -jnp.sin(x[..., 0]) + jnp.cos(2.0 * t)], axis=-1)
    return slope, jnp.sum(x * x, axis=-1)


def begin(shape=()):
    return jnp.broadcast_to(jnp.array([1.0, 0.2]), (*shape, 2)), jnp.zeros(shape)


def light(t, y, args=None):
    slope, total = swing(t, y)
    return slope, jnp.zeros_like(total)


@pytest.mark.parametrize(
    ("method", "part"), [*((method, None) for method in ode.METHODS), ("dopri5", light), ("dopri8", light)]
)
@pytest.mark.usefixtures("x64")
def test_steps_error_and_interpolation_are_those_of_diffrax(method, part):
    own = getattr(diffrax, ode.METHODS[method].solver)()
    ours, theirs = (
        diffrax.diffeqsolve(
            diffrax.ODETerm(swing),
            solver,
            0.0,
            2.0,
            0.1,
            begin(),
            stepsize_controller=StepSizes(1e-4, 1e-4),
            saveat=diffrax.SaveAt(ts=TIMES, t1=True),
        )
        for solver in (Embedded(own, part), own)
    )
    for got, want in zip(ours.ys, theirs.ys, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)
    # With the same tolerances errors that differ would have been other steps.
    assert {name: int(n) for name, n in ours.stats.items()} == {
        name: int(n) for name, n in theirs.stats.items()
    }


@pytest.mark.parametrize("control", ode.CONTROLS)
@pytest.mark.parametrize(
    ("method", "spared"), [("dopri5", 1), ("dopri8", 4), pytest.param("tsit5", 0, marks=pytest.mark.slow)]
)
def test_sums_are_left_out_of_stages_without_weight(method, spared, control):
    calls = {"whole": 0, "light": 0}

    def count(name):
        calls[name] += 1

    def counting(name, field):
        def counted(t, y):
            jax.debug.callback(lambda: count(name))
            return field(t, y)

        return counted

    solution = ode.CONTROLS[control](
        counting("whole", swing),
        begin((3,)),
        0.0,
        2.0,
        ode.Accuracy(method=method),
        light=counting("light", light),
    )
    jax.effects_barrier()
    assert sum(calls.values()) == solution.evaluations[0]
    steps = (solution.evaluations[0] - 2) / ode.METHODS[method].evaluations
    assert calls["light"] == spared * steps and steps > 3


@pytest.mark.usefixtures("x64")
def test_a_solution_leads_back():
    there = ode.integrate_each(swing, begin((2,)), 0.0, 2.0, ode.Accuracy(1e-9, 1e-9), light=light)
    back = ode.integrate_each(swing, there.y, 2.0, 0.0, ode.Accuracy(1e-9, 1e-9), jnp.array([2.0, 1.0, 0.0]))
    for got, want in zip(back.y, begin((2,)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-7)
    for path, first, last in zip(back.path, there.y, begin((2,)), strict=True):
        np.testing.assert_allclose(path[0], first, atol=1e-9)
        np.testing.assert_allclose(path[2], last, atol=1e-7)


# In float32 the start and what lies between are more than the end.
@pytest.mark.parametrize(("start", "end"), [(0.0751327, 0.78836435), (0.15229496, 0.7348098)])
def test_no_stage_is_beyond_the_end_of_its_step(start, end):
    seen = []

    def field(t, y, args):
        jax.debug.callback(lambda t: seen.append(t), t)
        return -y

    start, end, y = jnp.float32(start), jnp.float32(end), jnp.ones(2)
    assert start + (end - start) > end
    Embedded(diffrax.Dopri5()).step(diffrax.ODETerm(field), start, end, y, None, -y, False)
    jax.effects_barrier()
    assert len(seen) == 6 and np.max(seen) == end
