import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.codecs import Cells
from score_sde.likelihood.bounds import (
    BinDecoder,
    LevelDecoder,
    continuous_bound,
    discrete_bound,
    gaussian_decoder,
    no_decoder,
)
from score_sde.sde import DDPM, EDM, VE, VP, Flow, SubVP
from tests.oracles import Gaussian, Mixture, denoise_by

SDES = {"vp": VP(), "subvp": SubVP(), "ve": VE(), "edm": EDM(), "flow": Flow()}
DATA = Gaussian(np.array([0.5, -0.3, 0.0]), np.array([0.2, 0.6, 1.0]))
COPIES = 4096


def keys(count, seed=7):
    return jax.random.split(jax.random.key(seed), count)


def at(sde, t):
    """alpha, sigma and the marginal's variance, float64."""
    with jax.enable_x64(True):
        a, s = float(sde.alpha(jnp.float64(t))), float(sde.sigma(jnp.float64(t)))
    return a, s, (a * DATA.std) ** 2 + s**2


def expected(sde, x0, t):
    """``E[-log p_t(x_t) | x0]``, nats, per example."""
    a, s, variance = at(sde, t)
    return 0.5 * np.sum((a**2 * (x0 - DATA.mean) ** 2 + s**2) / variance + np.log(2 * np.pi * variance), -1)


def closed_form(sde, x0, decoder):
    """The bound of the exact score: what it bounds at t_min, the prior's mismatch, and the decoding."""
    a, s, _ = at(sde, sde.t_max)
    scale = sde.prior_sigma
    prior = 0.5 * np.sum((a**2 * x0**2 + s**2) / scale**2 + np.log(2 * np.pi * scale**2), -1)
    bound = expected(sde, x0, sde.t_min) + prior - expected(sde, x0, sde.t_max)
    if decoder is no_decoder:
        return bound
    a, s, variance = at(sde, sde.t_min)
    gain = a * DATA.std**2 / variance
    miss = np.sum((x0 - DATA.mean) ** 2 * (1 - gain * a) ** 2 + (gain * s) ** 2, -1)
    size = x0.shape[-1]
    entropy = size * (math.log(s) + 0.5 * math.log(2 * math.pi * math.e))
    return (
        bound - entropy + 0.5 * miss * (a / s) ** 2 + size * (math.log(s / a) + 0.5 * math.log(2 * math.pi))
    )


@pytest.mark.parametrize("decoder", [no_decoder, gaussian_decoder])
@pytest.mark.parametrize("name", SDES)
def test_the_bound_of_the_exact_score_is_its_closed_form(name, decoder):
    sde, x0 = SDES[name], jnp.array([[0.4, 0.2, -1.1], [0.9, -0.3, 0.1]])
    x = jnp.repeat(x0, COPIES, axis=0)
    run = jax.jit(
        lambda x: continuous_bound(keys(len(x)), DATA.denoise(sde), sde, x, decoder=decoder, draws=256)
    )
    nats = np.asarray(run(x).nats, np.float64).reshape(2, COPIES)
    error = nats.std(axis=1) / math.sqrt(COPIES)
    want = -closed_form(sde, np.asarray(x0, np.float64), decoder)
    np.testing.assert_array_less(np.abs(nats.mean(1) - want), 4 * error + 2e-3)
    assert np.all(error < 0.05)
    if decoder is gaussian_decoder:  # a bound on the data's own density, which starts at t = 0
        a = DATA.std**2
        own = -0.5 * np.sum((np.asarray(x0) - DATA.mean) ** 2 / a + np.log(2 * np.pi * a), -1)
        assert np.all(want.mean() <= own.mean() + 1e-6)


def test_a_wrong_score_loosens_the_bound_by_its_weighted_error():
    # An error of c in the noise, everywhere, costs c^2 / 2 a dimension for each unit of log-SNR: on average
    # over the data, for only there the error of the exact score is orthogonal to every function of x_t.
    sde, shift = VP(), 0.1
    x = DATA.sample(jax.random.key(1), COPIES)

    def wrong(x, t):
        t = jnp.broadcast_to(t, x.shape[:1])
        return DATA.denoise(sde)(x, t).shifted(sde, t, shift * (sde.sigma(t) / sde.alpha(t))[:, None])

    bounds = [
        jax.jit(lambda x, d=d: continuous_bound(keys(len(x)), d, sde, x, decoder=no_decoder))(x).nats
        for d in (DATA.denoise(sde), wrong)
    ]
    ends = [float(sde.log_snr(jnp.float32(t))) for t in (sde.t_min, sde.t_max)]
    gap = np.asarray(bounds[0] - bounds[1])  # the same draws
    cost = 0.5 * 3 * shift**2 * (ends[0] - ends[1])
    assert abs(gap.mean() - cost) < 4 * gap.std() / math.sqrt(COPIES)
    assert gap.std() / math.sqrt(COPIES) < 0.1 * cost


def chain_costs(process, x0, large):
    """DDPM's terms from its betas (arXiv:2006.11239, eq. 5 to 8), for the exact denoiser: ``(T - 1,)``."""
    beta = process.betas
    kept = np.cumprod(1 - beta)
    costs = []
    for i in range(1, len(beta)):
        a, before = kept[i], kept[i - 1]
        posterior = (1 - before) / (1 - a) * beta[i]
        model = beta[i] if large else posterior
        variance = a * DATA.std**2 + 1 - a
        gain = np.sqrt(a) * DATA.std**2 / variance
        square = np.sum((x0 - DATA.mean) ** 2 * (1 - gain * np.sqrt(a)) ** 2 + gain**2 * (1 - a))
        shift = (np.sqrt(before) * beta[i] / (1 - a)) ** 2 * square
        costs.append(
            0.5 * x0.size * (np.log(model / posterior) + posterior / model - 1) + 0.5 * shift / model
        )
    return np.array(costs)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("draws", [None, 8])
def test_the_discrete_bound_is_the_sum_of_ddpm_terms(variance, draws):
    process = DDPM(steps=40, beta_max=15.0)
    x0 = np.array([0.4, 0.2, -1.1])
    x = jnp.tile(jnp.asarray(x0, jnp.float32), (COPIES, 1))
    times = np.arange(40) / 39
    bound = jax.jit(
        lambda x: discrete_bound(
            keys(len(x)),
            DATA.denoise(process),
            process,
            x,
            times=times,
            decoder=gaussian_decoder,
            variance=variance,
            draws=draws,
        )
    )(x)
    got = np.asarray(bound.diffusion, np.float64)
    want = chain_costs(process, x0, variance == "large").sum()
    assert abs(got.mean() - want) < 4 * got.std() / math.sqrt(COPIES) + 1e-3
    assert got.std() / math.sqrt(COPIES) < 0.05 * want
    assert np.all(np.asarray(bound.evaluations) == (40 if draws is None else 9))
    a, s = math.sqrt(np.prod(1 - process.betas)), math.sqrt(1 - np.prod(1 - process.betas))
    prior = 0.5 * np.sum(a**2 * x0**2 + s**2 - 1 - math.log(s**2))
    np.testing.assert_allclose(bound.prior, prior, rtol=1e-4)


def test_more_steps_bring_the_discrete_bound_to_the_continuous_one():
    sde, x0 = VP(), np.array([[0.4, 0.2, -1.1]])
    want = closed_form(sde, x0, no_decoder)[0]
    x, gaps = jnp.tile(jnp.asarray(x0, jnp.float32), (1024, 1)), []
    for steps in (16, 64):
        high, low = (float(sde.log_snr(jnp.float32(t))) for t in (sde.t_min, sde.t_max))
        times = np.array(sde.time_of(jnp.linspace(high, low, steps + 1)), np.float64)
        times[[0, -1]] = sde.t_min, sde.t_max
        run = jax.jit(
            lambda x, times=times: discrete_bound(
                keys(len(x)), DATA.denoise(sde), sde, x, times=times, decoder=no_decoder
            )
        )
        gaps.append(-float(np.mean(run(x).nats)) - want)
    assert gaps[0] > 0.05
    assert abs(gaps[1]) < 0.6 * gaps[0]


@pytest.mark.parametrize("make", [LevelDecoder, BinDecoder])
@pytest.mark.parametrize("count", [2, 17, 300])
@pytest.mark.parametrize("place", [0.3, -1.01, 1.02])
def test_a_decoder_of_levels_is_a_distribution_over_them(make, count, place):
    # The probabilities of all levels that one noisy value could come from sum to one, near both ends too.
    sde, t = VP(), jnp.float32(0.01)
    cells = Cells(-1.0, 2 / (count - 1), count)
    levels = jnp.asarray(cells.first + cells.step * np.arange(count), jnp.float32)[:, None]
    noise = (place - sde.alpha(t) * levels) / sde.sigma(t)
    denoise = denoise_by(sde, lambda x, t: x / sde.alpha(t))
    cost = make(cells)(denoise, sde, levels, noise, t)
    assert float(jnp.sum(jnp.exp(-cost))) == pytest.approx(1.0, abs=1e-4)
    assert np.all(np.isfinite(cost))


def test_bits_of_exactly_decodable_levels_cost_nothing():
    sde, t = VP(), jnp.float32(1e-5)  # sigma = 0.001, far below the distance of 17 levels
    cells = Cells(-1.0, 0.125, 17)
    x0 = jnp.asarray(cells.first + cells.step * np.arange(17), jnp.float32)[:, None]
    assert float(jnp.max(LevelDecoder(cells)(None, sde, x0, jnp.ones_like(x0), t))) < 1e-6


def test_impossible_chains_are_named():
    sde, x = VP(), jnp.zeros((1, 2))
    for options, match in (
        ({"times": np.array([0.1, 0.1])}, "rising"),
        ({"times": np.array([0.1, 0.5]), "draws": 2}, "1 <= draws <= 1"),
        ({"times": np.array([0.1, 0.5]), "variance": "smal"}, "did you mean 'small'"),
    ):
        with pytest.raises(ValueError, match=match):
            discrete_bound(keys(1), lambda x, t: x, sde, x, **options)


@pytest.mark.parametrize("count", [17, 256])
def test_equally_likely_levels_cost_the_log_of_their_number(count):
    # The exact denoiser of a finite set, and the decoder that is its exact posterior: nothing is lost.
    sde = VP()
    cells = Cells(-1.0, 2 / (count - 1), count)
    levels = cells.first + cells.step * np.arange(count)
    data = Mixture(levels[:, None], 0.0)
    x = jnp.tile(jnp.asarray(levels[:: count // 16], jnp.float32)[:, None], (512, 1))
    run = jax.jit(
        lambda x: continuous_bound(keys(len(x)), data.denoise(sde), sde, x, decoder=LevelDecoder(cells))
    )
    bits = -np.asarray(run(x).nats, np.float64) / math.log(2)
    error = bits.std() / math.sqrt(len(bits))
    assert abs(bits.mean() - math.log2(count)) < 4 * error + 1e-3
    assert error < 0.05
