import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.likelihood import PROBES, Exact, Hutchinson, bits_per_dim, log_prob
from score_sde.sde import EDM, VE, VP, Flow, SubVP
from tests.oracles import Gaussian, Mixture

SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": EDM(), "flow": Flow()}


def keys(count):
    return jax.random.split(jax.random.key(7), count)


def measure(data, sde, x, divergence, **options):
    run = jax.jit(
        lambda x: log_prob(keys(len(x)), data.denoise(sde), sde, x, divergence=divergence, **options)
    )
    return run(x)


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
@pytest.mark.parametrize("kind", ["exact", "rademacher"])
def test_bits_per_dim_of_a_gaussian_are_right_to_one_thousandth(name, kind):
    # The Jacobian of a diagonal Gaussian is diagonal, so signs as probes are exact too.
    sde = SDES[name]
    std = 0.1 + 0.5 * np.random.default_rng(0).random((4, 4, 3))
    data = Gaussian(np.random.default_rng(1).uniform(-0.8, 0.8, (4, 4, 3)), std)
    divergence = Exact(chunk=16) if kind == "exact" else Hutchinson(kind=kind)
    x = data.sample(jax.random.key(0), 8)
    nats = measure(data, sde, x, divergence).nats
    got = bits_per_dim(nats, 48)
    np.testing.assert_allclose(got, bits_per_dim(exact_nats(data, sde, x), 48), atol=1e-4)
    # The data's own density differs from the model's where the prior is not the marginal at t_max (its mean
    # is alpha(1) = 0.007 of the data's) and, for VE, by the noise sigma_min left at t = 0.
    own = bits_per_dim(data.log_prob(sde, x, sde.t_min), 48)
    assert float(np.mean(got)) == pytest.approx(float(np.mean(own)), abs=1e-3)


def exact_nats(data, sde, x):
    """The model's log density in closed form: the flow of a Gaussian only shifts and scales."""
    moments = [
        np.sqrt((float(sde.alpha(jnp.float32(t))) * data.std) ** 2 + float(sde.sigma(jnp.float32(t))) ** 2)
        for t in (sde.t_min, sde.t_max)
    ]
    latent = data.flow(sde, x, sde.t_min, sde.t_max)
    return sde.prior_log_prob(latent) + np.sum(np.log(moments[1] / moments[0]))


@pytest.mark.parametrize("name", SDES)
def test_log_density_of_a_mixture(name):
    sde = SDES[name]
    data = Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25)
    x = jax.random.uniform(jax.random.key(1), (32, 2), minval=-1, maxval=1)
    out = measure(data, sde, x, Exact())
    # The rest is the prior's mismatch at t_max, of order alpha(t_max) |x0| |z|.
    mismatch = float(sde.alpha(jnp.float32(sde.t_max)) / sde.sigma(jnp.float32(sde.t_max)))
    want = data.log_prob(sde, x, sde.t_min)
    np.testing.assert_allclose(out.nats, want, atol=2e-3 + 3 * mismatch, rtol=1e-3)


@pytest.mark.parametrize("kind", PROBES)
def test_hutchinson_is_unbiased_and_narrows_with_probes(kind):
    sde, size = VP(), 2
    data = Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25)
    x = jnp.tile(jnp.array([[0.2, 0.3]]), (512, 1))
    exact = float(measure(data, sde, x[:1], Exact()).nats[0])
    spread = {}
    for probes in (1, 8):
        nats = np.asarray(measure(data, sde, x, Hutchinson(probes=probes, kind=kind), rtol=1e-4).nats)
        spread[probes] = nats.std()
        assert abs(nats.mean() - exact) < 3 * nats.std() / math.sqrt(512) + 2e-3
    assert spread[8] == pytest.approx(spread[1] / math.sqrt(8), rel=0.25)
    assert size == x.shape[1]


@pytest.mark.parametrize("name", ["vp", "subvp", "ve"])
def test_equals_the_recorded_bits_and_latents_of_the_official_code(name, fixture):
    d, sde = fixture("likelihood_analytic"), SDES[name]
    data = Gaussian(d["mu"], d["s"])
    out = measure(data, sde, jnp.asarray(d["x"]), Hutchinson(), t_min=1e-5)
    bits = bits_per_dim(out.nats, 192)
    # The official code adds 8 for data on [0, 1] and 7 for data on [-1, 1]: one level is 1/256 or 2/256 wide.
    for tag, width in (("id", 1 / 256), ("centered", 2 / 256)):
        ours = bits_per_dim(out.nats, 192, math.log(width))
        np.testing.assert_allclose(ours, d[f"{name}|Rademacher|{tag}|bpd"], atol=1e-4)
        np.testing.assert_allclose(ours, d[f"{name}|exact|{tag}|bpd"], atol=1e-4)
    scale = sde.prior_sigma
    np.testing.assert_allclose(out.latent / scale, d[f"{name}|exact|z"] / scale, atol=5e-4)
    assert np.all(np.abs(out.evaluations - d[f"{name}|Rademacher|nfe"]) <= 12)
    assert bits.shape == (4,)


def test_evaluations_are_counted_exactly():
    sde, calls = VP(), []
    data = Gaussian(np.zeros(2), np.ones(2) * 0.5)

    def denoise(x, t):
        jax.debug.callback(lambda _: calls.append(1), t[0])
        return data.denoise(sde)(x, t)

    x = jnp.array([[0.3, -0.2]])
    out = jax.jit(lambda x: log_prob(keys(1), denoise, sde, x, divergence=Hutchinson()))(x)
    jax.effects_barrier()
    assert abs(len(calls) - int(out.evaluations[0])) <= 1


def test_an_example_does_not_depend_on_its_batch():
    sde, data = VP(), Mixture(np.array([[0.7, 0.0], [-0.4, 0.6]]), 0.25)
    x = jax.random.uniform(jax.random.key(1), (8, 2), minval=-1, maxval=1)
    whole = measure(data, sde, x, Hutchinson())
    part = measure(data, sde, x[:3], Hutchinson())
    # keys(3) are not keys(8)[:3]; without probes the batch is the only difference
    exact = [measure(data, sde, part_x, Exact()).nats for part_x in (x, x[:3])]
    np.testing.assert_allclose(exact[1], exact[0][:3], atol=2e-5)
    assert len(set(np.asarray(whole.evaluations).tolist())) > 1  # step sizes are per example
    assert part.nats.shape == (3,)


def test_a_uniform_density_over_bytes_has_eight_bits():
    nats = jnp.full(5, 10 * math.log(1 / 2))  # ten dimensions, uniform on [-1, 1]
    np.testing.assert_allclose(bits_per_dim(nats, 10, math.log(2 / 256)), 8.0, rtol=1e-6)


def test_what_cannot_be_integrated_is_not_a_number():
    data = Gaussian(np.zeros(2), np.ones(2))
    out = measure(data, VP(), jnp.ones((2, 2)), Exact(), max_steps=2)
    assert np.all(np.isnan(out.nats))


def test_impossible_probes_are_named():
    with pytest.raises(ValueError, match="rademacher, gaussian"):
        Hutchinson(kind="uniform")
