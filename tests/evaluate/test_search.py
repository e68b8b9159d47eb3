"""The index, retrieval accuracy, network features and outlier scores against what they must be."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde import nets
from score_sde.denoiser import PREDICTIONS, TIME_INPUTS, Denoiser, Precondition
from score_sde.evaluate.cache import Cache
from score_sde.evaluate.index import Index, leave_one_out, precision
from score_sde.evaluate.noisy_features import choose_layer, layer_shapes, noisy_features, pooled
from score_sde.evaluate.outliers import FOREIGN, OUTLIER_SCORES, auroc, compressed_bits
from score_sde.evaluate.parts import compile_parts, map_examples
from score_sde.runtime.mesh import make_mesh
from score_sde.sde import VP

# --- index -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_planted_neighbours_are_found_across_blocks(metric, monkeypatch):
    monkeypatch.setattr("score_sde.evaluate.index._BLOCK", 64)
    monkeypatch.setattr("score_sde.evaluate.index._QUERIES", 8)
    rng = np.random.default_rng(0)
    far = rng.standard_normal((300, 10))
    queries = rng.standard_normal((21, 10))
    planted = np.concatenate([queries + s * rng.standard_normal((21, 10)) for s in (0.0, 1e-3, 3e-2)])
    order = rng.permutation(363)
    vectors = np.concatenate([far, planted])[order]
    where = np.argsort(order)[300:].reshape(3, 21).T
    found = Index(vectors, metric).search(queries, 3)
    np.testing.assert_array_equal(found.number, where)
    np.testing.assert_array_equal(found.distance[:, 0], 0.0)
    assert np.all(np.diff(found.distance, axis=1) > 0)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_index_is_exact(metric):
    rng = np.random.default_rng(1)
    vectors, queries = rng.standard_normal((200, 6)), rng.standard_normal((9, 6))
    v, q = vectors - vectors.mean(axis=0), queries - vectors.mean(axis=0)
    if metric == "cosine":
        norms = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(v, axis=1)[None]
        want = 1 - q @ v.T / norms
    else:
        want = np.sqrt(np.mean((q[:, None] - v[None]) ** 2, axis=2))
    found = Index(vectors, metric).search(queries, 200)
    np.testing.assert_array_equal(found.number, np.argsort(want, axis=1))
    np.testing.assert_allclose(found.distance, np.sort(want, axis=1), atol=1e-12)


def test_of_equal_vectors_the_lower_number_comes_first_and_one_s_own_can_be_left_out():
    vectors = np.array([[0.0, 1.0], [2.0, 0.0], [2.0, 0.0], [5.0, 5.0]])
    index = Index(vectors, "euclidean")
    np.testing.assert_array_equal(index.search(vectors[2:3], 2).number, [[1, 2]])
    found = index.search(vectors, 3, own=np.arange(4))
    assert not np.any(found.number == np.arange(4)[:, None])
    with pytest.raises(ValueError, match="from 1 to 3"):
        index.search(vectors, 4, own=np.arange(4))
    with pytest.raises(ValueError, match="cosine, euclidean"):
        Index(vectors, "manhattan")


def test_large_offsets_do_not_confuse_near_vectors():
    rng = np.random.default_rng(0)
    vectors = 1e4 + rng.standard_normal((100, 3))
    found = Index(vectors, "euclidean").search(vectors, 1)
    np.testing.assert_array_equal(found.number[:, 0], np.arange(100))


def test_precision_by_hand_and_leave_one_out():
    got = precision(np.array([0, 1]), np.array([[0, 0, 1], [0, 1, 0]]), 3)
    assert got.value == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert got.error == pytest.approx(np.std([2 / 3, 1 / 3], ddof=1) / np.sqrt(2))
    # two tight clusters on a line, one of them with a stray label; unlabelled examples do not count
    vectors = np.array([[0.0], [0.01], [0.02], [5.0], [5.01], [5.03], [0.011]])
    labels = np.array([0, 0, 0, 1, 1, 0, -1])
    scores = leave_one_out(vectors, labels, (1, 2), "euclidean")
    assert scores[1].value == pytest.approx(5 / 6)
    assert scores[2].value == pytest.approx((3 * 1.0 + 2 * 0.5 + 0.0) / 6)
    with pytest.raises(ValueError, match="more than 6"):
        leave_one_out(vectors, labels, (6,), "euclidean")


# --- features of the network -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def denoiser():
    net = nets.Net(nets.NCSNpp(nf=4, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: np.float32(rng.normal(0, 0.2, s.shape)), net.shapes((8, 8, 1)))
    return Denoiser(params, VP(), net, Precondition(PREDICTIONS["noise"](), TIME_INPUTS["time_999"]()))


def test_features_name_the_layers(denoiser):
    shapes = layer_shapes(denoiser, (8, 8, 1))
    assert shapes["stem"] == (8, 8, 4)
    assert "time_dense_0" not in shapes
    assert next(iter(shapes)) == "stem"
    assert list(shapes)[-1] == "out_conv"
    assert choose_layer(shapes) == "up_1_attention"  # the last of 4 x 4
    assert choose_layer(shapes, "mid_block_0") == "mid_block_0"
    with pytest.raises(ValueError, match="stem"):
        choose_layer(shapes, "nothing")


@pytest.mark.slow
def test_the_last_features_are_the_output(denoiser):
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    maps, output = jax.jit(lambda x: (denoiser.features(x, 0.3), denoiser.net(denoiser.params, x, 299.7)))(x)
    np.testing.assert_allclose(maps["out_conv"], output, atol=1e-6)
    assert float(jnp.abs(output).max()) > 0
    assert {name: value.shape[1:] for name, value in maps.items()} == layer_shapes(denoiser, (8, 8, 1))


@pytest.mark.slow
def test_features_depend_on_the_example_alone_and_draws_average(denoiser):
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))

    @functools.partial(jax.jit, static_argnums=(1, 2))
    def features(x, name, draws):
        return noisy_features(denoiser, x, 1.0, name, draws=draws)

    @jax.jit
    def stem(x):
        return denoiser.features(x, t)["stem"]

    others = x.at[0].set(2.0).at[2].set(-x[0])
    for name in ("stem", "mid_block_0"):
        whole, part = features(x, name, 3), features(others, name, 3)
        np.testing.assert_allclose(part[1], whole[1], atol=1e-5)
        assert float(jnp.abs(part[0] - whole[0]).max()) > 0.01
    # the stem is affine in its input, so its average over noise is its value at the average input
    t = VP().time_of(jnp.float32(1.0))
    np.testing.assert_allclose(VP().log_snr(t), 1.0, atol=1e-3)
    keys = jax.random.split(jax.random.key(0), 3)
    noise = jnp.mean(jax.vmap(lambda k: jax.random.normal(k, (1, 8, 8, 1)))(keys), axis=0)
    mean = stem(VP().alpha(t) * x + VP().sigma(t) * noise)
    np.testing.assert_allclose(features(x, "stem", 3), mean, atol=1e-5)
    np.testing.assert_allclose(features(x, "stem", 0), stem(VP().alpha(t) * x), atol=1e-6)


@pytest.mark.slow
def test_pooling_takes_means_over_parts():
    x = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 4, 3)
    np.testing.assert_allclose(pooled(x, 1), np.mean(x, axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(pooled(x, 8), np.reshape(x, (2, -1)), rtol=1e-6)
    want = np.asarray(x).reshape(2, 2, 2, 2, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(pooled(x, 2), want.reshape(2, -1), rtol=1e-6)
    assert pooled(jnp.ones((1, 5, 3)), 2).shape == (1, 6)
    np.testing.assert_allclose(pooled(jnp.arange(5.0).reshape(1, 5, 1), 2), [[1.0, 3.0]], rtol=1e-6)


# --- all examples ----------------------------------------------------------------------------------


class Numbers:
    """Example i is the vector (i, i)."""

    def __init__(self, count):
        self.count, self.reads = count, 0

    def __len__(self):
        return self.count

    def read(self, indices):
        self.reads += 1
        x = np.stack([indices, indices], axis=1).astype(np.float32)
        return {"x": x, "label": indices.astype(np.int32)}


def double(factor, x, cond):
    return {"y": factor * x, "label": cond["label"] + 1}


def test_every_example_is_mapped_once_on_any_number_of_devices():
    for devices in (1, 3, 8):
        mesh = make_mesh(devices=jax.devices()[:devices])
        got = map_examples(compile_parts(double, mesh), 2.0, Numbers(21), mesh, batch_size=8)
        np.testing.assert_array_equal(got["y"], 2.0 * np.stack([np.arange(21)] * 2, axis=1))
        np.testing.assert_array_equal(got["label"], np.arange(21) + 1)


def test_a_killed_map_goes_on_and_notices_other_examples(tmp_path):
    mesh = make_mesh(devices=jax.devices()[:1])
    calls = []
    compiled = compile_parts(double, mesh)

    def counted(params, x, cond):
        calls.append(int(cond["label"][0]))
        return compiled(params, x, cond)

    def run(examples):
        calls.clear()
        return map_examples(counted, 2.0, examples, mesh, batch_size=8, cache=Cache(tmp_path))

    whole = run(Numbers(20))
    assert calls == [0, 8, 16]
    (tmp_path / "00000008.npz").unlink()
    (tmp_path / "00000008.tmp.npz").write_bytes(b"half")
    np.testing.assert_array_equal(run(Numbers(20))["y"], whole["y"])
    assert calls == [8]
    changed = Numbers(20)
    changed.read = lambda i: {"x": np.ones((len(i), 2), np.float32), "label": i.astype(np.int32)}
    assert np.all(run(changed)["y"] == 2.0)
    assert calls == [0, 8, 16]


def test_what_is_not_finite_is_named():
    mesh = make_mesh(devices=jax.devices()[:1])
    compiled = compile_parts(lambda p, x, cond: {"y": 1.0 / (x - 13.0)}, mesh)
    with pytest.raises(FloatingPointError, match="y of example 13 is not finite"):
        map_examples(compiled, 0.0, Numbers(20), mesh, batch_size=8)


# --- outliers --------------------------------------------------------------------------------------


def test_auroc_of_two_normals_is_the_closed_form_and_ties_count_half():
    from math import erf

    rng = np.random.default_rng(0)
    inside, outside = rng.standard_normal(20_000), 1.0 + rng.standard_normal(20_000)
    score = auroc(inside, outside)
    want = 0.5 * (1 + erf(1.0 / 2.0))  # Phi(1 / sqrt 2)
    assert score.value == pytest.approx(want, abs=4 * score.error)
    assert 0.001 < score.error < 0.005
    assert auroc(np.zeros(5), np.zeros(3)).value == 0.5
    assert auroc(np.array([0.0, 1.0]), np.array([1.0])).value == 0.75
    with pytest.raises(ValueError, match="both sides"):
        auroc(np.zeros(0), np.zeros(3))


def test_typicality_finds_the_mode_that_likelihood_takes_for_the_best_example():
    # Unit normals in 100 dimensions: the origin has the highest density of all and is nothing like a sample.
    rng = np.random.default_rng(0)

    def nats(x):
        return -0.5 * np.sum(x**2, axis=1) - 50 * np.log(2 * np.pi)

    train, held_out = rng.standard_normal((2000, 100)), rng.standard_normal((500, 100))
    modes = 0.1 * rng.standard_normal((500, 100))
    typical, bits = nats(train).mean(), np.zeros(500)
    areas = {
        name: auroc(score(nats(held_out), typical, bits), score(nats(modes), typical, bits)).value
        for name, score in OUTLIER_SCORES.items()
    }
    assert areas["likelihood"] < 0.01
    assert areas["typicality"] > 0.99
    assert typical == pytest.approx(-50 * (1 + np.log(2 * np.pi)), abs=0.7)  # minus the entropy


def test_complexity_is_what_the_model_needs_more_than_the_compressor():
    x = np.zeros((2, 8, 8, 1), np.uint8)
    x[1] = np.random.default_rng(0).integers(0, 256, (8, 8, 1))
    bits = compressed_bits(x)
    assert bits[0] < 200 < 8 * 64 <= bits[1]
    gradient = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None], (64, 64, 1))[None]
    assert compressed_bits(gradient)[0] < 8 * 64 * 64 / 20
    got = OUTLIER_SCORES["complexity"](np.array([-100 * np.log(2)]), 0.0, np.array([30.0]))
    np.testing.assert_allclose(got, 70.0)


def test_foreign_examples_are_what_they_are_called():
    x = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8)
    made = {name: make(x, 17, np.random.default_rng(1)) for name, make in FOREIGN.items()}
    for name, y in made.items():
        assert (y.shape, y.dtype) == (x.shape, x.dtype), name
        assert y.max() <= 16, name
        assert np.any(y != x), name
    assert np.all(made["constant"] == made["constant"][:, :1, :1])
    np.testing.assert_array_equal(made["rotated"][:, 0, 0], x[:, 0, -1])
    np.testing.assert_array_equal(16 - made["inverted"].astype(int), x)
    flat = [np.sort(a.reshape(5, -1), axis=1) for a in (made["shuffled"], x)]
    np.testing.assert_array_equal(*flat)
    with pytest.raises(ValueError, match="square"):
        FOREIGN["rotated"](x[:, :4], 17, np.random.default_rng(0))


def test_the_middle_of_a_cell_decodes_to_its_level():
    from score_sde.codecs import Pixels

    raw = np.arange(17, dtype=np.uint8)
    scaling = Pixels(grey_levels=17, dequantize=True)
    np.testing.assert_array_equal(scaling.decode({}, scaling.middle({}, raw)), raw)
    draws = np.stack([scaling.encode({}, raw, jax.random.key(i)) for i in range(200)])
    np.testing.assert_allclose(scaling.middle({}, raw), draws.mean(axis=0), atol=0.02)
    plain = dataclasses.replace(scaling, dequantize=False)
    np.testing.assert_array_equal(plain.middle({}, raw), plain.encode({}, raw))
