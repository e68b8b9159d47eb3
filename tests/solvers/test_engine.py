"""The engine that runs tables: ends, compilation, hooks, other processes, adaptive steps."""

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditions import labelled
from score_sde.data import Spec
from score_sde.experiment.assemble import architecture_of, sampler_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import typed
from score_sde.names import ConfigError, options
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample, generate, sample, sample_keys, sample_with_hooks
from score_sde.sde import DDPM, EDM, VE, VP, Cosine, Flow, SubVP
from score_sde.solvers import GRIDS, PC, SOLVERS, AdaptiveSDE, Hooks, noise_of
from score_sde.solvers.base import marginals
from score_sde.solvers.predictors import ancestral
from score_sde.solvers.quadrature import lagrange_integrals
from score_sde.solvers.search import path_error, refine_grid
from score_sde.solvers.table import Table, TableSolver
from tests.conftest import ROOT
from tests.oracles import Gaussian

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
TABLES = {key: make for key, make in SOLVERS.items() if issubclass(make, TableSolver)}
POINT = Gaussian(np.array([0.5, -0.3]), np.array([1e-8, 1e-8]))  # every solver must land on it


@functools.cache
def runner(sde, data, program):
    denoise = data.denoise(sde)
    return jax.jit(lambda keys, plan: sample(keys, denoise, sde, program, plan, shape=(2,)))


def run(solver, sde, times, data=DATA, count=4):
    """One compilation for each length of table."""
    return runner(sde, data, solver.program)(sample_keys(0, jnp.arange(count)), solver.plan(sde, times))


# --- coefficients ----------------------------------------------------------------------------------


def test_quadrature_is_exact_for_polynomials():
    nodes = np.array([0.3, 0.9, 1.4, 2.0])
    got = lagrange_integrals(nodes, 0.3, 0.1, lambda u: u**2)
    for power in range(4):  # int u^p d(u^2) = 2 u^(p+2) / (p+2)
        exact = 2 * (0.1 ** (power + 2) - 0.3 ** (power + 2)) / (power + 2)
        assert np.sum(got * nodes**power) == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sde", [VP(), EDM(), Flow(), VE()], ids=lambda s: type(s).__name__)
@pytest.mark.usefixtures("x64")
def test_first_order_rows_are_ddim_in_closed_form(sde, eta):
    times = np.linspace(sde.t_max, sde.t_max * 1e-2, 12)
    rows = SOLVERS["ddim"](eta=eta, denoise=False).plan(sde, times).rows.rows
    want = ancestral(sde, times[:-1], times[1:], eta)
    at = marginals(sde, times[:-1])  # the same move with x = alpha x0 + sigma noise in place of x
    np.testing.assert_allclose(rows.of_x0, want.of_x0 + want.of_x * at.alpha, rtol=1e-10)
    np.testing.assert_allclose(rows.of_noise, want.of_x * at.sigma, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(rows.noise_gain, want.noise_gain, rtol=1e-10)
    assert np.all(rows.x_gain == 0) and np.all(rows.weights[:, 0] == 1)


def test_a_corrector_changes_weights_only():
    plain = SOLVERS["multistep"](order=2).plan(VP(), np.linspace(1, 0.01, 9)).rows.rows
    corrected = SOLVERS["multistep"](order=2, corrector_order=2).plan(VP(), np.linspace(1, 0.01, 9)).rows.rows
    for name, a, b in zip(plain._fields, plain, corrected, strict=True):
        assert np.array_equal(a, b) == (name != "weights")


NOISY = {
    "ddim": {"eta": 0.5},
    "sde_dpmpp_3m": {},
    "dpmpp_sde": {},
    "stochastic_heun": {},
    "restart": {"restart_min": 0.5, "restart_max": 5.0},
    "heun": {"s_churn": 5.0},
    "dpmpp_2s": {"eta": 1.0},
}


@pytest.mark.parametrize("key", NOISY)
def test_s_noise_is_a_factor_of_all_noise(key):
    # k-diffusion multiplies every draw by it.
    times, draws = np.linspace(1.0, 0.05, 7), jax.random.normal(jax.random.key(1), (40, 3, 2))

    def ends(factor, s_noise):
        plan = SOLVERS[key](**NOISY[key], s_noise=s_noise).plan(VP(), times)
        return Table().run(DATA.denoise(VP()), VP(), draws[0], plan, lambda i: factor * draws[i])

    np.testing.assert_allclose(ends(1.0, 1.1), ends(1.1, 1.0), atol=1e-5)
    assert np.abs(ends(1.0, 1.1) - ends(1.0, 1.0)).max() > 1e-3


# --- both ends, any number of steps ----------------------------------------------------------------


ENDS = {
    "vp": (VP(), 1e-3),
    "subvp": (SubVP(), 1e-2),
    "ve": (VE(), 1e-5),
    "edm": (EDM(), 2e-3),
    "cosine": (Cosine(), 1e-3),
    "flow": (Flow(), 1e-3),
}


@pytest.mark.parametrize("name", [n if n == "edm" else pytest.param(n, marks=pytest.mark.slow) for n in ENDS])
@pytest.mark.parametrize("key", TABLES)
@pytest.mark.usefixtures("x64")  # one step of Heun's from 80 to 0.002 multiplies rounding by 1e4
def test_every_number_of_steps_lands_on_a_point(key, name):
    # With one possible clean sample its prediction is exact, and so is the end of every solver.
    sde, end = ENDS[name]
    for steps in (1, 2, 3):
        even = np.linspace(sde.t_max, end, steps + 1)
        times = GRIDS["edm"](sde)(80.0, 0.0, steps) if name == "edm" else even
        x = run(TABLES[key](), sde, times, POINT)
        np.testing.assert_allclose(x, np.broadcast_to(POINT.mean, x.shape), atol=2e-3, err_msg=str(steps))


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
@pytest.mark.usefixtures("x64")
def test_a_thousand_steps_of_every_solver_on_every_process_land_on_a_point(name):
    sde, end = ENDS[name]
    times = GRIDS["log_snr"](sde)(sde.t_max, end, 1000)
    for key, make in TABLES.items():
        x = run(make(), sde, times, POINT)
        np.testing.assert_allclose(x, np.broadcast_to(POINT.mean, x.shape), atol=1e-4, err_msg=key)


@pytest.mark.parametrize("key", ["unipc", "sde_dpmpp_2m"])
def test_a_thousand_steps_have_the_moments_of_the_data(key):
    x = np.asarray(run(TABLES[key](), VP(), np.linspace(1.0, 1e-3, 1001), count=4096))
    error = 5 / np.sqrt(4096)
    assert np.all(np.abs(x.mean(0) - DATA.mean) < error * DATA.std)
    assert np.all(np.abs(x.std(0) / DATA.std - 1) < error / np.sqrt(2) + 0.005)


@pytest.mark.parametrize("key", ["ddim", "ddpm", "dpmpp_2m", "dpmpp_3m", "unipc", "sde_dpmpp_2m", "euler"])
@pytest.mark.parametrize("sde", [Flow(t_max=1.0), Cosine(t_max=1.0)], ids=["flow", "cosine"])
def test_the_path_from_no_signal_to_no_noise_is_finite(sde, key):
    # alpha = 0 at the start and sigma = 0 at the end: first order there, D in the end.
    x = run(TABLES[key](), sde, np.linspace(1.0, 0.0, 65), count=512)
    assert np.all(np.isfinite(x))
    assert np.all(np.abs(np.mean(x, axis=0) - DATA.mean) < 5 * DATA.std / np.sqrt(512) + 0.02)
    assert np.all(np.abs(np.std(x, axis=0) / DATA.std - 1) < 0.2)


def test_the_last_move_is_a_row_and_only_where_there_is_noise():
    sde, solver = EDM(), SOLVERS["heun"]()
    grid = GRIDS["edm"](sde)(80.0, 0.0, 18)
    assert len(solver.plan(sde, grid).rows.rows.t) == 35  # EDM's count
    assert len(solver.plan(sde, grid[:-1]).rows.rows.t) == 35  # 34, and Tweedie's
    assert len(dataclasses.replace(solver, denoise=False).plan(sde, grid[:-1]).rows.rows.t) == 34
    np.testing.assert_allclose(run(solver, sde, grid), run(solver, sde, grid[:-1]), rtol=1e-5)


# --- compilation and reproducibility ---------------------------------------------------------------


def test_solvers_of_one_length_share_one_compilation():
    sde, traces, results = VP(), [], {}

    def denoise(x, t):
        traces.append(1)
        return DATA.denoise(sde)(x, t)

    def draw(keys, plan, program):
        return sample(keys, denoise, sde, program, plan, shape=(2,))

    draw = jax.jit(draw, static_argnames="program")
    keys = sample_keys(0, jnp.arange(2))
    solvers = {
        k: make()
        for k, make in TABLES.items()
        if k not in ("restart", "plms", "pndm") and make().evaluations == 1
    }
    solvers |= {f"unipc_{p}": SOLVERS["unipc"](order=p) for p in (1, 3)}
    for key, solver in solvers.items():
        results[key] = draw(keys, solver.plan(sde, np.linspace(1, 1e-3, 11)), solver.program)
    assert len(solvers) > 10
    assert len(traces) == 1
    values = np.stack([np.asarray(v) for v in results.values()])
    assert len(np.unique(values[:, 0, 0])) >= len(solvers) - 2  # and they are different solvers


def _bind(params, cond):
    return DATA.denoise(VP())


@pytest.mark.parametrize("key", ["sde_dpmpp_2m", "dpmpp_sde", "adaptive_sde"])
def test_a_sample_depends_on_its_number_only(key):
    sde, solver = VP(), SOLVERS[key]()
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 11))
    results = []
    for devices, batch in ((1, 12), (8, 3)):
        mesh = make_mesh(devices=jax.devices()[:devices])
        draw = compile_sample(_bind, sde, solver, mesh, shape=(2,))
        parts = generate(draw, {}, plan, mesh, seed=5, num_samples=12, batch_size=batch)
        results.append(np.concatenate(list(parts)))
    np.testing.assert_allclose(results[1], results[0], atol=2e-5)
    assert len(np.unique(results[0][:, 0])) == 12


PROGRAM = """
import hashlib, jax, jax.numpy as jnp, numpy as np
from score_sde.sampling.draw import sample, sample_keys
from score_sde.sde import VP
from score_sde.solvers import SOLVERS
from tests.oracles import Gaussian
sde, data = VP(), Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
for key in ("ddpm", "unipc", "sde_dpmpp_3m", "deis", "heun", "adaptive_sde"):
    solver = SOLVERS[key]()
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 21))
    run = jax.jit(lambda keys, plan: sample(keys, data.denoise(sde), sde, solver, plan, shape=(2,)))
    x = np.asarray(run(sample_keys(3, jnp.arange(8)), plan))
    print(key, hashlib.sha256(x.tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_draw_the_same_bits():
    outputs = [
        subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert len(outputs[0].stdout.split()) == 12
    assert outputs[0].stdout == outputs[1].stdout


# --- hooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "name"), [(SOLVERS["heun"](), "heun"), (PC(), "pc")])
def test_kept_states_are_those_of_shorter_runs(solver, name):
    sde, times = VP(), np.linspace(1.0, 0.1, 7)
    solver = dataclasses.replace(solver, denoise=False)
    keys = sample_keys(0, jnp.arange(3))
    hooks = Hooks(keep_every_steps=2, keep=4)
    x, kept = sample_with_hooks(
        keys, DATA.denoise(sde), sde, solver, solver.plan(sde, times), hooks, shape=(2,)
    )
    for i, steps in enumerate((2, 4, 6)):
        short = sample(keys, DATA.denoise(sde), sde, solver, solver.plan(sde, times[: steps + 1]), shape=(2,))
        np.testing.assert_allclose(kept[i], short, atol=1e-6)
    np.testing.assert_array_equal(kept[2], x)
    assert np.all(np.isnan(kept[3]))  # a place that was not reached


def test_functions_run_before_and_after_whole_steps():
    sde, solver = VP(), SOLVERS["heun"]()
    plan, keys = solver.plan(sde, np.linspace(1.0, 0.1, 4)), sample_keys(0, jnp.arange(3))
    seen = []

    def note(name):
        def hook(steps, x):
            jax.debug.callback(lambda i: seen.append((name, int(i))), steps)
            return x

        return hook

    hooks = Hooks(before=note("before"), after=note("after"))
    sample_with_hooks(keys, DATA.denoise(sde), sde, solver, plan, hooks, shape=(2,))
    jax.effects_barrier()
    assert sorted(seen) == [("after", i) for i in (1, 2, 3, 4)] + [("before", i) for i in (0, 1, 2, 3)]
    hooks = Hooks(after=lambda steps, x: x.at[:, 0].set(7.0))
    x, _ = sample_with_hooks(keys, DATA.denoise(sde), sde, solver, plan, hooks, shape=(2,))
    assert np.all(np.asarray(x)[:, 0] == 7.0)


def test_stopped_samples_stay_and_the_network_rests():
    sde, solver, calls = VP(), dataclasses.replace(SOLVERS["ddim"](), denoise=False), []

    def denoise(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return DATA.denoise(sde)(x, t)

    times, keys = np.linspace(1.0, 0.1, 11), sample_keys(0, jnp.arange(2))

    def stop(steps, x):
        return steps >= jnp.array([3, 5])

    x, _ = sample_with_hooks(
        keys, denoise, sde, solver, solver.plan(sde, times), Hooks(stop=stop), shape=(2,)
    )
    jax.effects_barrier()
    assert len(calls) == 5
    for sample_number, steps in ((0, 3), (1, 5)):
        short = sample(keys, DATA.denoise(sde), sde, solver, solver.plan(sde, times[: steps + 1]), shape=(2,))
        np.testing.assert_allclose(x[sample_number], short[sample_number], atol=1e-6)


# --- times ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VP(), EDM(), Cosine(), DDPM()], ids=lambda s: type(s).__name__)
def test_times_are_found_from_their_log_snr(sde):
    t = jnp.linspace(0.1, 0.9, 7) * sde.t_max
    np.testing.assert_allclose(sde.time_of(sde.log_snr(t), 0.0), t, rtol=1e-4)


# --- adaptive, restarting --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_the_adaptive_sde_solver_has_the_moments_of_the_data(name):
    # In many dimensions: with few, the published rejections prefer small noise (see the class).
    sde, end = {"vp": (VP(), 1e-3), "ve": (VE(), 1e-5)}[name]
    solver, count, size = AdaptiveSDE(), 256, 256
    data = Gaussian(np.full(size, 0.5), np.full(size, 0.4))
    noise = noise_of(sample_keys(0, jnp.arange(count)), (size,))
    plan = solver.plan(sde, np.array([1.0, end]))
    x, tries = jax.jit(
        lambda plan: solver.solve(data.denoise(sde), sde, sde.prior_sigma * noise(0), plan, noise)
    )(plan)
    assert np.mean(x) == pytest.approx(0.5, abs=0.01)
    assert np.std(x) == pytest.approx(0.4, rel=0.02)
    assert 20 < np.mean(tries) < 1000
    assert len(np.unique(tries)) > 3  # each sample at its own pace


def test_a_tolerance_buys_steps():
    sde, keys = VP(), sample_keys(0, jnp.arange(64))
    noise = noise_of(keys, (2,))
    tries = []
    for rtol in (0.1, 0.01):
        solver = AdaptiveSDE(sde_rtol=rtol, sde_atol=rtol)
        plan = solver.plan(sde, np.array([1.0, 1e-3]))
        tries.append(np.mean(solver.solve(DATA.denoise(sde), sde, noise(0), plan, noise)[1]))
    assert tries[1] > 2 * tries[0]


def test_restarts_remove_an_error_of_the_first_pass():
    # A start far too narrow stays so on the way of an ODE; fresh noise forgets it.
    sde = EDM()
    times, count = GRIDS["edm"](sde)(80.0, 0.0, 24), 4096
    keys = sample_keys(0, jnp.arange(count))
    spread = {}
    for restarts in (0, 4):
        solver = SOLVERS["restart"](restarts=restarts, restart_min=0.5, restart_max=5.0, restart_steps=12)
        plan, noise = solver.plan(sde, times), noise_of(keys, (2,))
        x = Table().run(DATA.denoise(sde), sde, 20.0 * noise(0), plan, noise)
        spread[restarts] = float(np.mean(np.std(x, axis=0) / DATA.std))
    assert spread[0] == pytest.approx(0.25, abs=0.02)
    assert spread[4] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("table", ["dpmpp_2m", "heun"])
def test_langevin_moves_mend_a_predictor_that_starts_wrong(table):
    # Langevin's step looks at norms: exact in many dimensions.  The start is half as wide as it should be.
    sde, size, count = VP(), 512, 64
    data = Gaussian(np.full(size, 0.5), np.full(size, 0.4))
    times = GRIDS["log_snr"](sde)(1.0, 0.05, 40)
    noise = noise_of(sample_keys(0, jnp.arange(count)), (size,))
    plain = SOLVERS[table](denoise=False)
    mended = SOLVERS["corrected"](table=table, corrector_steps=2, snr=0.15, denoise=False)
    widths = []
    for solver in (plain, mended):
        run = jax.jit(
            lambda plan, solver=solver: solver.run(data.denoise(sde), sde, 0.5 * noise(0), plan, noise)
        )
        widths.append(float(np.std(run(solver.plan(sde, times)))))
    at = marginals(sde, times[-1:])
    want = np.sqrt((at.alpha[0] * 0.4) ** 2 + at.sigma[0] ** 2)
    assert widths[0] == pytest.approx(0.5 * want, rel=0.05)
    assert widths[1] == pytest.approx(want, rel=0.05)


# --- grids and mistakes ----------------------------------------------------------------------------


def test_grids_have_the_spacing_that_they_promise():
    sde, start, end = VP(), 1.0, 1e-3
    lam = marginals(sde, GRIDS["log_snr"](sde)(start, end, 9)).lam
    np.testing.assert_allclose(np.diff(lam, 2), 0, atol=1e-10)
    rho = marginals(sde, GRIDS["karras"](sde)(start, end, 9)).rho
    np.testing.assert_allclose(np.diff(rho ** (1 / 7), 2), 0, atol=1e-9)
    np.testing.assert_allclose(np.diff(np.sqrt(GRIDS["quadratic"]()(start, end, 9)), 2), 0, atol=1e-12)
    flow = GRIDS["shifted"](Flow(), 3.0)(0.9999, 1e-3, 8)
    t = np.linspace(0.9999, 1e-3, 9)[1:-1]
    np.testing.assert_allclose(flow[1:-1], 3 * t / (1 + 2 * t), rtol=1e-9)  # arXiv:2403.03206, eq. 23
    edm = GRIDS["edm"](EDM())(80.0, 0.0, 18)
    np.testing.assert_allclose(edm[[0, 16, 17, 18]][[0, 2, 3]], [80.0, 0.002, 0.0], rtol=1e-9)
    for make in GRIDS.values():
        if make not in (GRIDS["list"], GRIDS["file"]):
            given = {"sde": EDM()} if "sde" in options(make) else {}
            times = make(**given)(80.0, 0.0 if make is GRIDS["edm"] else 0.01, 5)
            assert len(times) == 6 and np.all(np.diff(times) < 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SOLVERS["multistep"](order=5), "order = 5: must be in 1 to 4"),
        (lambda: SOLVERS["multistep"](form="bh3"), "form = 'bh3' is not one of"),
        (lambda: SOLVERS["multistep"](form="midpoint", corrector_order=1), "has no corrector"),
        (lambda: SOLVERS["multistep"](prediction="velocity"), "basis = 't'"),
        (lambda: SOLVERS["multistep"](noise_rule="ddmi"), "did you mean 'ddim'"),
        (lambda: SOLVERS["unipc"](order=4), "order = 4: must be in 1 to 3"),
        (lambda: SOLVERS["ddim"](eta=-1.0), "eta = -1.0"),
        (lambda: SOLVERS["heun"](s_min=2.0, s_max=1.0), "s_min <= s_max"),
        (lambda: SOLVERS["heun"](space="x"), "space = 'x'"),
        (lambda: SOLVERS["dpm_2s"](stages="grid", eta=1.0), "stages = 'grid'"),
        (lambda: SOLVERS["sde_dpmpp_2m"](s_noise=-1.0), "s_noise = -1.0"),
        (lambda: SOLVERS["restart"](restart_min=2.0, restart_max=1.0), "restart_min < restart_max"),
        (lambda: AdaptiveSDE(sde_rtol=0.0), "sde_rtol"),
        (lambda: SOLVERS["corrected"](table="dpmp_2m"), "did you mean 'dpmpp_2m'"),
        (lambda: Hooks(keep=-1), "keep >= 0"),
        (lambda: GRIDS["list"]((1.0, 0.5))(1.0, 0.5, 2), "3 decreasing times"),
        (lambda: GRIDS["edm"](EDM())(80.0, 0.1, 5), "below t_min"),
        (lambda: GRIDS["log_snr"](Flow())(0.9, 0.0, 5), "sigma > 0"),
    ],
)
def test_impossible_options_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# --- the search for a grid, the config -------------------------------------------------------------


def test_the_search_finds_a_grid_with_less_error():
    sde, solver = VP(), SOLVERS["dpmpp_2m"](denoise=False)
    x0 = DATA.sample(jax.random.key(0), 32)
    x = DATA.flow(sde, x0, 1e-2, 1.0)
    error = path_error(DATA.denoise(sde), sde, solver, x, x0)
    start = GRIDS["uniform"]()(1.0, 1e-2, 6)
    times, found = refine_grid(sde, start, error, rounds=4)
    assert found < 0.3 * error(start)
    assert found == pytest.approx(error(GRIDS["list"](tuple(times))(1.0, 1e-2, 6)), rel=1e-3)
    assert np.all(np.diff(times) < 0) and times[0] == 1.0 and times[-1] == 1e-2


def test_a_solver_of_the_config_has_the_solvers_own_defaults():
    for key, make in SOLVERS.items():
        assert typed({"sampling": {"solver": key}}).sampling.solver.build() == make(), key


def sampled(config):
    config = typed(config)
    return sampler_of(config, architecture_of(config, Spec((8, 8, 1), 17, labelled(10))))


def test_options_of_a_solver_come_from_the_config():
    config = load_file(str(ROOT / "configs" / "vp_digits.py"))
    config.sampling = {"solver": {"name": "unipc", "order": 3, "form": "exact"}, "steps": 4, "t_end": 0.01}
    config.sampling.grid = {"name": "list", "times": (1.0, 0.5, 0.2, 0.1, 0.01)}
    assert sampled(config).solver == SOLVERS["unipc"](order=3, form="exact")
    config.sampling.solver.form = "bh3"
    with pytest.raises(ConfigError, match="config.sampling.solver.form = 'bh3' is not one of"):
        sampled(config)
