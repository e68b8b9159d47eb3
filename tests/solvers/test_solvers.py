import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample, generate, sample, sample_keys
from score_sde.sde import EDM, VE, VP, Cosine, Flow, SubVP
from score_sde.solvers import GRIDS, PC, SOLVERS, AdaptiveODE, noise_of
from score_sde.solvers.base import marginals
from score_sde.solvers.predictors import PREDICTORS
from tests.oracles import Gaussian, Mixture

DATA = Gaussian(np.array([0.5, -0.3]), np.array([0.4, 0.8]))
POINT = Gaussian(np.array([0.5, -0.3]), np.array([1e-8, 1e-8]))
CONTINUOUS = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": EDM(), "cosine": Cosine(), "flow": Flow()}
RANGES = {"vp": 1e-3, "subvp": 1e-3, "ve": 1e-5, "edm": 0.002, "cosine": 1e-3, "flow": 1e-3}


def grid_of(name, steps):
    kind = GRIDS["power"]() if name == "edm" else GRIDS["uniform"]()
    return kind(CONTINUOUS[name].t_max, RANGES[name], steps)


def draw(solver, name, steps, count, data=DATA):
    sde = CONTINUOUS[name]
    plan = solver.plan(sde, grid_of(name, steps))
    keys = sample_keys(0, jnp.arange(count))
    run = jax.jit(lambda keys, plan: sample(keys, data.denoise(sde), sde, solver, plan, shape=(2,)))
    return np.asarray(run(keys, plan))


SAMPLERS = [
    (PC(predictor="euler_maruyama"), "vp"),
    (PC(predictor="euler_maruyama"), "subvp"),
    (PC(predictor="euler_maruyama"), "ve"),
    (PC(predictor="reverse_diffusion"), "vp"),
    (PC(predictor="reverse_diffusion"), "subvp"),
    (PC(predictor="reverse_diffusion"), "ve"),
    (PC(predictor="ancestral"), "vp"),
    (PC(predictor="ancestral"), "subvp"),
    (PC(predictor="ancestral"), "ve"),
    (PC(predictor="ancestral"), "edm"),
    (PC(predictor="ancestral"), "cosine"),
    (PC(predictor="ancestral"), "flow"),
    (PC(predictor="reverse_diffusion", noise_scale=0.0), "vp"),
    (PC(predictor="euler_maruyama", noise_scale=0.0), "ve"),
    (PC(predictor="reverse_diffusion", corrector="ald", snr=0.05), "vp"),
    (PC(predictor="ancestral", corrector="ald", snr=0.05, corrector_steps=2), "subvp"),
    (PC(predictor="none", corrector="ald", snr=0.3, corrector_steps=3), "ve"),
    (AdaptiveODE(rtol=1e-4, atol=1e-4), "vp"),
    (AdaptiveODE(rtol=1e-4, atol=1e-4), "subvp"),
    (AdaptiveODE(rtol=1e-4, atol=1e-4), "ve"),
    (AdaptiveODE(rtol=1e-4, atol=1e-4, method="tsit5"), "edm"),
    (AdaptiveODE(rtol=1e-4, atol=1e-4), "flow"),
]


@pytest.mark.parametrize(
    ("solver", "name"),
    SAMPLERS,
    ids=[
        f"{n}-{getattr(s, 'predictor', 'ode')}-{getattr(s, 'corrector', '')}-{i}"
        for i, (s, n) in enumerate(SAMPLERS)
    ],
)
def test_samples_have_the_mean_and_covariance_of_the_data(solver, name):
    # 1000 steps: the bias of the discretisation is below the Monte Carlo error of 8192 samples, 5 sigma.
    count, slack = 8192, 0.012
    x = draw(solver, name, 1000, count)
    error = 5 / np.sqrt(count)
    assert np.all(np.abs(x.mean(0) - DATA.mean) < error * DATA.std + slack * DATA.std)
    covariance = np.cov(x.T)
    # Tweedie's last move takes away the noise of t_end and a little of the spread, of order sigma^2 / std^2.
    assert np.all(np.abs(np.sqrt(np.diag(covariance)) / DATA.std - 1) < error / np.sqrt(2) + slack)
    assert abs(covariance[0, 1]) / np.prod(DATA.std) < error


@pytest.mark.parametrize("norm", ["sample", "dimension", "batch"])
def test_langevin_keeps_the_marginal_in_many_dimensions(norm):
    # Its step size looks at the sample, so that it is exact only where norms concentrate: 1024 dimensions.
    sde, count, size, steps = VE(), 128, 1024, 300
    data = Gaussian(np.full(size, 0.5), np.full(size, 0.4))
    solver = PC(predictor="none", corrector="langevin", snr=0.1, norm=norm, denoise=False)
    level = 0.4 * np.ones(steps + 1)  # sigma = 0.3: stay at one noise level
    plan = solver.plan(sde, level)
    start = 0.5 + 0.1 * jax.random.normal(jax.random.key(9), (count, size))  # far too narrow
    noise = noise_of(sample_keys(0, jnp.arange(count)), (size,))
    x = solver.run(data.denoise(sde), sde, start, plan, noise)
    want = np.sqrt(0.4**2 + float(sde.sigma(jnp.float32(0.4))) ** 2)
    assert np.std(np.asarray(x)) == pytest.approx(want, rel=0.02)
    assert np.mean(np.asarray(x)) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
@pytest.mark.parametrize("predictor", ["euler_maruyama", "reverse_diffusion"])
@pytest.mark.usefixtures("x64")
def test_probability_flow_steps_have_order_one_and_the_right_limit(predictor, name):
    sde = CONTINUOUS[name]
    solver = PC(predictor=predictor, noise_scale=0.0, denoise=False)
    x = DATA.flow(sde, DATA.sample(jax.random.key(0), 16), sde.t_min, sde.t_max)
    want = DATA.flow(sde, x, sde.t_max, 0.1)
    errors = []
    for steps in (200, 400, 800):
        plan = solver.plan(sde, np.linspace(sde.t_max, 0.1, steps + 1))
        plan = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), plan)
        plan = plan._replace(rows=plan.rows._replace(draw=jnp.arange(steps)))
        got = solver.run(DATA.denoise(sde), sde, x, plan, lambda i: jnp.zeros_like(x))
        errors.append(np.sqrt(np.mean((got - want) ** 2)))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 1.0, atol=0.15)


@pytest.mark.parametrize("predictor", ["euler_maruyama", "reverse_diffusion", "ancestral", "ancestral_large"])
@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_stochastic_predictors_have_weak_order_one(predictor, name):
    # The moves are affine, so the moments of a Gaussian follow exactly, without sampling.
    sde = CONTINUOUS[name]

    def spread(steps):
        grid = np.linspace(1.0, 0.5, steps + 1)
        _, of_x, of_x0, of_noise, drawn = PREDICTORS[predictor](sde, grid[:-1], grid[1:])
        _, alpha, sigma = marginals(sde, grid)
        std = 0.6
        # x0 and noise that are expected behind x, for N(0, std^2)
        x0, noise = np.array([alpha * std**2, sigma]) / (alpha**2 * std**2 + sigma**2)
        variance = alpha[0] ** 2 * std**2 + sigma[0] ** 2
        for i in range(steps):
            gain = of_x[i] + of_x0[i] * x0[i] + of_noise[i] * noise[i]
            variance = gain**2 * variance + drawn[i] ** 2
        return abs(variance / (alpha[-1] ** 2 * std**2 + sigma[-1] ** 2) - 1)

    order = np.log2(spread(2000) / spread(4000))
    assert order == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_ode_follows_the_exact_flow(name):
    sde, solver = CONTINUOUS[name], AdaptiveODE(rtol=1e-6, atol=1e-6, denoise=False)
    times = grid_of(name, 1)
    x0 = DATA.sample(jax.random.key(0), 8)
    x = DATA.flow(sde, x0, float(times[-1]), float(times[0]))
    got = solver.run(DATA.denoise(sde), sde, x, solver.plan(sde, times), None)
    np.testing.assert_allclose(got, x0, atol=5e-4)


def test_ode_on_a_mixture_lands_on_the_data():
    data = Mixture(np.array([[1.0, 0.0], [-1.0, 0.5]]), 0.05)
    x = draw(AdaptiveODE(rtol=1e-4, atol=1e-4), "vp", 1, 512, data)
    distance = np.sqrt(((x[:, None] - data.means[None]) ** 2).sum(-1))
    assert np.quantile(distance.min(1), 0.95) < 0.05 * 3
    assert 0.4 < np.mean(distance.argmin(1)) < 0.6


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_any_number_of_ancestral_steps_ends_on_the_marginal_of_a_point(name, steps):
    # The posterior is exact where the clean sample is known: with Tweedie's move left out the noise of t_end
    # stays, and is all that there is.
    x = draw(PC(predictor="ancestral", denoise=False), name, steps, 512, POINT)
    at = marginals(CONTINUOUS[name], grid_of(name, steps)[-1:])
    noise = (x - at.alpha * POINT.mean) / at.sigma
    assert abs(np.mean(noise)) < 5 / np.sqrt(noise.size)
    assert abs(np.std(noise) - 1) < 5 / np.sqrt(2 * noise.size)


def test_changing_the_grid_or_predictor_does_not_recompile():
    sde, traces = VP(), []

    def denoise(x, t):
        traces.append(1)
        return DATA.denoise(sde)(x, t)

    solver = PC(predictor="ancestral")
    keys = sample_keys(0, jnp.arange(2))
    run = jax.jit(lambda keys, plan: sample(keys, denoise, sde, solver, plan, shape=(2,)))
    run(keys, solver.plan(sde, np.linspace(1, 1e-3, 21)))
    count = len(traces)
    run(keys, PC(predictor="euler_maruyama").plan(sde, np.linspace(1, 1e-3, 21) ** 2))
    assert len(traces) == count


def _bind(params, cond):
    return DATA.denoise(VP())


@pytest.mark.parametrize(
    "key",
    [
        "pc",
        pytest.param("ode", marks=pytest.mark.slow),
        "legacy_pc",
        pytest.param("legacy_ode", marks=pytest.mark.slow),
        "unipc",
    ],
)
def test_a_sample_depends_on_its_number_only(key):
    sde, solver = VP(), SOLVERS[key]()
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 26))
    results = []
    for devices, batch in ((1, 7), (1, 12), (8, 16), (8, 3)):
        mesh = make_mesh(devices=jax.devices()[:devices])
        run = compile_sample(_bind, sde, solver, mesh, shape=(2,))
        parts = list(generate(run, {}, plan, mesh, seed=5, num_samples=12, batch_size=batch))
        assert sum(len(p) for p in parts) == 12
        results.append(np.concatenate(parts))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=2e-5)  # the programs differ in rounding
    assert len(np.unique(results[0][:, 0])) == 12  # and the samples differ


def test_generation_can_start_in_the_middle():
    mesh, sde, solver = make_mesh(devices=jax.devices()[:1]), VP(), PC()
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 11))
    run = compile_sample(_bind, sde, solver, mesh, shape=(2,))
    options = {"seed": 0, "num_samples": 10, "batch_size": 4}
    whole = np.concatenate(list(generate(run, {}, plan, mesh, **options)))
    rest = np.concatenate(list(generate(run, {}, plan, mesh, start=6, **options)))
    np.testing.assert_allclose(rest, whole[6:], atol=1e-6)


def test_noise_of_a_sample_is_independent_across_draws_and_samples():
    noise = noise_of(sample_keys(0, jnp.arange(2000)), (2,))
    a, b = np.asarray(noise(0)), np.asarray(noise(1))
    table = np.corrcoef(np.concatenate([a, b], axis=1).T)
    assert np.all(np.abs(table - np.eye(4)) < 5 / np.sqrt(2000))
    np.testing.assert_array_equal(noise(0), a)


def test_samples_that_are_not_finite_are_reported():
    mesh, sde, solver = make_mesh(devices=jax.devices()[:1]), VP(), AdaptiveODE(max_steps=2)
    run = compile_sample(_bind, sde, solver, mesh, shape=(2,))
    plan = solver.plan(sde, np.linspace(1.0, 1e-3, 11))
    with pytest.raises(FloatingPointError, match="3 of 3 samples are not finite, the first is number 0"):
        list(generate(run, {}, plan, mesh, seed=0, num_samples=3, batch_size=3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PC(predictor="euler"), "did you mean 'euler_maruyama'"),
        (lambda: PC(corrector="langevn"), "did you mean 'langevin'"),
        (lambda: PC(predictor="none"), "nothing would happen"),
        (lambda: PC(snr=0.0), "snr > 0"),
        (lambda: AdaptiveODE(method="rk45"), "dopri5, tsit5"),
        (lambda: AdaptiveODE(rtol=0.0), "rtol"),
        (lambda: PC().plan(Flow(t_max=1.0), np.linspace(1.0, 0.1, 5)), "not finite"),
    ],
)
def test_impossible_options_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
