"""Measured order of convergence of every solver that is a table, on every process."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.denoiser import velocity_from
from score_sde.sde import EDM, VE, VP, Cosine, Flow, SubVP
from score_sde.solvers import GRIDS, SOLVERS
from score_sde.solvers.base import marginals
from score_sde.solvers.table import Table, TableSolver
from tests.oracles import Gaussian, Mixture

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
NARROW = Gaussian(np.array([1.0, -2.0]), np.array([0.15, 0.3]))
PROCESSES = {
    "vp": (VP(), 0.05),
    "subvp": (SubVP(), 0.1),
    "ve": (VE(), 0.4),
    "edm": (EDM(), 0.1),
    "cosine": (Cosine(), 0.1),
    "flow": (Flow(), 0.1),
}
# A multistep method starts at order 1, where what it predicts is almost constant: the error of that, of
# h^2 / sigma_max^2, is a tenth of all on VE's 50 with 320 steps.  From a noisier start it is out of sight.
STARTS = {("lms", "ve"): (VE(sigma_max=500.0), 0.314)}
TABLES = {key: make for key, make in SOLVERS.items() if issubclass(make, TableSolver)}


def process(key, name):
    """The process, and the end of the grid."""
    return STARTS.get((key, name), PROCESSES[name])


# Every member as it comes, and every form that it can take.
MEMBERS = {key: make() for key, make in TABLES.items() if key != "restart"}
VARIANTS = {
    "exact_1": SOLVERS["multistep"](order=1),
    "exact_3": SOLVERS["multistep"](order=3),
    "exact_noise_3": SOLVERS["multistep"](order=3, prediction="noise"),
    "exact_corrected": SOLVERS["multistep"](order=2, corrector_order=3),
    "exact_velocity": SOLVERS["multistep"](prediction="velocity", basis="t"),
    "dpm_2m_taylor": SOLVERS["dpm_2m"](form="taylor"),
    "dpmpp_2m_taylor": SOLVERS["dpmpp_2m"](form="taylor"),
    "dpmpp_3m_exact": SOLVERS["dpmpp_3m"](form="exact"),
    "unipc_1": SOLVERS["unipc"](order=1),
    "unipc_3": SOLVERS["unipc"](order=3),
    "unipc_bh1": SOLVERS["unipc"](form="bh1"),
    "unipc_noise": SOLVERS["unipc"](prediction="noise"),
    "unipc_vary": SOLVERS["unipc"](form="vary"),
    "unipc_exact": SOLVERS["unipc"](form="exact"),
    "deis_rho": SOLVERS["deis"](basis="rho", order=2),
    "lms_2": SOLVERS["lms"](order=2),
    "lms_3": SOLVERS["lms"](order=3),
    "heun_rho": SOLVERS["heun"](space="rho"),
    "heun_ralston": SOLVERS["heun"](stage=2 / 3),
    "rk4_rho": SOLVERS["rk4"](space="rho"),
    "dpm_3s_midpoint": SOLVERS["dpm_3s"](inner="midpoint"),
    "dpm_2s_taylor": SOLVERS["dpm_2s"](form="taylor"),
    "dpmpp_3s_taylor": SOLVERS["dpmpp_3s"](form="taylor"),
    "dpmpp_sde_0": SOLVERS["dpmpp_sde"](eta=0.0),
    "ddim_eta": SOLVERS["ddim"](eta=0.5),
    "sde_dpmpp_2m_half": SOLVERS["sde_dpmpp_2m"](eta=0.5),
    "dpm_2s_ancestral": SOLVERS["dpm_2s"](eta=1.0),
    "dpmpp_2s_ancestral": SOLVERS["dpmpp_2s"](eta=1.0),
    "stochastic_heun_half": SOLVERS["stochastic_heun"](noise_scale=0.5),
}
ALL = {k: dataclasses.replace(s, denoise=False) for k, s in (MEMBERS | VARIANTS).items()}


def is_stochastic(solver):
    return any(getattr(solver, name, 0) for name in ("eta", "noise_scale")) or type(solver).__name__ == "DDPM"


STOCHASTIC = [
    k for k, s in ALL.items() if "ancestral" in k or (is_stochastic(s) and not hasattr(s, "s_churn"))
]
DETERMINISTIC = [k for k in ALL if k not in STOCHASTIC]


# Data, grid and steps where the leading term of the error has taken over, if not the usual ones.
USUAL = (DATA, "log_snr", 80)
SETTINGS = {
    "dpmpp_3m": (DATA, "log_snr", 160),
    "exact_3": (NARROW, "log_snr", 160),
    "exact_noise_3": (NARROW, "log_snr", 160),
    "dpmpp_3m_exact": (NARROW, "log_snr", 160),
    "deis": (DATA, "log_snr", 160),
    "lms": (NARROW, "log_snr", 320),
    "lms_3": (DATA, "log_snr", 160),
    "unipc_3": (DATA, "log_snr", 160),
    "unipc_vary": (DATA, "log_snr", 160),
    "heun_ralston": (DATA, "log_snr", 160),
}


def settings(key):
    """Data, grid and the smaller number of steps."""
    return SETTINGS.get(key, USUAL)


COSTLY = ("stochastic_heun_half", "sde_dpmpp_3m", "lms_3", "unipc_vary", "heun_ralston", "rk4_rho")

# Symmetric methods gain an order on some processes when the data are Gaussian: their errors cancel.
BETTER = {("midpoint", "edm"): 3, ("midpoint", "flow"): 3, ("stochastic_heun", "edm"): 3}


@functools.cache
def runner(sde, data):
    denoise = data.denoise(sde)
    return jax.jit(lambda x, plan: Table().run(denoise, None, x, plan, None))


def flow_error(solver, process, data, grid, steps):
    sde, end = process
    x0 = data.sample(jax.random.key(0), 8)
    x = data.flow(sde, x0, end, sde.t_max)
    make = GRIDS[grid]
    plan = solver.plan(sde, make(sde)(sde.t_max, end, steps))
    return float(jnp.sqrt(jnp.mean((runner(sde, data)(x, plan) - x0) ** 2)))


def spread(keys, common):
    """Every key on the common processes, and on the others in the slow tests."""

    def is_common(key, name):
        return name in common and (key in MEMBERS or name == common[0]) and key not in COSTLY

    return [
        pytest.param(key, name, marks=() if is_common(key, name) else pytest.mark.slow)
        for key in keys
        for name in PROCESSES
    ]


@pytest.mark.parametrize(("key", "name"), spread(DETERMINISTIC, ("vp", "edm")))
@pytest.mark.usefixtures("x64")
def test_order_of_convergence_to_the_exact_flow(key, name):
    solver, (data, grid, steps) = ALL[key], settings(key)
    errors = [flow_error(solver, process(key, name), data, grid, n) for n in (steps, 2 * steps)]
    assert errors[1] < 0.06  # the limit is the exact flow
    expected = BETTER.get((key, name), solver.accuracy)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)


def variance_error(solver, name, steps):
    sde, end = PROCESSES[name]
    data = Gaussian(np.zeros(1), np.array([0.6]))
    times = GRIDS["log_snr"](sde)(sde.t_max, end, steps)
    at = marginals(sde, times[[0, -1]])
    start, want = (at.alpha * 0.6) ** 2 + at.sigma**2
    # Everything is linear: sample 0 starts from one, sample i has noise number i only.
    count = 2 * steps + 1
    x = jnp.zeros((count, 1)).at[0].set(jnp.sqrt(start))
    plan = solver.plan(sde, times)
    run = jax.jit(
        lambda x, plan: Table().run(
            data.denoise(sde), None, x, plan, lambda i: (jnp.arange(count) == i)[:, None].astype(x.dtype)
        )
    )
    return float(abs(jnp.sum(run(x, plan) ** 2) / want - 1))


def weak_steps(key, name):
    """Steps where the leading term of the error has taken over."""
    found = {
        "stochastic_heun_half": 640,
        "sde_dpmpp_3m": 320,
        "stochastic_heun": 160,
        "sde_dpmpp_2m_half": 160,
    }
    return found.get(key, 80)


@pytest.mark.parametrize(("key", "name"), spread(STOCHASTIC, ("vp",)))
@pytest.mark.usefixtures("x64")
def test_weak_order_of_the_variance(key, name):
    solver, steps = ALL[key], weak_steps(key, name)
    errors = [variance_error(solver, name, n) for n in (steps, 2 * steps)]
    assert errors[1] < 0.1  # the limit is the right variance
    expected = BETTER.get((key, name), solver.accuracy)
    assert np.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)


def mixture_flow(sde, x, times):
    """The flow of a mixture by many steps of RK4: nothing but a velocity in common with what is tested."""
    denoise = MIXTURE.denoise(sde)

    def velocity(x, t):
        return velocity_from(sde, denoise(x, t), t)

    def step(x, interval):
        t, s = interval
        h = s - t
        k1 = velocity(x, t)
        k2 = velocity(x + h / 2 * k1, t + h / 2)
        k3 = velocity(x + h / 2 * k2, t + h / 2)
        k4 = velocity(x + h * k3, s)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]


MIXTURE = Mixture(np.array([[0.8, 0.0], [-0.6, 0.5], [0.0, -0.9]]), 0.3)


@functools.cache
def on_the_mixture(sde, end):
    """The exact end, and the ends of plans, on a process."""
    x = sde.prior_sigma * jax.random.normal(jax.random.key(1), (8, 2))
    times = GRIDS["log_snr"](sde)(sde.t_max, end, 4000)
    want = jax.jit(lambda x, times: mixture_flow(sde, x, times))(x, times)
    return want, jax.jit(lambda plan: Table().run(MIXTURE.denoise(sde), None, x, plan, None))


# Where the leading term takes over later.
MIXTURE_STEPS = {"unipc_3": 320, "lms": 320}


def mixture_order(key, name):
    """From the error at n and 2 n steps."""
    sde, end = process(key, name)
    want, run = on_the_mixture(sde, end)
    steps = MIXTURE_STEPS.get(key, 160)
    plans = [ALL[key].plan(sde, GRIDS["log_snr"](sde)(sde.t_max, end, n)) for n in (steps, 2 * steps)]
    errors = [float(jnp.sqrt(jnp.mean((run(plan) - want) ** 2))) for plan in plans]
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("key", "name"),
    [
        pytest.param(key, name, marks=() if (key, name) == ("unipc", "vp") else pytest.mark.slow)
        for name in PROCESSES
        for key in DETERMINISTIC
    ],
)
@pytest.mark.usefixtures("x64")
def test_order_of_convergence_on_a_mixture(key, name):
    assert mixture_order(key, name) == pytest.approx(ALL[key].accuracy, abs=0.15)


@pytest.mark.parametrize(
    "name", ["vp", *(pytest.param(n, marks=pytest.mark.slow) for n in PROCESSES if n != "vp")]
)
@pytest.mark.usefixtures("x64")
def test_restarts_have_order_two_for_given_noise(name):
    # Between its jumps a restart is a flow, which is known: so is the end, once the noise of the jumps is.
    sde, end = PROCESSES[name]
    steps, draws = 80, jax.random.normal(jax.random.key(2), (3, 8, 2))
    times = [GRIDS["log_snr"](sde)(sde.t_max, end, n) for n in (steps, 2 * steps)]
    low = marginals(sde, times[0]).pick(3 * steps // 4)  # a time of both grids
    rho = float(low.rho)
    top = marginals(sde, np.asarray(sde.time_of(jnp.asarray([-2 * np.log(4 * rho)])))).pick(0)
    kept = float(top.alpha / low.alpha)
    added = float(np.sqrt(top.sigma**2 - (kept * low.sigma) ** 2))
    start = DATA.flow(sde, DATA.sample(jax.random.key(0), 8), end, sde.t_max)
    x = DATA.flow(sde, start, sde.t_max, float(low.t))
    for z in draws[1:]:
        x = DATA.flow(sde, kept * x + added * z, float(top.t), float(low.t))
    x, errors = DATA.flow(sde, x, float(low.t), end), []
    for n, grid in zip((steps, 2 * steps), times, strict=True):
        solver = SOLVERS["restart"](
            restart_steps=n // 4, restart_min=rho * (1 + 1e-9), restart_max=4 * rho, denoise=False
        )
        plan = solver.plan(sde, grid)
        run = jax.jit(lambda plan: Table().run(DATA.denoise(sde), None, start, plan, lambda i: draws[i]))
        got = run(plan)
        errors.append(float(jnp.sqrt(jnp.mean((got - x) ** 2))))
    assert errors[1] < 0.01
    assert np.log2(errors[0] / errors[1]) == pytest.approx(solver.accuracy, abs=0.15)


def test_every_solver_states_its_evaluations():
    sde, grid = VP(), np.linspace(1.0, 1e-2, 13)
    for key, solver in MEMBERS.items():
        rows = solver.plan(sde, grid).rows.rows
        extra = 1 + {"plms": 1, "pndm": 9}.get(key, 0)  # for the last move, and what a start takes
        assert len(rows.t) == 12 * solver.evaluations + extra, key
        assert rows.closes.sum() == rows.opens.sum() == 13
