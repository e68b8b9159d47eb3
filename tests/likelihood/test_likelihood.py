import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.denoiser import Estimate
from score_sde.integrate.ode import METHODS
from score_sde.likelihood.ode_density import (
    PROBES,
    Adaptive,
    Exact,
    Fixed,
    Hutchinson,
    bits_per_dim,
    clenshaw_curtis,
    log_prob,
)
from score_sde.sde import EDM, VE, VP, Flow, SubVP
from tests.oracles import Gaussian, Mixture

SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": EDM(), "flow": Flow()}
BLOBS = Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25)


def keys(count):
    return jax.random.split(jax.random.key(7), count)


def measure(data, sde, x, divergence, **options):
    run = jax.jit(
        lambda x: log_prob(keys(len(x)), data.denoise(sde), sde, x, divergence=divergence, **options)
    )
    return run(x)


@pytest.mark.parametrize(
    ("name", "kind", "nodes"),
    [
        pytest.param(name, *how, marks=pytest.mark.slow if name == "subvp" else [])
        for how in (("exact", 64), ("rademacher", 0))
        for name in ("vp", "subvp", "ve")
    ],
)
def test_bits_per_dim_of_a_gaussian_are_right_to_one_thousandth(name, kind, nodes):
    # The Jacobian of a diagonal Gaussian is diagonal, so signs as probes are exact too.
    sde = SDES[name]
    std = 0.1 + 0.5 * np.random.default_rng(0).random((4, 4, 3))
    data = Gaussian(np.random.default_rng(1).uniform(-0.8, 0.8, (4, 4, 3)), std)
    divergence = Exact(chunk=16) if kind == "exact" else Hutchinson(kind=kind)
    x = data.sample(jax.random.key(0), 8)
    # With nodes the divergence holds no step down: sub-VP's latents at 1e-5 are off by 2e-4 bits.
    integrator = Adaptive(rtol=1e-6, atol=1e-6) if nodes else Adaptive()
    out = measure(data, sde, x, divergence, integrator=integrator, nodes=nodes)
    got = bits_per_dim(out.nats, 48)
    np.testing.assert_allclose(got, bits_per_dim(exact_nats(data, sde, x), 48), atol=1e-4)
    # The data's own density differs from the model's where the prior is not the marginal at t_max (its mean
    # is alpha(1) = 0.007 of the data's) and, for VE, by the noise sigma_min left at t = 0.
    own = bits_per_dim(data.log_prob(sde, x, sde.t_min), 48)
    assert float(np.mean(got)) == pytest.approx(float(np.mean(own)), abs=1e-3)


def exact_nats(data, sde, x):
    """The model's log density in closed form: the flow of a Gaussian only shifts and scales."""
    moments = [
        np.sqrt((float(sde.alpha(jnp.asarray(t))) * data.std) ** 2 + float(sde.sigma(jnp.asarray(t))) ** 2)
        for t in (sde.t_min, sde.t_max)
    ]
    latent = data.flow(sde, x, sde.t_min, sde.t_max)
    return sde.prior_log_prob(latent) + np.sum(np.log(moments[1] / moments[0]))


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("vp", 0),
        ("vp", 64),
        *(pytest.param(name, 64, marks=pytest.mark.slow) for name in SDES if name != "vp"),
    ],
)
def test_log_density_of_a_mixture(name, nodes):
    sde = SDES[name]
    x = jax.random.uniform(jax.random.key(1), (32, 2), minval=-1, maxval=1)
    out = measure(BLOBS, sde, x, Exact(), nodes=nodes)
    # The rest is the prior's mismatch at t_max, of order alpha(t_max) |x0| |z|.
    mismatch = float(sde.alpha(jnp.float32(sde.t_max)) / sde.sigma(jnp.float32(sde.t_max)))
    want = BLOBS.log_prob(sde, x, sde.t_min)
    np.testing.assert_allclose(out.nats, want, atol=2e-3 + 3 * mismatch, rtol=1e-3)
    assert np.all(np.asarray(out.quadrature_error) <= (2e-3 if nodes else 0))


@pytest.mark.parametrize(("kind", "nodes"), [*((kind, 64) for kind in PROBES), ("rademacher", 0)])
def test_hutchinson_is_unbiased_and_its_probes_are_independent(kind, nodes):
    sde, x = VP(), jnp.tile(jnp.array([[0.2, 0.3]]), (512, 1))
    exact = float(measure(BLOBS, sde, x[:1], Exact(), nodes=nodes).nats[0])
    loose = Adaptive(rtol=1e-4, atol=1e-4)
    nats = measure(BLOBS, sde, x, Hutchinson(probes=8, kind=kind), integrator=loose, nodes=nodes).by_probe
    spread = float(np.std(nats))
    assert nats.shape == (512, 8)
    assert abs(float(np.mean(nats)) - exact) < 3 * spread / math.sqrt(512 * 8) + 2e-3
    assert np.std(np.asarray(nats).mean(1)) == pytest.approx(spread / math.sqrt(8), rel=0.15)


def test_probes_share_one_evaluation_of_the_network():
    weight = jax.random.normal(jax.random.key(0), (256, 256))
    x = jnp.ones((4, 256))

    def operations(probes):
        divergence = Hutchinson(probes=probes)
        directions = divergence.directions(keys(4), (256,))
        work = jax.jit(lambda x: divergence(lambda x: jnp.sin(x) @ weight, x, directions)).lower(x)
        return work.compile().cost_analysis()["flops"]

    once = 2 * 4 * 256 * 256
    assert operations(7) == pytest.approx(8 * once, rel=0.1)  # and not 14


@pytest.mark.parametrize(("name", "nodes"), [("vp", 0), ("subvp", 0), ("ve", 0), ("ve", 64)])
def test_equals_the_recorded_bits_and_latents_of_the_official_code(name, nodes, fixture):
    d, sde = fixture("likelihood_analytic"), SDES[name]
    data = Gaussian(d["mu"], d["s"])
    official = Adaptive(rtol=1e-5, atol=1e-5, method="dopri5", error_control="batch")
    out = measure(data, sde, jnp.asarray(d["x"]), Hutchinson(), t_min=1e-5, integrator=official, nodes=nodes)
    # The official code adds 8 for data on [0, 1] and 7 for data on [-1, 1]: one level is 1/256 or 2/256 wide.
    for tag, width in (("id", 1 / 256), ("centered", 2 / 256)):
        ours = bits_per_dim(out.nats, 192, math.log(width))
        np.testing.assert_allclose(ours, d[f"{name}|Rademacher|{tag}|bpd"], atol=1e-4)
        np.testing.assert_allclose(ours, d[f"{name}|exact|{tag}|bpd"], atol=1e-4)
    scale = sde.prior_sigma
    np.testing.assert_allclose(out.latent / scale, d[f"{name}|Rademacher|z"] / scale, atol=5e-4)
    np.testing.assert_allclose(out.latent / scale, d[f"{name}|exact|z"] / scale, atol=5e-4)
    extra = nodes + 1 if nodes else 0
    assert np.all(np.abs(out.evaluations - extra - d[f"{name}|Rademacher|nfe"]) <= 12)


@pytest.mark.parametrize("nodes", [0, 8])
def test_evaluations_are_counted_exactly(nodes):
    sde, calls = VP(), []
    data = Gaussian(np.zeros(2), np.ones(2) * 0.5)

    def denoise(x, t):
        jax.debug.callback(lambda _: calls.append(1), t[0])
        return data.denoise(sde)(x, t)

    x = jnp.array([[0.3, -0.2]])
    out = jax.jit(lambda x: log_prob(keys(1), denoise, sde, x, divergence=Hutchinson(), nodes=nodes))(x)
    jax.effects_barrier()
    assert len(calls) == int(out.evaluations[0])


@pytest.mark.parametrize(
    ("method", "of_a_step"), [("dopri5", 5), pytest.param("dopri8", 9, marks=pytest.mark.slow), ("tsit5", 6)]
)
def test_the_divergence_is_left_out_where_it_has_no_weight(method, of_a_step):
    calls = []

    class Counted(Hutchinson):
        def __call__(self, function, x, directions):
            jax.debug.callback(lambda: calls.append(1))
            return super().__call__(function, x, directions)

    x = jnp.array([[0.3, -0.2]])
    found = measure(BLOBS, SDES["vp"], x, Counted(), integrator=Adaptive(method=method))
    jax.effects_barrier()
    steps = (int(found.evaluations[0]) - 2) // METHODS[method].evaluations
    assert len(calls) == 2 + of_a_step * steps
    want = measure(BLOBS, SDES["vp"], x, Hutchinson(), integrator=Adaptive(rtol=1e-6, atol=1e-6))
    np.testing.assert_allclose(found.nats, want.nats, atol=2e-3)


def test_an_example_does_not_depend_on_its_batch_unless_it_shares_steps():
    sde, x = VP(), jax.random.uniform(jax.random.key(1), (8, 2), minval=-1, maxval=1)
    for nodes in (0, 8):
        loose = Adaptive(rtol=1e-4, atol=1e-4)
        run = jax.jit(
            lambda x, nodes=nodes, loose=loose: log_prob(
                keys(8), BLOBS.denoise(sde), sde, x, divergence=Exact(), integrator=loose, nodes=nodes
            )
        )
        each = [run(part) for part in (x, x.at[3:].multiply(-0.5))]  # one program: other neighbours
        np.testing.assert_allclose(each[1].nats[:3], each[0].nats[:3], atol=2e-5)
        assert np.all(each[1].nats[3:] != each[0].nats[3:])
        assert len(set(np.asarray(each[0].evaluations).tolist())) > 1  # step sizes are per example
    together = Adaptive(rtol=1e-4, atol=1e-4, error_control="batch")
    shared = measure(BLOBS, sde, x, Exact(), integrator=together, nodes=8)
    assert len(set(np.asarray(shared.evaluations).tolist())) == 1


@pytest.mark.parametrize(
    ("method", "order", "evaluations"),
    [
        ("euler", 1, 32),
        ("heun", 2, 64),
        ("midpoint", 2, 64),
        ("rk4", 4, 128),
        ("adams", 4, 40),
    ],
)
def test_fixed_steps_have_the_order_of_their_method(method, order, evaluations, x64):
    sde = VP(t_min=1e-3)
    data = Gaussian(np.array([0.5, -0.3]), np.array([0.2, 0.6]))
    x = data.sample(jax.random.key(0), 4).astype(jnp.float64)
    want, errors = exact_nats(data, sde, x), []
    for steps in (32, 64):
        out = measure(data, sde, x, Exact(), integrator=Fixed(method=method, steps=steps))
        errors.append(np.abs(out.nats - want).max())
        more = evaluations if steps == 32 else 2 * evaluations - (8 if method == "adams" else 0)
        assert np.all(np.asarray(out.evaluations) == more)
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.45)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("method", ["rk4", "adams"])
def test_fixed_steps_follow_every_process(method, name):
    # With x as it is, growing with the noise, the errors of VE and EDM are hundreds of times as large.
    sde, data = SDES[name], Gaussian(np.array([0.5, -0.3]), np.array([0.2, 0.6]))
    x = data.sample(jax.random.key(0), 4)
    out = measure(data, sde, x, Exact(), integrator=Fixed(method=method, steps=128))
    np.testing.assert_allclose(out.nats, exact_nats(data, sde, x), atol=2e-4)


@pytest.mark.parametrize("method", ["rk4", "adams"])
def test_fixed_steps_between_nodes(method):
    sde = SubVP()
    x = jax.random.uniform(jax.random.key(1), (4, 2), minval=-1, maxval=1)
    fixed = measure(BLOBS, sde, x, Exact(), integrator=Fixed(method=method, steps=256), nodes=64)
    np.testing.assert_allclose(fixed.nats, measure(BLOBS, sde, x, Exact(), nodes=64).nats, atol=2e-3)


def test_the_quadrature_integrates_polynomials_exactly():
    points, weights, coarse = clenshaw_curtis(8)
    for power in range(9):
        assert weights @ points**power == pytest.approx(1 / (power + 1), abs=1e-14)
    assert coarse @ points**4 == pytest.approx(1 / 5, abs=1e-14)
    assert np.count_nonzero(coarse) == 5
    with pytest.raises(ValueError, match="nodes = 6: must be 0 or"):
        clenshaw_curtis(6)


def test_a_uniform_density_over_bytes_has_eight_bits():
    nats = jnp.full(5, 10 * math.log(1 / 2))  # ten dimensions, uniform on [-1, 1]
    np.testing.assert_allclose(bits_per_dim(nats, 10, math.log(2 / 256)), 8.0, rtol=1e-6)


@pytest.mark.parametrize("nodes", [0, 8])
def test_what_cannot_be_integrated_is_not_a_number(nodes):
    data, few = Gaussian(np.zeros(2), np.full(2, 0.5)), Adaptive(max_steps=2)  # unit normals stand still
    out = measure(data, VP(), jnp.ones((2, 2)), Exact(), integrator=few, nodes=nodes)
    assert np.all(np.isnan(out.nats))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Hutchinson(kind="uniform"), "rademacher, gaussian"),
        (lambda: Adaptive(method="rk4"), "method = 'rk4' is not one of: dopri5"),
        (lambda: Adaptive(error_control="sampel"), "did you mean 'sample'"),
        (lambda: Fixed(method="dopri5"), "euler, heun, midpoint, rk4, adams"),
        (lambda: Fixed(steps=0), "steps = 0"),
        (lambda: Adaptive(rtol=0.0), "rtol, atol > 0"),
    ],
)
def test_impossible_choices_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


class Uniform:
    """Independent uniform entries on [-1, 1]."""

    def __init__(self, size):
        self.size = size

    def sample(self, key, count):
        return jax.random.uniform(key, (count, self.size), minval=-1, maxval=1)

    def denoise(self, sde):
        """``x / alpha`` with the mean of the noise cut to where it can come from."""

        def at(x, t):
            t = jnp.broadcast_to(t, x.shape[:1])
            a, s = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
            low, high = (-1 - x / a) * a / s, (1 - x / a) * a / s
            flip = low > 0
            low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
            log_mass = jax.scipy.special.log_ndtr(high)
            log_mass += jnp.log(-jnp.expm1(jax.scipy.special.log_ndtr(low) - log_mass))
            density = [jnp.exp(-0.5 * e**2 - log_mass) / math.sqrt(2 * math.pi) for e in (low, high)]
            noise = jnp.where(flip, 1, -1) * (density[0] - density[1])
            return Estimate((x - s * noise) / a, noise)

        return at


def test_a_uniform_density_carried_along_the_ode_has_eight_bits():
    # In the middle of its range: at the edges the density at t_min is that of the blurred data.
    sde, data = VP(), Uniform(16)
    x = 0.99 * data.sample(jax.random.key(0), 16)
    out = measure(data, sde, x, Exact())
    got = bits_per_dim(out.nats, 16, math.log(2 / 256))
    np.testing.assert_allclose(got, 8.0, atol=1e-3)


class Rotated:
    """Two dimensions in every pair follow a rotated mixture; ``size`` in all."""

    def __init__(self, size, angle=0.6):
        c, s = math.cos(angle), math.sin(angle)
        self.turn = np.array([[c, -s], [s, c]], np.float32)
        self.axes = Gaussian(np.array([0.3, -0.2]), np.array([0.5, 0.05]))
        self.size = size

    def _pairs(self, x):
        return x.reshape(-1, 2) @ self.turn

    def sample(self, key, count):
        x = self.axes.sample(key, count * self.size // 2) @ self.turn.T
        return x.reshape(count, self.size)

    def denoise(self, sde):
        def at(x, t):
            t = jnp.repeat(jnp.broadcast_to(t, x.shape[:1]), self.size // 2)
            halves = self.axes.denoise(sde)(self._pairs(x), t)
            return Estimate(*((half @ self.turn.T).reshape(x.shape) for half in halves))

        return at

    def log_prob(self, sde, x, t):
        return self.axes.log_prob(sde, self._pairs(x), t).reshape(len(x), -1).sum(1)

    def exact_nats(self, sde, x):
        latent = self.axes.flow(sde, self._pairs(x), sde.t_min, sde.t_max) @ self.turn.T
        ends = [
            np.hypot(float(sde.alpha(jnp.float32(t))) * self.axes.std, float(sde.sigma(jnp.float32(t))))
            for t in (sde.t_min, sde.t_max)
        ]
        growth = self.size // 2 * np.sum(np.log(ends[1] / ends[0]))
        return sde.prior_log_prob(latent.reshape(x.shape)) + growth


@pytest.mark.parametrize("name", ["vp", pytest.param("edm", marks=pytest.mark.slow)])
def test_hutchinson_on_a_rotated_set_is_right_within_its_own_error(name):
    sde, data = SDES[name], Rotated(64)
    x = data.sample(jax.random.key(0), 4)
    nats = np.asarray(measure(data, sde, x, Hutchinson(probes=64)).by_probe)
    error = nats.std(axis=1, ddof=1) / math.sqrt(nats.shape[1])
    assert np.all(error > 0)
    miss = (nats.mean(1) - np.asarray(data.exact_nats(sde, x))) / error
    # 3 standard errors on average over the examples; 1e-3 bits/dim for the integration
    assert abs(miss.mean()) < 3 / math.sqrt(len(x)) + 64 * 1e-3 * math.log(2) / error.mean() * 0.1
    assert np.all(np.abs(miss) < 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("nodes", [0, 64])
@pytest.mark.parametrize("kind", ["gaussian", "mixture", "rotated"])
def test_closed_forms_in_3072_dimensions(kind, name, nodes):
    """Within 1e-3 bits/dim (exact), and within three of its standard errors (Hutchinson)."""
    sde, size = SDES[name], 3072
    random = np.random.default_rng(3)
    data = {
        "gaussian": Gaussian(random.uniform(-0.8, 0.8, size), 0.1 + 0.5 * random.random(size)),
        "mixture": Mixture(0.03 * random.standard_normal((3, size)), 0.25),
        "rotated": Rotated(size),
    }[kind]
    x = (
        jnp.asarray(data.means[0] + data.std * random.standard_normal((2, size)), jnp.float32)
        if kind == "mixture"
        else data.sample(jax.random.key(0), 2).astype(jnp.float32)
    )
    want = {
        "gaussian": lambda: exact_nats(data, sde, x),
        "mixture": lambda: data.log_prob(sde, x, sde.t_min),
        "rotated": lambda: data.exact_nats(sde, x),
    }[kind]()
    exact = measure(data, sde, x, Exact(chunk=512), nodes=nodes)
    assert np.abs(bits_per_dim(exact.nats - np.asarray(want), size)).max() < 1e-3
    nats = np.asarray(measure(data, sde, x, Hutchinson(probes=16, kind="gaussian"), nodes=nodes).by_probe)
    error = nats.std(axis=1, ddof=1) / math.sqrt(16)
    assert np.all(np.abs(nats.mean(1) - np.asarray(exact.nats)) < 3 * error + size * 1e-5)


def test_each_tolerance_is_what_its_name_says():
    # Values of a hundred: relative to them a thousandth is a tenth, and so much looser than absolutely.
    data = Gaussian(np.full(2, 100.0), np.full(2, 1.0))
    x = data.sample(jax.random.key(0), 4)
    relative, absolute = Adaptive(rtol=1e-3, atol=1e-7), Adaptive(rtol=1e-7, atol=1e-3)
    few, many = (measure(data, VE(), x, Exact(), integrator=each) for each in (relative, absolute))
    assert int(few.evaluations.max()) < int(many.evaluations.min())
