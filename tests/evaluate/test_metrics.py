"""The metrics against other people's implementations, closed forms, and each other."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest

from score_sde.evaluate import METRICS
from score_sde.evaluate.fid import Frechet, frechet_distance, symmetric_root, weighted
from score_sde.evaluate.inception_score import InceptionScore, inception_scores
from score_sde.evaluate.kid import ESTIMATORS, KernelDistance, squared_mmd, squared_mmd_score
from score_sde.evaluate.moments import Gaussian, Moments, moments_of
from score_sde.evaluate.prdc import PRDC, prdc_terms
from score_sde.evaluate.rows import fill
from score_sde.evaluate.scores import Reference, Sampled, bootstrap
from score_sde.names import ConfigError
from score_sde.runs.scores import check_count, scores_of


def normals(seed, *shape):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


@pytest.fixture(scope="module")
def features():
    return normals(300, 1500, 64).astype(np.float32), (1.2 * normals(301, 1500, 64) + 0.1).astype(np.float32)


def reference(y):
    return Reference(Moments.of(y).gaussian, len(y), y)


# --- recorded: pytorch-fid and torch-fidelity (tests/data/README.md) -------------------------------


@pytest.mark.parametrize("name", ["d8", "d64", "d64_rank16"])
def test_frechet_distance_is_that_of_pytorch_fid(fixture, name):
    recorded = fixture("metrics")
    a, b = (Gaussian(recorded[f"{name}|mu{i}"], recorded[f"{name}|sigma{i}"]) for i in (1, 2))
    assert frechet_distance(a, b) == pytest.approx(float(recorded[f"{name}|fid"]), rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(float(recorded[f"{name}|fid"]), rel=1e-6)
    assert abs(frechet_distance(a, a)) < 1e-10 * np.trace(a.covariance)


@pytest.mark.parametrize(("name", "count"), [("feat", 1500), ("feat_small", 40)])
def test_frechet_distance_of_features_is_that_of_pytorch_fid(fixture, features, name, count):
    x, y = (f[:count] for f in features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = Frechet(bootstrap=0)(Sampled(x), reference(y))["frechet"]
    assert score.value == pytest.approx(float(fixture("metrics")[name]), rel=1e-6)
    assert score.error is None


def test_kernel_distance_is_that_of_torch_fidelity(fixture, features):
    x, y = features
    recorded = fixture("metrics")
    score = KernelDistance(subsets=10, subset_size=200)(Sampled(x), reference(y))["kid"]
    assert score.value == pytest.approx(float(recorded["kid_mean"]), rel=1e-6)
    assert score.error == pytest.approx(float(recorded["kid_std"]), rel=1e-6)
    with pytest.warns(UserWarning, match=r"kid.subset_size = 1000: the sets have 50 and 50 examples"):
        assert KernelDistance()(Sampled(x[:50]), reference(y[:50]))["kid"].error is None
    for estimator in ESTIMATORS:
        value = squared_mmd(x[:400], y[:400], estimator)
        assert value == pytest.approx(float(recorded[f"mmd2_{estimator}"]), rel=1e-6)


def test_inception_score_is_that_of_torch_fidelity(fixture):
    logits, recorded = (2 * normals(302, 1000, 50)).astype(np.float32), fixture("metrics")
    for splits, seed in ((1, None), (10, None), (10, 2020)):
        parts = inception_scores(logits, splits, seed)
        want = recorded[f"is_splits{splits}_shuffle{int(seed is not None)}"]
        np.testing.assert_allclose([parts.mean(), parts.std()], want, rtol=1e-6, atol=1e-12)
    scores = InceptionScore(splits=10)(Sampled(logits, logits), reference(logits))
    assert scores["inception_score"].value == pytest.approx(recorded["is_splits1_shuffle0"][0], rel=1e-6)
    assert scores["inception_score_10"] == pytest.approx(recorded["is_splits10_shuffle0"], rel=1e-6)


def test_precision_and_recall_are_those_of_torch_fidelity(fixture, features):
    x, y = (f[:500] for f in features)  # the recording takes the narrow set as the generated one
    scores = PRDC(nearest=3)(Sampled(x), reference(y))
    want = fixture("metrics")["precision_recall_k3"]
    assert [scores["precision"].value, scores["recall"].value] == pytest.approx(want, abs=1e-6)


# --- closed forms ----------------------------------------------------------------------------------


def test_frechet_distance_of_commuting_gaussians():
    rotation = np.linalg.qr(normals(0, 5, 5))[0]
    s, r = np.array([3.0, 2.0, 1.0, 0.5, 0.0]), np.array([1.0, 2.0, 0.0, 0.1, 0.0])
    a = Gaussian(np.zeros(5), rotation @ np.diag(s**2) @ rotation.T)
    b = Gaussian(np.arange(5.0), rotation @ np.diag(r**2) @ rotation.T)
    assert frechet_distance(a, b) == pytest.approx(30 + np.sum((s - r) ** 2), rel=1e-12)


def test_symmetric_root_squares_to_its_argument():
    factor = normals(1, 20, 6)
    matrix = factor @ factor.T  # rank 6
    root = symmetric_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-12)
    assert np.linalg.matrix_rank(root) == 6


def test_inception_score_of_sure_and_unsure_classifiers():
    sure = 1e4 * np.eye(10)[np.arange(200) % 10]
    assert inception_scores(sure) == pytest.approx([10.0])
    assert inception_scores(sure[:1].repeat(20, axis=0)) == pytest.approx([1.0])
    assert inception_scores(np.zeros((20, 10)), 2) == pytest.approx([1.0, 1.0])


def test_precision_recall_density_coverage_by_hand():
    real, fake = np.array([[0.0], [1.0], [3.0]]), np.array([[0.5], [1.5], [9.0]])
    terms = prdc_terms(fake, real, 1)  # radii 1, 1, 2 of the reference, 1, 1, 7.5 of the generated
    np.testing.assert_array_equal(terms.precision, [1, 1, 0])
    np.testing.assert_array_equal(terms.density, [2, 2, 0])
    np.testing.assert_array_equal(terms.recall, [1, 1, 1])
    np.testing.assert_array_equal(terms.coverage, [1, 1, 1])
    np.testing.assert_array_equal(prdc_terms(real + 100, real, 1).coverage, [0, 0, 0])


def test_coverage_and_density_of_equal_laws():
    # Naeem et al. 2020, lemma 2: E coverage = 1 - (N-1)...(N-k) / (2N-1)...(2N-k), whatever the law.
    count, k, rounds = 40, 3, 300
    terms = [prdc_terms(normals(2 * i, count, 4), normals(2 * i + 1, count, 4), k) for i in range(rounds)]
    expected = 1 - math.prod((count - j) / (2 * count - j) for j in range(1, k + 1))
    coverage = np.array([t.coverage.mean() for t in terms])
    density = np.array([t.density.mean() for t in terms])
    assert abs(coverage.mean() - expected) < 4 * coverage.std() / math.sqrt(rounds)
    assert abs(density.mean() - 1) < 4 * density.std() / math.sqrt(rounds)


@pytest.mark.slow
def test_kernel_distance_of_few_samples_has_the_error_of_fresh_samples():
    y = normals(0, 2000, 4)
    scores = [squared_mmd_score(normals(s, 40, 4) * 0.5 + 0.3, y) for s in range(1, 61)]
    values = [score.value for score in scores]
    assert values[0] == squared_mmd(normals(1, 40, 4) * 0.5 + 0.3, y)
    assert np.mean([score.error for score in scores]) == pytest.approx(
        np.std(values), rel=0.3
    )  # 60 draws: 9 %
    one = normals(7, 5, 4)  # leaving out one by one, by hand
    without = [squared_mmd(np.delete(one, i, axis=0), y) for i in range(5)]
    assert squared_mmd_score(one, y).error == pytest.approx(np.std(without) * 2, rel=1e-9)  # sqrt(n - 1)
    assert squared_mmd_score(one[:2], y).error is None


# --- laws ------------------------------------------------------------------------------------------


def test_identical_sets_are_at_distance_zero(features):
    x = features[0][:300]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(Frechet(bootstrap=0)(Sampled(x), reference(x))["frechet"].value) < 1e-10
    assert squared_mmd(x, x, "biased") == pytest.approx(0, abs=1e-12)
    assert [s.value for s in list(PRDC()(Sampled(x), reference(x)).values())[:2]] == [1.0, 1.0]
    assert PRDC()(Sampled(x), reference(x))["coverage"].value == 1.0


def test_streamed_moments_are_those_of_all_at_once(features):
    x = 1e3 + features[0].astype(np.float64)  # far from zero: sums of squares would lose digits
    cut = [x[:1], x[1:700], x[700:701], x[701:]]
    streamed, whole = moments_of(cut), Moments.of(x)
    assert streamed.count == 1500
    np.testing.assert_allclose(streamed.mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(streamed.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(whole.covariance, np.cov(x, rowvar=False), rtol=1e-10, atol=1e-12)
    pair = Moments.of(x[:700]), Moments.of(x[700:])
    np.testing.assert_allclose(pair[0].merge(pair[1]).scatter, pair[1].merge(pair[0]).scatter, rtol=1e-10)
    doubled = Moments.of(np.concatenate([x[:50], x[:10]]))
    weighted = Moments.of(x[:50], np.where(np.arange(50) < 10, 2.0, 1.0))
    np.testing.assert_allclose(weighted.covariance, doubled.covariance, rtol=1e-10, atol=1e-12)


def test_sets_larger_than_memory_give_the_same_scores_from_a_file(tmp_path):
    count, dim = 120_000, 64
    rng = np.random.Generator(np.random.PCG64(0))

    def parts():
        for start in range(0, count, 1000):
            rng = np.random.Generator(np.random.PCG64(start))
            x = rng.standard_normal((1000, dim), np.float32)
            yield Sampled(x, 2 * x)

    y = reference((1.1 * rng.standard_normal((2000, dim))).astype(np.float32))
    small = KernelDistance(subsets=2, subset_size=200)
    metrics = Frechet(bootstrap=2), InceptionScore(bootstrap=2), small
    whole = fill(parts(), count, tmp_path)
    assert not isinstance(whole.features, np.memmap)
    expected = [metric(whole, y) for metric in metrics]
    del whole
    tracemalloc.start()
    stored = fill(parts(), count, tmp_path, most_bytes=10**6)
    assert [metric(stored, y) for metric in metrics] == expected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * 8 * count * dim  # of the features alone, in float64
    assert isinstance(stored.features, np.memmap)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
    np.testing.assert_array_equal(stored.features[5000:6000], list(parts())[5].features)
    for wrong in (count - 1, count + 1):
        with pytest.raises(ValueError, match=f"not of {wrong}"):
            fill(parts(), wrong, tmp_path)


def test_bootstrap_of_a_mean_is_its_standard_error():
    x = normals(3, 400)
    error = bootstrap(lambda w: float(w @ x / 400), 400, 2000, seed=0)
    assert error == pytest.approx(x.std() / 20, rel=0.06)  # 2000 rounds: 1.6 %
    assert bootstrap(lambda w: 0.0, 400, 0, seed=0) is None


def test_bootstrap_of_the_frechet_distance_matches_fresh_samples(features):
    y = reference(features[1][:, :4])
    score = Frechet(bootstrap=100)(Sampled(normals(4, 400, 4) * 0.7), y)["frechet"]
    fresh = [Frechet(bootstrap=0)(Sampled(normals(s, 400, 4) * 0.7), y)["frechet"].value for s in range(60)]
    assert score.error == pytest.approx(np.std(fresh), rel=0.35)  # 100 and 60 draws: 7 % and 9 %


# --- mistakes --------------------------------------------------------------------------------------


def test_few_examples_and_constant_features_warn(features):
    x, y = features
    with pytest.warns(UserWarning, match=r"generated examples are 40 examples for 64 feature dimensions"):
        Frechet(bootstrap=0)(Sampled(x[:40]), reference(y))
    flat = np.concatenate([x[:, :8], np.ones((1500, 2), np.float32)], axis=1)
    with pytest.warns(UserWarning, match=r"reference examples has rank 8 in 10 dimensions"):
        Frechet(bootstrap=0)(Sampled(normals(0, 500, 10)), reference(flat))


def test_mistakes_are_named(features):
    x, y = features[0], reference(features[1])
    moments_only = Reference(y.gaussian)
    with pytest.raises(ValueError, match="only a mean and a covariance"):
        KernelDistance()(Sampled(x), moments_only)
    with pytest.raises(ValueError, match="'prdc' compares examples"):
        PRDC()(Sampled(x), moments_only)
    with pytest.raises(ValueError, match=r"nearest = 5: must be at least 1 and below .* 5"):
        PRDC()(Sampled(x[:5]), y)
    with pytest.raises(ValueError, match="at least 2 examples, there is 1"):
        Frechet()(Sampled(x[:1]), y)
    with pytest.raises(ValueError, match="of 63 and of 64 dimensions"):
        Frechet()(Sampled(x[:, :63]), y)
    with pytest.raises(ValueError, match="example 3 are not finite"):
        Moments.of(np.where(np.arange(5)[:, None] == 3, np.nan, x[:5]))
    with pytest.raises(ValueError, match="needs class scores"):
        InceptionScore()(Sampled(x), y)
    with pytest.raises(ValueError, match="splits = 10: must be from 1"):
        InceptionScore()(Sampled(x[:5], x[:5]), y)
    with pytest.raises(ValueError, match="there are no features"):
        moments_of([])
    with pytest.raises(ValueError, match="u_statistic"):
        squared_mmd(x[:5], x[:6], "u_statistic")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("rank", [3, 40])
def test_a_set_has_the_distance_zero_from_itself_and_never_a_negative_one(scale, rank):
    rng = np.random.default_rng(0)
    x = scale * (rng.normal(size=(60, rank)) @ rng.normal(size=(rank, 40)) + 3.0)
    same = weighted(x, np.ones(60))
    assert frechet_distance(same, same) == 0.0
    shifted = weighted(x + 1e-3 * scale, np.ones(60))
    assert frechet_distance(same, shifted) == pytest.approx(40 * (1e-3 * scale) ** 2, rel=1e-3)


def test_a_metric_without_enough_examples_is_left_out_and_the_others_are_given(capsys):
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    reference = Reference(weighted(x, np.ones(5)), 5, x)
    metrics = [METRICS["frechet"](), METRICS["kid"](), METRICS["prdc"](nearest=5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores, said = scores_of(metrics, Sampled(x), reference, "pixels")
    assert set(scores) == {"pixels_frechet", "pixels_kid"}
    assert "PRDC is left out: it needs sets of 6 examples, one has 5" in said
    more, _ = scores_of([METRICS["prdc"](nearest=4)], Sampled(x), reference, "pixels")
    assert more["pixels_precision"].value == 1.0
    check_count(metrics, 2, "--num_samples=2")
    with pytest.raises(ConfigError, match="--num_samples=5: 5 examples, .* need at least 6"):
        check_count(metrics[2:], 5, "--num_samples=5")
