"""Methods that change a solver's steps: dense algebra, closed forms, and the official code's numbers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.inverse import (
    DDRM,
    DPS,
    MASK,
    MEASURED,
    METHODS,
    NOISE_STD,
    TDS,
    Blur,
    BoxDown,
    ChannelMean,
    LegacyReplacement,
    Mask,
    RePaint,
    Replacement,
    SDEdit,
)
from score_sde.inverse.repaint import visits
from score_sde.inverse.steps import BetweenSteps, Level, impose
from score_sde.runtime.mesh import make_mesh
from score_sde.sampling.draw import compile_sample
from score_sde.sde import EDM, VE, VP, SubVP
from score_sde.solvers import GRIDS, SOLVERS, Hooks, LegacyPC
from tests.inverse.priors import Correlated, mixture_weights, seen_first
from tests.oracles import Gaussian, Mixture

SHAPE, COUNT = (4, 2, 1), 3
RNG = np.random.default_rng(0)
SEEN = (RNG.random((COUNT, *SHAPE)) < 0.5).astype(np.float32)
OPERATORS = {"mask": Mask(), "box_down": BoxDown(factor=2), "blur": Blur(blur_sigma=0.6)}
FIRST = Correlated(np.array([0.2, -0.1]), 0.25 * np.array([[1.0, 0.8], [0.8, 1.0]]))


def matrix(operator, sample):
    """``A`` of one sample as NumPy has it."""
    units = np.eye(8, dtype=np.float32).reshape(8, *SHAPE)
    given = {MASK: jnp.broadcast_to(jnp.asarray(SEEN[sample]), units.shape)}
    return np.asarray(operator.apply(jnp.asarray(units), given), np.float64).reshape(8, -1).T


def measured(operator, noise_std):
    given = {MASK: jnp.asarray(SEEN)}
    y = operator.apply(jnp.asarray(RNG.normal(size=(COUNT, *SHAPE)), jnp.float32), given)
    own = {name: given[name] for name in operator.needs}
    return {MEASURED: y, NOISE_STD: jnp.full(COUNT, noise_std), **own}


def spectral(operator, sample):
    """Singular values above zero, with their rows of ``U^T`` and ``V^T``."""
    u, s, vt = np.linalg.svd(matrix(operator, sample), full_matrices=False)
    keep = s > 1e-3
    return s[keep], u.T[keep], vt[keep]


def drawn(method, prior, sde, count, cond, *, solver="pc", steps=60, **options):
    """Samples ``(count, 2)`` of a method with one measured entry."""
    grid = GRIDS["karras"](sde=sde)(sde.t_max, 2e-3, steps)
    inner = SOLVERS[solver](predictor="ancestral") if solver == "pc" else SOLVERS[solver]()
    how = method(operator=Mask(), sde=sde, **options)
    taken = how.steps(inner)
    mesh = make_mesh(devices=jax.devices()[:1])
    draw = compile_sample(how(lambda parts, cond: prior.denoise(sde)), sde, taken, mesh, shape=(2,))
    keys = jax.random.split(jax.random.key(0), count)
    return np.asarray(draw({}, taken.plan(sde, grid), keys, {k: jnp.asarray(v) for k, v in cond.items()}))


# --- what is known, imposed on a state -------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(("sigma", "noise_std"), [(0.5, 0.0), (0.5, 0.2), (0.3, 0.4)])
def test_the_known_part_is_drawn_along_each_singular_direction(name, sigma, noise_std):
    operator, alpha = OPERATORS[name], 0.8
    given = measured(operator, noise_std)
    x, z = (jnp.asarray(RNG.normal(size=(COUNT, *SHAPE)), jnp.float32) for _ in range(2))
    level = Level(jnp.float32(alpha), jnp.float32(sigma))
    got = np.asarray(impose(operator, x, level, z, given, given[NOISE_STD])).reshape(COUNT, -1)
    for i in range(COUNT):
        s, ut, vt = spectral(operator, i)
        own, y = (alpha * noise_std / s) ** 2, np.asarray(given[MEASURED][i], np.float64).ravel()
        before, noise = np.asarray(x[i]).ravel(), np.asarray(z[i]).ravel()
        known = alpha * (ut @ y) / s + np.sqrt(np.maximum(sigma**2 - own, 0)) * (vt @ noise)
        want = before + vt.T @ np.where(own <= sigma**2, known - vt @ before, 0.0)
        np.testing.assert_allclose(got[i], want, atol=2e-5)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_a_step_of_ddrm_is_that_of_the_paper(name, noise_std):
    operator, sde, eta, weight = OPERATORS[name], VP(), 0.7, 0.9
    given = measured(operator, noise_std)
    solver = DDRM(operator=operator, sde=sde, eta=eta, eta_measured=weight).steps(SOLVERS["ddpm"]())
    plan, prior = (
        solver.plan(sde, np.array([0.8, 0.5, 0.2])),
        Gaussian(np.full(SHAPE, 0.1), np.full(SHAPE, 0.6)),
    )
    row = jax.tree.map(lambda column: jnp.asarray(column)[1], solver.rows(plan))  # from 0.5 to 0.2
    x, z = (jnp.asarray(RNG.normal(size=(COUNT, *SHAPE)), jnp.float32) for _ in range(2))
    denoise = prior.denoise(sde)
    got, _ = solver.given(given).step(denoise, x, row, (), lambda i: z)
    ends = [(float(sde.alpha(t)), float(sde.sigma(t))) for t in (0.5, 0.2)]
    (a, b), (alpha, sigma) = ends
    before, level, x0s = b / a, sigma / alpha, np.asarray(denoise(x, jnp.asarray(0.5)).x0)
    for i in range(COUNT):
        s, ut, vt = spectral(operator, i)
        x0, now = x0s[i].ravel().astype(float), np.asarray(x[i]).ravel() / a
        noise, y = np.asarray(z[i]).ravel(), ut @ np.asarray(given[MEASURED][i], np.float64).ravel() / s
        free = x0 + np.sqrt(1 - eta**2) * level * (now - x0) / before + eta * level * noise
        own, mine = noise_std / s, vt @ x0
        well = level >= own
        mean = np.where(
            well,
            (1 - weight) * mine + weight * y,
            mine + np.sqrt(1 - eta**2) * level * (y - mine) / np.maximum(own, 1e-9),
        )
        spread = np.where(well, np.sqrt(np.maximum(level**2 - (weight * own) ** 2, 0)), eta * level)
        want = free + vt.T @ (mean + spread * (vt @ noise) - vt @ free)
        np.testing.assert_allclose(np.asarray(got[i]).ravel(), alpha * want, atol=5e-5)


# --- between the steps of any solver -----------------------------------------------------------------


class Nothing(BetweenSteps):
    """Does nothing."""

    def after(self, x, known, step, z, given):
        return x


@pytest.mark.parametrize("name", ["pc", "heun", "dpmpp_2m", "pndm"])
def test_a_solver_with_nothing_between_its_steps_is_itself(name):
    sde = VP()
    solver, times = SOLVERS[name](), GRIDS["uniform"]()(1.0, 1e-3, 8)
    around = Nothing(operator=Mask(), sde=sde).steps(solver)
    table = jax.random.normal(jax.random.key(0), (200, COUNT, 2))
    denoise, x = FIRST.denoise(sde), table[0]
    want = solver.finish(
        denoise,
        solver.run(denoise, sde, x, solver.plan(sde, times), lambda i: table[2 * i]),
        solver.plan(sde, times),
    )
    plan = around.plan(sde, times)
    assert around.steps(plan) == solver.steps(solver.plan(sde, times))
    assert int(np.sum(plan.rows.step.ends)) == 8
    given = {k: jnp.asarray(v) for k, v in seen_first(COUNT, 1.0, 0.1).items()}
    taken = around.given(given)
    got = taken.finish(denoise, taken.run(denoise, sde, x, plan, lambda i: table[i]), plan)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    ends = plan.rows.step.ends
    np.testing.assert_allclose(plan.rows.step.end.alpha[ends], sde.alpha(jnp.asarray(times[1:])), rtol=1e-5)
    np.testing.assert_allclose(
        plan.rows.step.start.sigma[ends], sde.sigma(jnp.asarray(times[:-1])), rtol=1e-5
    )
    np.testing.assert_allclose(plan.rows.step.t[ends], times[:-1], rtol=1e-6)


def test_solvers_that_methods_cannot_use_are_refused():
    method = Replacement(operator=Mask(), sde=VP())
    with pytest.raises(ValueError, match="AdaptiveODE chooses its steps on the way: choose a solver with"):
        method.steps(SOLVERS["ode"]())
    with pytest.raises(ValueError, match="needs sampling.solver = 'legacy_pc', and the solver is PC"):
        LegacyReplacement(operator=Mask(), sde=VP()).steps(SOLVERS["pc"]())
    for options, message in (
        (lambda: DPS(operator=Mask(), sde=VP(), step_size=0.0), "step_size = 0.0"),
        (lambda: RePaint(operator=Mask(), sde=VP(), jump_length=0), "jump_length = 0"),
        (lambda: RePaint(operator=Mask(), sde=VP(), resamplings=0), "resamplings = 0"),
        (lambda: DDRM(operator=Mask(), sde=VP(), eta=1.5), "eta = 1.5"),
        (lambda: DDRM(operator=Mask(), sde=VP(), eta_measured=-0.1), "eta_measured = -0.1"),
        (lambda: TDS(operator=Mask(), sde=VP(), particles=0), "particles = 0"),
    ):
        with pytest.raises(ValueError, match=message):
            options()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sde", [VP(), EDM()])
def test_dps_moves_each_sample_along_its_own_gradient(sde):
    method = DPS(operator=Mask(), sde=sde, step_size=0.7)
    times = np.array([0.6, 0.4])
    solver = SOLVERS["ddim"](denoise=False)
    around = method.steps(solver)
    given = {k: jnp.asarray(v, jnp.float64) for k, v in seen_first(COUNT, 1.0, 0.1).items()}
    x, denoise = jnp.asarray(RNG.normal(size=(COUNT, 2))), FIRST.denoise(sde)
    plain = solver.run(denoise, sde, x, solver.plan(sde, times), lambda i: jnp.zeros_like(x))
    got = around.given(given).run(denoise, sde, x, around.plan(sde, times), lambda i: jnp.zeros_like(x))
    (a, s), (b, r) = ((float(sde.alpha(t)), float(sde.sigma(t))) for t in times)
    # One entry is measured, so |y - A x0| is the absolute value of one number.
    slope = (a * FIRST.covariance @ np.linalg.inv(a**2 * FIRST.covariance + s**2 * np.eye(2)))[0]
    x0 = np.asarray(denoise(x, jnp.asarray(0.6)).x0)[:, 0]
    move = 0.7 * np.hypot(a, s) * np.hypot(b, r) * -np.sign(1.0 - x0)[:, None] * slope
    np.testing.assert_allclose(got, np.asarray(plain) - move, rtol=1e-6, atol=1e-8)


# --- whole samplers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["pc", "dpmpp_2m"])
def test_replacement_ends_at_the_measurement(solver):
    x = drawn(Replacement, FIRST, EDM(t_max=20.0), 64, seen_first(64, 1.0, 0.0), solver=solver, steps=20)
    np.testing.assert_allclose(x[:, 0], 1.0, atol=1e-2)  # t_end is 2e-3
    assert np.std(x[:, 1]) > 0.1


@pytest.mark.parametrize("name", ["pc", "dpmpp_2m"])
def test_sdedit_takes_the_last_steps_from_the_noisy_picture(name):
    sde, solver = VP(), SOLVERS[name]()
    method = SDEdit(operator=BoxDown(factor=2), sde=sde, strength=0.6)
    around, times = method.steps(solver), GRIDS["uniform"]()(1.0, 1e-3, 10)
    assert around.program == SDEdit(operator=BoxDown(factor=2), sde=sde, strength=0.6).steps(solver).program
    plan, part = around.plan(sde, times), solver.plan(sde, times[4:])
    assert around.count(plan) == solver.count(part)
    table = jax.random.normal(jax.random.key(0), (40, COUNT, *SHAPE))
    prior = Gaussian(np.full(SHAPE, 0.1), np.full(SHAPE, 0.6)).denoise(sde)
    given = measured(BoxDown(factor=2), 0.0)
    picture = jnp.repeat(jnp.repeat(given[MEASURED], 2, axis=1), 2, axis=2)
    x = sde.alpha(jnp.asarray(times[4])) * picture + sde.sigma(jnp.asarray(times[4])) * table[0]
    want = solver.finish(prior, solver.run(prior, sde, x, part, lambda i: table[i]), part)
    taken = around.given(given)
    got = taken.finish(prior, taken.run(prior, sde, jnp.zeros_like(x), plan, lambda i: table[i]), plan)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="strength = 0.0: must be above 0"):
        SDEdit(operator=Mask(), sde=sde, strength=0.0)
    with pytest.raises(ValueError, match="AdaptiveODE chooses its steps on the way"):
        method.steps(SOLVERS["ode"]())


def test_the_way_of_repaint():
    assert [tuple(v) for v in visits(4, 2, 2)] == [
        (0, 1),
        (1, 2),
        (2, 1),  # one step from the end: two steps up,
        (1, 2),
        (2, 3),  # and down again
        (3, 4),
    ]
    assert [tuple(v) for v in visits(3, 2, 1)] == [(0, 1), (1, 2), (2, 3)]
    way = list(visits(250, 10, 10))  # the paper's schedule
    assert len(way) == 2410
    assert len(way) + sum(v.start + 1 - v.back_to for v in way) == 4570


def test_going_back_and_forth_brings_the_unknown_part_to_its_conditional_mean():
    sde, count = EDM(t_max=20.0), 2000
    cond, (mean, _) = seen_first(count, 1.0, 0.0), FIRST.given_first(1.0, 0.0)
    once, often = (
        drawn(RePaint, FIRST, sde, count, cond, steps=30, jump_length=3, resamplings=r)[:, 1].mean()
        for r in (1, 12)
    )
    assert abs(once - mean[1]) > 0.1  # replacement alone
    assert abs(often - mean[1]) < 0.05


def test_particles_find_the_weights_of_the_modes():
    prior = Mixture(np.array([[0.6, 0.5], [-0.3, -0.6], [0.2, -0.4]]), 0.02)
    sde, count = EDM(t_max=20.0), 400
    want, cond = mixture_weights(prior, 0.2, 0.2), seen_first(count, 0.2, 0.2)

    def far(particles):
        x = drawn(TDS, prior, sde, count, cond, steps=100, particles=particles)
        near = np.square(x[:, None] - prior.means).sum(axis=-1).argmin(axis=1)
        return np.abs(np.bincount(near, minlength=3) / count - want).max()

    assert far(1) > 0.15
    assert far(24) < 4 * np.sqrt(want.max() * (1 - want.max()) / count)


def test_one_particle_without_a_measurement_is_ancestral_sampling():
    sde, prior = EDM(t_max=20.0), FIRST
    cond = seen_first(4, 0.0, 1e6)
    times = GRIDS["karras"](sde=sde)(20.0, 2e-3, 12)
    solver = SOLVERS["pc"](predictor="ancestral")
    twisted = TDS(operator=Mask(), sde=sde, particles=1).steps(solver)
    table = jax.random.normal(jax.random.key(0), (60, 4, 2))
    denoise, x = prior.denoise(sde), 20.0 * table[0]
    given = twisted.given({k: jnp.asarray(v) for k, v in cond.items()})
    plan, plain = twisted.plan(sde, times), solver.plan(sde, times)
    # Step n draws number n + 1 there; here each row has a number more, for the choice of a particle.
    want = solver.finish(denoise, solver.run(denoise, sde, x, plain, lambda i: table[2 * i - 1]), plain)
    got = given.finish(denoise, given.run(denoise, sde, x, plan, lambda i: table[i]), plan)
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("name", ["ddrm", "dps", "repaint", "tds"])
def test_no_sample_sees_another_on_its_way(name):
    sde, solver = VP(), SOLVERS["pc"]()
    options = {"particles": 2} if name == "tds" else {}
    how = METHODS[name](operator=Mask(), sde=sde, **options)
    taken = how.steps(solver)
    plan = taken.plan(sde, GRIDS["uniform"]()(1.0, 1e-3, 12))
    mesh = make_mesh(devices=jax.devices()[:1])
    draw = compile_sample(how(lambda p, c: FIRST.denoise(sde)), sde, taken, mesh, shape=(2,))
    cond = {k: jnp.asarray(v) for k, v in seen_first(6, 1.0, 0.1).items()}
    cond[MEASURED] = cond[MEASURED] * jnp.arange(6.0)[:, None]
    keys = jax.random.split(jax.random.key(0), 6)
    whole = draw({}, plan, keys, cond)
    part = draw({}, plan, keys[2:4], {k: v[2:4] for k, v in cond.items()})
    np.testing.assert_allclose(whole[2:4], part, rtol=1e-5, atol=1e-6)


# --- the official code ------------------------------------------------------------------------------

RECORDED = np.load(Path(__file__).parents[1] / "data" / "controllable_analytic.npz")
RUNS = [key for key in RECORDED.files if "|" in key]
SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE(sigma_min=0.01, sigma_max=50.0)}
# The official code rotates colours so that the first of the new channels is their mean, times sqrt(3).
TURN = np.linalg.qr(np.array([[1.0, -2.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, -1.0]]))[0].astype(np.float32)
TURN = TURN * np.sign(TURN[:1] * np.array([[1, -1, 1]], np.float32) + 1e-9 * (TURN[:1] == 0))


def channels_last(array):
    return np.moveaxis(array, 1, -1)


@pytest.mark.parametrize("key", RUNS)
def test_legacy_replacement_is_the_official_one(key):
    task, steps, process, predictor, corrector, denoise = key.split("|")
    n, sde = int(steps[1:]), SDES[process]
    predictor = predictor.removesuffix("_sampling")
    inner = LegacyPC(predictor=predictor, corrector=corrector, snr=0.16, denoise=denoise == "denoise1")
    stream = np.random.Generator(np.random.PCG64(777))

    def block():
        return channels_last(stream.standard_normal((4, 3, 8, 8)).astype(np.float32))

    prior, known = block() * np.float32(sde.prior_sigma), []
    table = np.zeros((4 * n + 4, *prior.shape), np.float32)
    for i in range(n):
        draw = 1 + i * inner.evaluations
        for moves, place in ((corrector, 4 * i + 1), (predictor, 4 * i + 3)):
            if moves != "none":
                table[2 * draw] = block()
                draw += 1
            table[place] = block()
            known.append(place)
    if task == "inpaint":
        operator, mask = Mask(), channels_last(RECORDED["mask"])
        given = {MEASURED: channels_last(RECORDED["data"]) * mask, MASK: mask}
    else:
        operator, gray = ChannelMean(), channels_last(RECORDED["gray"])
        given = {MEASURED: gray.mean(axis=-1, keepdims=True)}
        table[known] = table[known] @ TURN.T  # drawn for the turned channels
    given = {**{k: jnp.asarray(v) for k, v in given.items()}, NOISE_STD: jnp.zeros(4)}
    solver = LegacyReplacement(operator=operator, sde=sde).steps(inner).given(given)
    plan, noise = solver.plan(sde, np.linspace(1.0, 1e-5, n + 1)), jnp.asarray(table)
    carry = solver.prepare(jnp.asarray(prior), plan, lambda i: noise[i], Hooks())
    if task == "colorize":  # there the first channel of the prior, not of the turned one, is left out
        prior[..., 0] = 0.0
        carry = carry._replace(x=jnp.asarray(prior + gray.mean(axis=-1, keepdims=True)))
    exact = Gaussian(np.moveaxis(RECORDED["mu"], 0, -1), np.moveaxis(RECORDED["s"], 0, -1)).denoise(sde)
    carry = solver.advance(exact, carry, plan, lambda i: noise[i], Hooks(), 0, n)
    got, want = solver.finish(exact, carry.x, plan), channels_last(RECORDED[key])
    np.testing.assert_allclose(got, want, atol=4e-5)
