"""Recordings of which only one number is kept: the largest error against the exact flow, in double precision.

``tests/data/solver_errors.json`` has it for every run of the published codes, also for those whose samples
are not kept.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.sde import DDPM, EDM
from score_sde.solvers import PC, SOLVERS
from score_sde.solvers.base import marginals
from score_sde.solvers.table import Table
from tests.conftest import DATA
from tests.solvers.test_recorded import DIFFUSERS, K_DIFFUSION, RECORDED, clipped, of_dpm_solver, whole

ERRORS = json.loads((DATA / "solver_errors.json").read_text(encoding="utf-8"))


@functools.cache
def runner(tag, sde):
    denoise = whole(tag)[0].denoise(sde)
    return jax.jit(lambda x, plan, noise: Table().run(denoise, sde, x, plan, lambda i: noise[i - 1]))


@functools.cache
def draws(seed):
    generator = np.random.Generator(np.random.PCG64(seed))
    return jnp.asarray([generator.standard_normal((4, 3, 8, 8)) for _ in range(25)])


def largest_error(solver, sde, times, tag, scale, seed=780):
    model, latents = whole(tag)
    x = scale * latents
    got = runner(tag, sde)(x, solver.plan(sde, times), draws(seed))
    return float(jnp.max(jnp.abs(got - model.flow(sde, x, times[0], times[-1]))))


@pytest.mark.slow
@pytest.mark.parametrize("key", ERRORS["dpm"])
@pytest.mark.usefixtures("x64")
def test_dpm_solver_and_unipc(key):
    solver, sde, times = of_dpm_solver(key)
    assert largest_error(solver, sde, times, "whole/dpm", 1.0) == pytest.approx(ERRORS["dpm"][key], rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("key", ERRORS["k"])
@pytest.mark.usefixtures("x64")
def test_k_diffusion(key):
    schedule, name = key.split("|")
    times = RECORDED[f"k/sigmas|{schedule}"]
    got = largest_error(K_DIFFUSION[name], EDM(), times, "whole/k", times[0])
    assert got == pytest.approx(ERRORS["k"][key], rel=1e-7)


# --- diffusers -------------------------------------------------------------------------------------

# With 'linspace' its DDIM goes to t - 1000 / n, and on from another time: no method has such steps.
NOT_HERE = ("DDIM|eta0|linspace", "DDPM|fixed_large", "PNDM")
PUBLISHED = {
    **DIFFUSERS,
    "DPMpp2M|heun": SOLVERS["dpmpp_2m"](form="taylor", lower_final_below=15),
    "DPMpp2M|karras": SOLVERS["dpmpp_2m"](lower_final_below=15),
    "DPMpp2M": SOLVERS["dpmpp_2m"](lower_final_below=15),
    "DPMpp2M|no_lower": SOLVERS["dpmpp_2m"](lower_final_below=0),
    "DPM2M": SOLVERS["dpm_2m"](lower_final_below=15, denoise=False),
    "DPM3M": SOLVERS["dpm_3m"](lower_final_below=15, denoise=False),
    "DPM2S": SOLVERS["dpm_2s"](stages="grid", denoise=False),
    "DPMpp2S": SOLVERS["dpmpp_2s"](stages="grid"),
    "UniPC2|bh2|noise_pred": SOLVERS["unipc"](prediction="noise", lower_final_below=10**6, denoise=False),
    "UniPC2|bh2": SOLVERS["unipc"](lower_final_below=10**6, denoise=False),
    "UniPC3|bh2": SOLVERS["unipc"](order=3, lower_final_below=10**6, denoise=False),
    "UniPC3|bh1": SOLVERS["unipc"](order=3, form="bh1", lower_final_below=10**6, denoise=False),
    "EulerAncestral": SOLVERS["ddpm"](),
    "LMS": SOLVERS["lms"](),
    "DDIM|eta1": SOLVERS["ddpm"](),
}
TO_SIGMA_MIN = ("DPM2M", "DPM3M", "DPM2S", "DPM3S", "sigma_min", "noise_pred", "DEIS")


def alphas_cumprod(name):
    if "cosine" in name:
        share = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.cumprod(np.maximum(share[1:] / share[:-1], 1 - 0.999))
    if "scaled_linear" in name:
        return np.cumprod(1 - np.linspace(1e-4**0.5, 0.02**0.5, 1000) ** 2)
    return RECORDED["hf/alphas_cumprod"]


def levels_of(name, count):
    """Noise levels ``sigma / alpha`` of a scheduler's steps, the last one where it ends."""
    square = 1 / alphas_cumprod(name) - 1
    at = np.sqrt(square)
    if name.startswith("DDIM") or name.startswith("DDPM"):
        ratio = 1000 // count
        steps = np.arange(count)[::-1] * ratio + (ratio - 1 if "trailing" in name else 0)
        return np.append(at[steps], 0.0)
    if name.startswith("PLMS") or name.startswith("PNDM"):
        return at[np.arange(count)[::-1] * (1000 // count)]
    if "karras" in name:
        inverse = np.linspace(at[-1] ** (1 / 7), at[0] ** (1 / 7), count)
        return np.append(inverse**7, 0.0)
    if "trailing" in name:
        return np.append(at[np.arange(count, 0, -1) * (1000 // count) - 1], 0.0)
    by_levels = name.startswith(("Euler", "Heun", "KDPM2", "LMS"))
    places = np.linspace(0, 999, count if by_levels else count + 1)
    places = (places if by_levels else np.round(places)[1:])[::-1]
    last = at[0] if name.startswith(TO_SIGMA_MIN) or name.endswith(TO_SIGMA_MIN) else 0.0
    return np.append(np.interp(places, np.arange(1000), at), last)


@pytest.mark.slow
@pytest.mark.parametrize("key", [k for k in ERRORS["hf"] if not k.startswith(NOT_HERE)])
@pytest.mark.usefixtures("x64")
def test_diffusers(key):
    # Its constants are float32.  A sampler does not see the scale of x: all on EDM's process.
    name, _, count = key.rpartition("|n")
    sde, levels = EDM(), levels_of(name, int(count))
    solver = PUBLISHED[max((known for known in PUBLISHED if name.startswith(known)), key=len)]
    model, latents = whole("hf-whole")
    by_level = name.startswith(("Euler", "Heun", "KDPM2", "LMS"))
    x = latents * (levels[0] if by_level else np.sqrt(1 + levels[0] ** 2))
    noise = draws(779)
    denoise = clipped(sde, model.denoise(sde)) if "clip" in key else model.denoise(sde)
    got = Table().run(denoise, sde, x, solver.plan(sde, levels), lambda i: noise[i - 1])
    if not by_level:
        got = got / np.sqrt(1 + levels[-1] ** 2)
    want = model.flow(sde, x, levels[0], 0.0)
    assert float(jnp.max(jnp.abs(got - want))) == pytest.approx(ERRORS["hf"][key], abs=1e-4)


def of_the_process(solver, times):
    """The largest error of a solver on their VP process itself: level i is time i / 999."""
    sde, (model, x) = DDPM(), whole("hf-whole")
    noise = draws(779)
    plan = solver.plan(sde, times)
    got = solver.run(model.denoise(sde), sde, x, plan, lambda i: noise[i - 1])
    got = solver.finish(model.denoise(sde), got, plan)
    start = marginals(sde, times[:1])
    want = model.flow(EDM(), x / start.alpha[0], start.rho[0], 0.0)
    return float(jnp.max(jnp.abs(got - want)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 20])
@pytest.mark.usefixtures("x64")
def test_diffusers_with_the_larger_variance(count):
    times = np.arange(count)[::-1] * (1000 // count) / 999
    got = of_the_process(PC(predictor="ancestral_large"), times)
    assert got == pytest.approx(ERRORS["hf"][f"DDPM|fixed_large|leading|n{count}"], abs=1e-4)


@pytest.mark.parametrize("count", [10, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("x64")
def test_diffusers_with_a_runge_kutta_start(count):
    times = np.arange(count)[::-1] * (1000 // count) / 999
    got = of_the_process(SOLVERS["pndm"](denoise=False), times)
    assert got == pytest.approx(ERRORS["hf"][f"PNDM|n{count}"], abs=1e-4)
