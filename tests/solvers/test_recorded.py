"""Published samplers against recordings of their own code, in double precision."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.guidance import Static
from score_sde.sde import DDPM, EDM, VE, VP
from score_sde.solvers import SOLVERS, AdaptiveDPM, LegacyPC
from score_sde.solvers.base import marginals, times_at
from score_sde.solvers.table import Table
from tests.conftest import DATA
from tests.oracles import Gaussian

with np.load(DATA / "solvers_analytic.npz") as file:
    RECORDED = {k: np.asarray(v, np.float64) for k, v in file.items()}


def keys(tag, *starts):
    return [k for k in RECORDED if k.startswith(tuple(f"{tag}/{start}" for start in starts))]


def recorded_noise(seed):
    """One normal a draw, cut as the recordings are; draw 1 is the first."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.stack([generator.standard_normal((4, 3, 8, 8))[:2, :1, :4] for _ in range(25)])


@functools.cache
def runner(tag, sde):
    denoise = Gaussian(RECORDED[f"{tag}/mu"], RECORDED[f"{tag}/s"]).denoise(sde)
    return jax.jit(lambda x, plan, noise: Table().run(denoise, sde, x, plan, lambda i: noise[i - 1]))


def agrees(solver, sde, times, scale, key, noise=None, atol=1e-10):
    tag = key.split("/")[0]
    x = jnp.asarray(RECORDED[f"{tag}/latents"]) * scale
    draws = jnp.full((1, *x.shape), jnp.nan) if noise is None else jnp.asarray(noise)
    got = runner(tag, sde)(x, solver.plan(sde, times), draws)
    np.testing.assert_allclose(got, RECORDED[key], atol=atol)


# --- DPM-Solver and UniPC --------------------------------------------------------------------------


def between(sde, start, end, parts):
    """Evenly in log-SNR."""
    lam = marginals(sde, np.array([start, end])).lam
    inner = times_at(sde, np.linspace(lam[0], lam[1], parts + 1)[1:-1], end, start)
    return np.concatenate([[start], inner, [end]])


def dpm_grid(sde, skip, steps):
    if skip == "logSNR":
        return between(sde, 1.0, 0.0 if isinstance(sde, DDPM) else 1e-3, steps)
    power = 2.0 if skip == "time_quadratic" else 1.0
    times = np.linspace(1.0, 1e-3 ** (1 / power), steps + 1) ** power
    # Their discrete time is (i + 1) / 1000 for level i, ours i / 999.
    return (times * 1000 - 1) / 999 if isinstance(sde, DDPM) else times


def of_dpm_solver(key):
    """The solver, the process and the times of a recording of DPM-Solver or UniPC."""
    code, schedule, *rest = key.split("|")
    sde = VP() if schedule == "linear" else DDPM()
    if code == "unipc":
        prediction, form, order, skip, steps = rest
        solver = SOLVERS["unipc"](
            order=int(order[1:]),
            form="vary" if form == "vary_coeff" else form,
            prediction="x0" if prediction == "data_prediction" else "noise",
            lower_final_below=10**6,
            denoise=False,
        )
        return solver, sde, dpm_grid(sde, skip, int(steps[1:]))
    algorithm, method, order, skip, steps, *rest = rest
    order, count = int(order[1:]), int(steps[1:])
    if method == "multistep":
        solver = SOLVERS["multistep"](
            prediction="x0" if "++" in algorithm else "noise",
            form="taylor" if "taylor" in rest else "midpoint",
            order=order,
            lower_final_below=0 if "no_lower_order_final" in rest else 10,
            denoise="denoise_to_zero" in rest,
        )
        return solver, sde, dpm_grid(sde, skip, count)
    make = SOLVERS[f"{algorithm.replace('solver', '').replace('++', 'pp')}_{order}s"]
    if method == "singlestep_fixed":
        count -= count % order
        stages, count = ("log_snr", count // order) if skip == "logSNR" else ("grid", count)
    else:
        stages = "even" if skip == "logSNR" else "grid"
    return make(stages=stages, denoise=False), sde, dpm_grid(sde, skip, count)


@pytest.mark.parametrize("key", [k for k in keys("dpm", "dpm", "unipc") if "adaptive" not in k])
@pytest.mark.usefixtures("x64")
def test_dpm_solver_and_unipc(key):
    agrees(*of_dpm_solver(key.removeprefix("dpm/")), 1.0, key)


@functools.cache
def whole(tag):
    """The model and the start of recordings whose samples influence each other: all of the batch."""
    model = Gaussian(*(np.asarray(RECORDED[f"hf-whole/{name}"], np.float64) for name in ("mu", "s")))
    return model, jnp.asarray(RECORDED[f"{tag}/latents"])


@pytest.mark.parametrize("schedule", ["linear", "discrete"])
@pytest.mark.usefixtures("x64")
def test_dpm_solver_adaptive(schedule):
    sde, end = (VP(), 1e-3) if schedule == "linear" else (DDPM(), 0.0)
    model, x = whole("whole/dpm")
    solver = AdaptiveDPM(order=3, dpm_control="largest")
    got, _ = solver.solve(model.denoise(sde), sde, x, solver.plan(sde, np.array([1.0, end])))
    np.testing.assert_allclose(got, RECORDED[f"whole/{schedule}|o3"], atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_k_diffusion_adaptive():
    sde, (model, x) = EDM(), whole("whole/k")
    solver = AdaptiveDPM(order=3, dpm_control="batch", controller="limited")
    plan = solver.plan(sde, np.array([80.0, 0.02]))
    got, tries = solver.solve(model.denoise(sde), sde, 80.0 * x, plan)
    np.testing.assert_array_equal(tries, 8)  # the recorded count: 7 kept, 1 refused
    # Its times are float32, whose rounding is the error estimate of the first steps (4e-7 against 7e-11), and
    # so sets the sizes of all.
    np.testing.assert_allclose(got, RECORDED["whole/k"], atol=5e-3)


# --- k-diffusion -----------------------------------------------------------------------------------

CHURN = {"s_churn": 3.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}
K_DIFFUSION = {
    "euler": SOLVERS["euler"](),
    "euler_churn": SOLVERS["euler"](**CHURN),
    "euler_ancestral": SOLVERS["ddpm"](),
    "heun": SOLVERS["heun"](),
    "heun_churn": SOLVERS["heun"](**CHURN),
    "dpm_2": SOLVERS["dpm_2s"](),
    "dpm_2_ancestral": SOLVERS["dpm_2s"](eta=1.0),
    "lms": SOLVERS["lms"](),
    "dpmpp_2s_ancestral": SOLVERS["dpmpp_2s"](eta=1.0),
    "dpmpp_2m": SOLVERS["dpmpp_2m"](),
    "dpmpp_sde": SOLVERS["dpmpp_sde"](),
    "dpmpp_2m_sde": SOLVERS["sde_dpmpp_2m"](),
    "dpmpp_2m_sde_heun": SOLVERS["sde_dpmpp_2m"](form="taylor"),
    "dpmpp_3m_sde": SOLVERS["sde_dpmpp_3m"](),
}


@pytest.mark.parametrize("key", keys("k", "karras", "exponential", "polyexp", "vp"))
@pytest.mark.usefixtures("x64")
def test_k_diffusion(key):
    schedule, name = key.removeprefix("k/").split("|")
    solver, times = K_DIFFUSION[name], RECORDED[f"k/sigmas|{schedule}"]
    agrees(solver, EDM(), times, times[0], key, recorded_noise(780))


# --- EDM -------------------------------------------------------------------------------------------


class Unchecked(VP):
    """EDM's ablations fit the VP schedule to a range of noise, with ``beta_min`` just below zero."""

    def __post_init__(self):
        pass


def edm_levels(discretization, count):
    """The noise levels of EDM's ablations (arXiv:2206.00364, table 1), and the VP process with them."""

    def vp(beta_max, beta_min, t):
        return np.sqrt(np.expm1(0.5 * (beta_max - beta_min) * t**2 + beta_min * t))

    low, high = {
        "vp": (vp(20.0, 0.1, 1e-3), vp(20.0, 0.1, 1.0)),
        "ve": (0.02, 100.0),
        "iddpm": (0.002, 81.0),
        "edm": (0.002, 80.0),
    }[discretization]
    slope = 2 * (np.log1p(low**2) / 1e-3 - np.log1p(high**2)) / (1e-3 - 1)
    beta_min = np.log1p(high**2) - 0.5 * slope
    sde, share = Unchecked(beta_min=beta_min, beta_max=beta_min + slope), np.linspace(0, 1, count)
    if discretization == "vp":
        return vp(sde.beta_max, sde.beta_min, 1 + share * (1e-3 - 1)), sde
    if discretization == "ve":
        return high * (low / high) ** share, sde
    if discretization == "iddpm":  # the levels of its cosine schedule
        share_kept = np.sin(0.5 * np.pi * np.arange(1001) / 1000 / 1.008) ** 2
        u = np.zeros(1001)
        for j in range(1000, 0, -1):
            u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(share_kept[j - 1] / share_kept[j], 0.001) - 1)
        u = u[(u >= low) & (u <= high)]
        return u[np.round((len(u) - 1) / (count - 1) * np.arange(count)).astype(int)], sde
    return (high ** (1 / 7) + share * (low ** (1 / 7) - high ** (1 / 7))) ** 7, sde


@pytest.mark.parametrize("key", keys("edm", "edm_sampler", "ablation"))
@pytest.mark.usefixtures("x64")
def test_edm(key):
    parts = key.removeprefix("edm/").split("|")
    if parts[0] == "edm_sampler":
        parts = ["", "heun", "edm", "linear", "none", *parts[1:]]
    _, method, discretization, schedule, _, steps, *rest = parts
    solver = SOLVERS[method]()
    if "churn40" in rest:
        solver = dataclasses.replace(solver, s_churn=40.0, s_min=0.05, s_max=50.0, s_noise=1.003)
    if "alpha0.5" in rest:
        solver = dataclasses.replace(solver, stage=0.5)
    levels, sde = edm_levels(discretization, int(steps[1:]))
    if schedule == "linear":
        sde, times = EDM(), levels
    else:
        times = times_at(sde, -np.log(levels), 0.0, 2.0)
    times = np.append(times, 0.0)
    scale = marginals(sde, times[:1]).sigma[0]
    atol = 2e-5 if discretization == "iddpm" else 1e-10  # whose levels it has computed in float32
    agrees(solver, sde, times, scale, key, recorded_noise(778), atol)


# --- diffusers -------------------------------------------------------------------------------------

DIFFUSERS = {
    "DPMpp3M": SOLVERS["dpmpp_3m"](lower_final_below=15),
    "DPMpp2M": SOLVERS["dpmpp_2m"](lower_final_below=0),
    "SDE-DPMpp2M": SOLVERS["sde_dpmpp_2m"](lower_final_below=15),
    "DEIS3": SOLVERS["deis"](basis="lam", lower_final_below=15, denoise=False),
    "DPM3S": SOLVERS["dpm_3s"](stages="grid", inner="midpoint", denoise=False),
    "DPMpp3S": SOLVERS["dpmpp_3s"](stages="grid", inner="midpoint"),
    "PLMS": SOLVERS["plms"](denoise=False),
    "Euler": SOLVERS["euler"](),
    "Heun": SOLVERS["heun"](),
    "KDPM2": SOLVERS["dpm_2s"](),
    "DDIM": SOLVERS["ddim"](),
    "DDPM": SOLVERS["ddpm"](),
}


def clipped(sde, denoise):
    return Static(sde=sde)(lambda params, cond: denoise)({}, {})


@pytest.mark.parametrize("key", keys("hf", *DIFFUSERS))
@pytest.mark.usefixtures("x64")
def test_diffusers(key):
    # They hold alphas and levels in float32.  A sampler does not see the scale of x: all on EDM's process.
    name, sde = key.removeprefix("hf/").split("|")[0], EDM()
    levels = RECORDED[key.replace("hf/", "hf-grid/")]
    if name in ("DDIM", "DDPM", "PLMS"):  # time steps of the discrete process
        alphas = RECORDED["hf/alphas_cumprod"][levels.astype(int)]
        levels = np.sqrt((1 - alphas) / alphas)
    if name in ("DDIM", "DDPM"):  # then no noise
        levels = np.append(levels, 0.0)
    if name == "Heun":  # every level twice
        levels = np.concatenate([levels[:1], levels[1::2]])
    if name == "KDPM2":
        levels = RECORDED[key.replace("hf/KDPM2", "hf-grid/Euler")]
    variance_preserving = name not in ("Euler", "Heun", "KDPM2")
    data = Gaussian(RECORDED["hf/mu"], RECORDED["hf/s"])
    denoise = clipped(sde, data.denoise(sde)) if "clip" in key else data.denoise(sde)
    draws = jnp.asarray(recorded_noise(779))
    plan = DIFFUSERS[name].plan(sde, levels)
    x = jnp.asarray(RECORDED["hf/latents"]) * np.sqrt(1 + levels[0] ** 2)
    got = Table().run(denoise, sde, x, plan, lambda i: draws[i - 1])
    if variance_preserving:
        got = got / np.sqrt(1 + levels[-1] ** 2)
    np.testing.assert_allclose(got, RECORDED[key], atol=5e-5)


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.usefixtures("x64")
def test_diffusers_score_sde_ve(steps):
    # One corrector step, then a predictor step; the norms are those of the batch.
    sde, (model, latents) = VE(), whole("hf-whole")
    solver = LegacyPC(predictor="reverse_diffusion", corrector="langevin", snr=0.16, denoise=False)
    generator = np.random.Generator(np.random.PCG64(779))
    draws = jnp.asarray([generator.standard_normal(latents.shape) for _ in range(2 * steps)])
    plan = solver.plan(sde, np.linspace(1.0, 1e-5, steps + 1))
    got = solver.run(model.denoise(sde), sde, 50.0 * latents, plan, lambda i: draws[i - 1])
    np.testing.assert_allclose(got, RECORDED[f"hf-whole/ScoreSdeVe|n{steps}"], atol=1e-4)


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.usefixtures("x64")
def test_diffusers_score_sde_vp(steps):
    sde, data = VP(), Gaussian(RECORDED["hf/mu"], RECORDED["hf/s"])
    solver = LegacyPC(predictor="euler_maruyama", corrector="none", denoise=False)
    draws, x = jnp.asarray(recorded_noise(779)), jnp.asarray(RECORDED["hf/latents"])
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, steps + 1))
    got = solver.run(data.denoise(sde), sde, x, plan, lambda i: draws[i - 1])
    np.testing.assert_allclose(got, RECORDED[f"hf/ScoreSdeVp|n{steps}"], atol=1e-4)
