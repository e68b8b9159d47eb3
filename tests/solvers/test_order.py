"""Measured order of convergence of every solver that is a table, on every process."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.sde import EDM, VE, VP, Cosine, Flow, SubVP
from score_sde.solvers import GRIDS, SOLVERS
from score_sde.solvers.base import marginals
from score_sde.solvers.table import Table, TableSolver
from tests.oracles import Gaussian, Mixture

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
PROCESSES = {
    "vp": (VP(), 0.05),
    "subvp": (SubVP(), 0.1),
    "ve": (VE(), 0.4),
    "edm": (EDM(), 0.1),
    "cosine": (Cosine(), 0.1),
    "flow": (Flow(), 0.1),
}
TABLES = {key: make for key, make in SOLVERS.items() if issubclass(make, TableSolver)}

# Every member as it comes, and every form that it can take.
MEMBERS = {key: make() for key, make in TABLES.items() if key != "restart"}
VARIANTS = {
    "exact_1": SOLVERS["multistep"](order=1),
    "exact_3": SOLVERS["multistep"](order=3),
    "exact_noise_3": SOLVERS["multistep"](order=3, prediction="noise"),
    "exact_corrected": SOLVERS["multistep"](order=2, corrector=3),
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
    "dpm_2s_taylor": SOLVERS["dpm_2s"](form="taylor"),
    "dpmpp_3s_taylor": SOLVERS["dpmpp_3s"](form="taylor"),
    "dpmpp_sde_0": SOLVERS["dpmpp_sde"](eta=0.0),
    "ddim_eta": SOLVERS["ddim"](eta=0.5),
    "sde_dpmpp_2m_half": SOLVERS["sde_dpmpp_2m"](eta=0.5),
    "dpm_2s_ancestral": SOLVERS["dpm_2s"](eta=1.0),
    "dpmpp_2s_ancestral": SOLVERS["dpmpp_2s"](eta=1.0),
    "stochastic_heun_half": SOLVERS["stochastic_heun"](churn=0.5),
}
ALL = {k: dataclasses.replace(s, denoise=False) for k, s in (MEMBERS | VARIANTS).items()}


def is_stochastic(solver):
    return any(getattr(solver, name, 0) for name in ("eta", "churn")) or type(solver).__name__ == "DDPM"


STOCHASTIC = [k for k, s in ALL.items() if is_stochastic(s) and not hasattr(s, "s_churn") or "ancestral" in k]
DETERMINISTIC = [k for k in ALL if k not in STOCHASTIC]


@functools.cache
def runner(name):
    denoise = DATA.denoise(PROCESSES[name][0])
    return jax.jit(lambda x, plan: Table().run(denoise, None, x, plan, None))


def flow_error(solver, name, steps):
    sde, end = PROCESSES[name]
    x0 = DATA.sample(jax.random.key(0), 8)
    x = DATA.flow(sde, x0, end, sde.t_max)
    plan = solver.plan(sde, GRIDS["log_snr"](sde)(sde.t_max, end, steps))
    return float(jnp.sqrt(jnp.mean((runner(name)(x, plan) - x0) ** 2)))


# Where the asymptotic range begins, by the error that the mixture of its terms has left.
STEPS = {1: 80, 1.0: 80, 2: 80, 3: 80, 4: 80}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("key", DETERMINISTIC)
@pytest.mark.usefixtures("x64")
def test_order_of_convergence_to_the_exact_flow(key, name):
    solver = ALL[key]
    errors = [flow_error(solver, name, steps) for steps in (80, 160)]
    order = np.log2(errors[0] / errors[1])
    print("ORDER", key, name, solver.accuracy, round(order, 2), errors[1])


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


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
@pytest.mark.parametrize("key", STOCHASTIC)
@pytest.mark.usefixtures("x64")
def test_weak_order_of_the_variance(key, name):
    solver = ALL[key]
    errors = [variance_error(solver, name, steps) for steps in (160, 320)]
    order = np.log2(errors[0] / errors[1])
    print("WEAK", key, name, solver.accuracy, round(order, 2), errors[1])
