"""What a config reaches: other paths, thresholds, error control, listed grids, states, an early end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.conditions import labelled
from score_sde.data import Spec
from score_sde.denoiser import Estimate
from score_sde.experiment.assemble import architecture_of, sampler_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import typed
from score_sde.integrate import ode
from score_sde.names import ConfigError
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.chunks import compile_trajectory
from score_sde.sampling.draw import generate, sample, sample_keys
from score_sde.sde import EDM, VE, VP
from score_sde.solvers import GRIDS, SOLVERS, AdaptiveDPM, AdaptiveODE, Hooks
from score_sde.solvers.grids import save_times
from tests.conftest import ROOT
from tests.oracles import Gaussian, denoise_by

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))


def sampler(**sampling):
    """The digits recipe with other sampling, without its network."""
    config = load_file(str(ROOT / "configs" / "vp_digits.py"))
    config.sampling = {"solver": "dpmpp_2m", "steps": 10, "grid": "log_snr", **sampling}
    config.model = {"name": "ncsnpp", "nf": 8, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": ()}
    return sampled(config)


def sampled(config):
    config = typed(config)
    return sampler_of(config, architecture_of(config, Spec((8, 8, 1), 17, labelled(10))))


def test_a_config_samples_on_the_path_of_another_process():
    found = sampler(process={"name": "edm", "t_max": 50.0}, grid="edm", t_end=0.0)
    assert found.process == EDM(t_max=50.0)
    assert found.plan.start == 50.0 and found.plan.end == 0.0
    x = 3.0 * jax.random.normal(jax.random.key(0), (16, 2))
    got = found.guidance(lambda params, cond: DATA.denoise(VP()))({}, {})(x, jnp.float32(3.0))
    np.testing.assert_allclose(got.x0, DATA.denoise(EDM())(x, jnp.float32(3.0)).x0, atol=1e-4)


def test_without_a_path_the_denoiser_is_untouched():
    found, denoise = sampler(), DATA.denoise(VP())
    assert found.process == VP() and found.guidance(lambda params, cond: denoise)({}, {}) is denoise


@pytest.mark.parametrize(("name", "largest"), [("static", 1.0), ("dynamic", 1.0), ("none", 9.0)])
def test_a_config_thresholds_the_prediction(name, largest):
    guidance = sampler(
        threshold={"name": name} | ({"threshold_quantile": 0.5} if name == "dynamic" else {})
    ).guidance
    denoise = guidance(lambda params, cond: denoise_by(VP(), lambda x, t: 9.0 * x))({}, {})
    assert float(jnp.max(denoise(jnp.ones((2, 4)), jnp.float32(0.5)).x0)) == largest


def test_a_config_guides_a_model_of_classes():
    config = load_file(str(ROOT / "configs" / "vp_digits.py"))
    config.model = {"name": "ncsnpp", "nf": 8, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": ()}
    config.conditions = {"names": ("label",)}
    config.sampling = {"guidance": {"name": "classifier_free", "scale": 3.0}, "threshold": "static"}
    found = sampled(config)

    # A network of noise that is told nothing but adds its label: any other combination has another sum.
    def bind(params, cond):
        values = cond["label"][:, None, None, None]
        return lambda x, t: from_noise(VP(), jnp.ones_like(x) * values, x, t)

    cond = {"label": jnp.array([4, 7]), **found.guidance.inputs(2)}
    x, t = jnp.zeros((2, 8, 8, 1)), jnp.float32(0.5)
    got = found.guidance(bind)({}, cond)(x, t)
    noise = np.array([-1 + 3.0 * (4 + 1), -1 + 3.0 * (7 + 1)])
    assert np.all(got.x0 == -1)
    sde = found.process
    np.testing.assert_allclose(got.noise[:, 0, 0, 0], sde.alpha(t) / sde.sigma(t) * np.ones(2), rtol=1e-5)
    loose = found.guidance.parts[0](bind)({}, cond)(x, t)
    np.testing.assert_allclose(loose.noise[:, 0, 0, 0], noise, rtol=1e-6)


def from_noise(sde, noise, x, t):
    return Estimate((x - expand(sde.sigma(t), x) * noise) / expand(sde.alpha(t), x), noise)


def test_an_early_end_is_that_of_a_shorter_grid():
    times = GRIDS["log_snr"](VP())(1.0, 1e-3, 10)
    want = SOLVERS["dpmpp_2m"]().plan(VP(), times[:5])
    jax.tree.map(np.testing.assert_array_equal, sampler(stop_after_steps=4).plan, want)


def test_a_saved_grid_is_a_grid(tmp_path):
    times, path = np.array([1.0, 0.5, 0.2, 0.05, 1e-3]), tmp_path / "times.json"
    save_times(path, times)
    want = SOLVERS["dpmpp_2m"]().plan(VP(), times)
    found = sampler(grid={"name": "file", "times_file": str(path)}, steps=4)
    jax.tree.map(np.testing.assert_array_equal, found.plan, want)
    with pytest.raises(ConfigError, match=r"a listed grid has steps \+ 1 = 6 decreasing times"):
        sampler(grid={"name": "file", "times_file": str(path)}, steps=5)
    path.write_text(json.dumps({"time": []}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"times_file = .*must be a JSON file"):
        sampler(grid={"name": "file", "times_file": str(path)}, steps=4)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (
            {"threshold": "statc"},
            "sampling.threshold.name = 'statc' is not one of: none, static, dynamic",
        ),
        (
            {"threshold": {"name": "dynamic", "threshold_quantile": 0.0}},
            "quantile = 0.0: must be in",
        ),
        ({"guidance": "classifier-free"}, "did you mean 'classifier_free'"),
        ({"guidance": "classifier_free"}, "'classifier_free': needs conditions.names"),
        (
            {"guidance": {"name": "none", "scale": 2.0}},
            "config.sampling.guidance.scale: 'none' has no option",
        ),
        ({"stop_after_steps": 11}, "stop_after_steps = 11: must be in 1 to steps = 10"),
        ({"keep_every_steps": -1}, "keep_every_steps = -1: must be 0 or more"),
        ({"keep_every_steps": 2, "solver": "ode"}, "keep_every_steps = 2: must be 0"),
        ({"round_to_levels": 1000}, "round_to_levels = 1000: must be 0 with sampling.process = 'trained'"),
        ({"grid": "file"}, "config.sampling.grid: times_file is not set"),
        ({"solver": {"name": "ode", "method": "rk45"}}, "dopri5, tsit5, bosh3, dopri8, heun"),
        (
            {"solver": {"name": "ode", "error_control": "each"}},
            "'each' is not one of: sample, batch",
        ),
        ({"solver": {"name": "adaptive_dpm", "order": 4}}, "order = 4 is not one of: 2, 3"),
        ({"solver": "adaptive_dpm", "grid": "uniform", "t_end": 0.0}, "ends where sigma > 0"),
        ({"solver": {"name": "adaptive_dpm", "dpm_control": "lagest"}}, "did you mean 'largest'"),
        ({"solver": {"name": "dpm_3s", "inner": "exact"}}, "inner = 'exact' is not one of: midpoint, taylor"),
    ],
)
def test_impossible_values_are_named(sampling, words):
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        sampler(**sampling)


# --- error control ---------------------------------------------------------------------------------


SLOW = pytest.mark.slow


@pytest.mark.parametrize("method", [pytest.param(m, marks=() if m == "bosh3" else SLOW) for m in ode.METHODS])
@pytest.mark.usefixtures("x64")
def test_every_method_counts_its_evaluations_and_follows_the_flow(method):
    sde, calls = VP(), []
    x = DATA.flow(sde, jnp.array([[0.2, -0.1]]), 0.1, 1.0)

    def denoise(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return DATA.denoise(sde)(x, t)

    def field(t, x):
        return (
            sde.drift(t)[:, None] * x
            + 0.5
            * sde.diffusion(t)[:, None] ** 2
            * (x - sde.alpha(t)[:, None] * denoise(x, t).x0)
            / sde.sigma(t)[:, None] ** 2
        )

    counted, stated = [], []
    for tolerance in (1e-3, 1e-5):
        calls.clear()
        accuracy = ode.Accuracy(tolerance, tolerance, 4096, method)
        solution = ode.integrate_together(field, x, 1.0, 0.1, accuracy)
        jax.effects_barrier()
        counted.append(len(calls))
        stated.append(int(solution.evaluations[0]))
    np.testing.assert_allclose(solution.y, [[0.2, -0.1]], atol=2e-3)
    assert counted[1] - counted[0] == stated[1] - stated[0] > 0  # but for those of the first step size


@pytest.mark.parametrize(
    ("loose", "same"),
    [
        pytest.param(AdaptiveODE(rtol=1e-2, atol=1e-2), True, marks=SLOW),
        (AdaptiveODE(rtol=1e-2, atol=1e-2, error_control="batch"), False),
        (AdaptiveDPM(), True),
        pytest.param(AdaptiveDPM(dpm_control="batch"), False, marks=SLOW),
        pytest.param(AdaptiveDPM(dpm_control="largest"), False, marks=SLOW),
    ],
)
@pytest.mark.usefixtures("x64")
def test_only_control_by_sample_keeps_samples_apart(loose, same):
    # One far sample makes every step of its batch small, unless each has steps of its own.
    sde = VP()
    x = jnp.array([[0.1, 0.2], [40.0, -40.0]])

    def run(x):
        plan = loose.plan(sde, np.array([1.0, 1e-2]))
        return loose.run(DATA.denoise(sde), sde, x, plan, None)

    apart = float(jnp.max(jnp.abs(run(x)[0] - run(x[:1])[0])))
    assert (apart < 1e-9) == same
    assert loose.couples_batch != same


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VP(), VE(), EDM()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("order", "prediction"), [(2, "noise"), (3, "noise"), (3, "x0")])
@pytest.mark.usefixtures("x64")
def test_adaptive_dpm_follows_the_flow_and_a_tolerance_buys_steps(order, prediction, sde):
    x0, end = DATA.sample(jax.random.key(0), 8), 0.1
    x = DATA.flow(sde, x0, end, sde.t_max)
    tries, errors = [], []
    for tolerance in (1e-2, 1e-4):
        solver = AdaptiveDPM(order=order, prediction=prediction, dpm_rtol=tolerance, dpm_atol=tolerance)
        got, count = solver.solve(DATA.denoise(sde), sde, x, solver.plan(sde, np.array([sde.t_max, end])))
        errors.append(float(jnp.max(jnp.abs(got - x0))))
        tries.append(float(jnp.mean(count)))
    assert errors[1] < 1e-3 and errors[1] < 0.5 * errors[0]
    assert tries[1] > 1.5 * tries[0]


# --- states ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_film_ends_with_the_sample_and_holds_the_states_before_it():
    sde, solver = VP(), SOLVERS["unipc"]()
    times = GRIDS["log_snr"](sde)(1.0, 1e-3, 9)
    mesh, plan = make_mesh(devices=jax.devices()[:2]), solver.plan(sde, times)
    assert solver.steps(plan) == 10  # with Tweedie's
    hooks = Hooks(keep_every_steps=3, keep=solver.steps(plan) // 3)
    bind, rows = lambda params, cond: DATA.denoise(sde), []
    draw = compile_trajectory(bind, sde, solver, mesh, hooks, shape=(2,), progress=rows.append)
    options = {"seed": 5, "num_samples": 5, "batch_size": 4}
    trajectory = np.concatenate(list(generate(draw, {}, plan, mesh, **options)))
    assert trajectory.shape == (5, 4, 2)
    keys = sample_keys(5, jnp.arange(5))
    want = sample(keys, DATA.denoise(sde), sde, solver, plan, shape=(2,))
    np.testing.assert_allclose(trajectory[:, -1], want, atol=1e-5)
    first = SOLVERS["unipc"](denoise=False, lower_final_below=0).plan(sde, times[:4])  # no step is a last one
    early = sample(keys, DATA.denoise(sde), sde, solver, first, shape=(2,))
    np.testing.assert_allclose(trajectory[:, 0], early, atol=1e-5)
    assert np.abs(trajectory[:, 1] - early).max() > 0.05
