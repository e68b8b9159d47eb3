"""Resizing, Inception, and the other extractors."""

import functools
import gzip
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.evaluate.extractors import ClassifierFeatures, InceptionFeatures, NetworkFeatures, Pixels
from score_sde.evaluate.fid import Frechet
from score_sde.evaluate.moments import Moments
from score_sde.evaluate.protocol import Protocol, check_comparable
from score_sde.evaluate.resize import bicubic, bilinear_matrix, pytorch_fid, tensorflow
from score_sde.evaluate.scores import Reference
from score_sde.nets import check_spec, digest, parameter_count
from score_sde.nets.classifier import Classifier
from score_sde.nets.inception import Inception, InceptionV3, from_torch_names
from score_sde.runtime.mesh import make_mesh
from tests.conftest import DATA
from tests.recipe import state_dict


@pytest.fixture(scope="module")
def tensors():
    with gzip.open(DATA / "inception_recipe.json.gz", "rt") as file:
        entry = json.load(file)["inception_tf2015"]
    return state_dict(entry["seed"], entry["table"])


@pytest.mark.parametrize(("name", "height", "width"), [("32px", 32, 32), ("64x48", 64, 48)])
def test_resizing_is_that_of_the_references(fixture, name, height, width):
    recorded = fixture("inception")
    x = jnp.asarray(recorded[f"{name}|img"], jnp.float32)
    assert x.shape[1:3] == (height, width)
    corner = recorded[f"{name}|resize_tensorflow_corner"]
    np.testing.assert_allclose(tensorflow(x)[:, :20, :20] * 128 + 128, corner, atol=1e-4)
    corner = recorded[f"{name}|resize_pytorch_fid_corner"]
    np.testing.assert_allclose((pytorch_fid(x)[:, :20, :20] + 1) / 2, corner, atol=1e-6)


def test_interpolation_by_hand():
    np.testing.assert_allclose(bilinear_matrix(2, 4, half_pixel=False) @ [0, 1], [0, 0.5, 1, 1])
    np.testing.assert_allclose(bilinear_matrix(2, 4, half_pixel=True) @ [0, 1], [0, 0.25, 0.75, 1])
    np.testing.assert_array_equal(bilinear_matrix(5, 5, half_pixel=True), np.eye(5))


def test_clean_resizing_is_antialiased_and_keeps_fractions():
    stripes = np.zeros((1, 598, 598, 1), np.uint8)
    stripes[:, :, ::2] = 255  # the finest stripes: their mean, not one of them, is what remains
    inner = bicubic(stripes)[0, 10:-10, 10:-10]
    np.testing.assert_allclose(inner, 127.5, atol=1)
    assert np.abs(np.asarray(tensorflow(jnp.asarray(stripes, jnp.float32)))).max() > 0.9
    ramp = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None], (30, 30, 3))[None]
    rows = bicubic(ramp)[0, :, 150, 0]
    expected = (np.arange(299) + 0.5) * 30 / 299 - 0.5
    np.testing.assert_allclose(rows[40:-40], expected[40:-40], atol=1e-3)


def test_inception_has_the_names_and_shapes_of_the_released_file(tensors):
    params = from_torch_names({**tensors, "Conv2d_1a_3x3.bn.num_batches_tracked": np.int64(0)})
    check_spec(params, Inception().shapes())
    assert parameter_count(params) == 23_885_392
    with pytest.raises(ValueError, match="'features.0.weight' is no tensor of the Inception"):
        from_torch_names({"features.0.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"1 parameters differ:\n  fc_bias: got nothing"):
        InceptionFeatures({k: v for k, v in tensors.items() if k != "fc.bias"})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["32px", "64x48"])
def test_inception_features_are_those_of_torch_fidelity_and_pytorch_fid(fixture, tensors, name):
    recorded = fixture("inception")
    images = recorded[f"{name}|img"]
    taps = Inception()(from_torch_names(tensors), tensorflow(jnp.asarray(images, jnp.float32)))
    for tap in ("pool_1", "pool_2", "mixed_6", "pool_3", "logits", "biased_logits"):
        np.testing.assert_allclose(getattr(taps, tap), recorded[f"{name}|{tap}"], atol=1e-4)
    for resize, want in (("tensorflow", "pool_3"), ("pytorch_fid", "pool_3_pytorch_fid")):
        sampled = InceptionFeatures(tensors, resize, batch_size=1)(images)
        np.testing.assert_allclose(sampled.features, recorded[f"{name}|{want}"], atol=1e-4)
    spatial = InceptionFeatures(tensors, "tensorflow", batch_size=1, spatial=True)
    np.testing.assert_allclose(spatial(images[:1]).features[0], taps.spatial[0], atol=1e-4)
    assert spatial.name == "inception_spatial"


_UNIT = ("conv.weight", "bn.running_mean", "bn.running_var", "bn.weight", "bn.bias")


def test_inception_on_the_smallest_recording(fixture, tensors):
    recorded = fixture("inception")
    x = tensorflow(jnp.asarray(recorded["32px|img"][:1], jnp.float32))
    first = functools.partial(
        InceptionV3().apply, capture_intermediates=lambda module, _: module.name in ("branch1x1", "Mixed_6c")
    )
    taps, inside = jax.jit(first)({"params": from_torch_names(tensors)}, x)  # in one piece, for speed
    (conv,) = inside["intermediates"]["Mixed_6d"]["branch1x1"]["__call__"]
    assert conv.shape == (1, 17, 17, 192)
    np.testing.assert_array_equal(taps.spatial.reshape(17, 17, 7), conv[0, ..., :7])
    # sFID: the 7 first channels of "mixed_6/conv", position by position, from what goes into that block.
    unit = {name: tensors[f"Mixed_6d.branch1x1.{name}"].astype(np.float64) for name in _UNIT}
    before = np.asarray(inside["intermediates"]["Mixed_6c"]["__call__"][0][0], np.float64)
    y = np.einsum("hwi,oi->hwo", before, unit["conv.weight"][:, :, 0, 0])[..., :7]
    mean, variance, scale, bias = (unit[name][:7] for name in _UNIT[1:])
    want = np.maximum((y - mean) / np.sqrt(variance + 1e-3) * scale + bias, 0)
    assert (want > 0).any(axis=(0, 1)).sum() >= 4  # the others are cut off by the ReLU
    np.testing.assert_allclose(taps.spatial[0], want.ravel(), atol=1e-5)
    for tap in ("pool_1", "pool_2", "mixed_6", "pool_3", "logits"):
        np.testing.assert_allclose(getattr(taps, tap), recorded[f"32px|{tap}"][:1], atol=1e-4)


def test_batches_do_not_change_classifier_features():
    net = Classifier((4, 8), 3)
    params = net.init(jax.random.key(0), (8, 8, 1))
    meta = {"widths": [4, 8], "num_classes": 3, "shape": [8, 8, 1], "values": "uint8 0..255"}
    x = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 1)).astype(np.uint8)
    small, large = (ClassifierFeatures(params, meta, batch_size=b) for b in (8, 16))
    np.testing.assert_allclose(small(x).features, large(x).features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(small(x[3:4]).features[0], large(x).features[3], rtol=1e-5, atol=1e-6)
    assert small.protocol((8, 8, 1), x.dtype).weights == digest(params)
    with pytest.raises(ValueError, match=r"trained on uint8 0..255 of shape \(8, 8, 1\)"):
        small.protocol((8, 8, 3), x.dtype)


def test_any_flax_network_gives_features_and_devices_do_not_change_them(monkeypatch):
    class Own(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.tanh(nn.Dense(5)(x.reshape(len(x), -1) / 255))
            return h, None

    x = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3)).astype(np.uint8)
    params = Own().init(jax.random.key(0), x)
    many = NetworkFeatures(Own().apply, params, name="own", batch_size=8)
    monkeypatch.setattr("score_sde.evaluate.extractors.make_mesh", lambda: make_mesh(1, jax.devices()[:1]))
    one = NetworkFeatures(Own().apply, params, name="own", batch_size=3)
    want = np.asarray(Own().apply(params, x.astype(np.float32))[0])
    for extractor in (many, one):
        sampled = extractor(x)
        np.testing.assert_allclose(sampled.features, want, rtol=1e-5, atol=1e-6)
        assert sampled.logits is None
    distances = [
        Frechet(bootstrap=0)(e(x), Reference(Moments.of(e(255 - x).features).gaussian, 11))["frechet"].value
        for e in (many, one)
    ]
    assert distances[0] == pytest.approx(distances[1], rel=1e-4)
    assert many.protocol((4, 4, 3), x.dtype) == one.protocol((4, 4, 3), x.dtype)
    with pytest.raises(ValueError, match="must be an identifier that does not begin with 'inception'"):
        NetworkFeatures(Own().apply, params, name="inception_v4")


def test_pixels_are_the_values():
    x = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    np.testing.assert_allclose(Pixels()(x).features, np.arange(24).reshape(2, 12) / 255, rtol=1e-6)
    with pytest.raises(ValueError, match="more than 4096; use 'classifier' or 'inception'"):
        Pixels().protocol((64, 64, 3), x.dtype)


def test_different_protocols_are_not_compared():
    a = Protocol("inception", "ab", "clean", "uint8 0..255", "any")
    check_comparable(a, "x", a, "y")
    b = Protocol("inception", "ab", "tensorflow", "uint8 0..255", "any")
    with pytest.raises(ValueError, match=r"a.npz and the samples .* resize = 'clean' against 'tensorflow'$"):
        check_comparable(a, "a.npz", b, "the samples")


def test_digest_sees_values_and_names():
    tree = {"a": {"b": np.ones(3, np.float32)}, "c": np.zeros(2, np.float32)}
    assert digest(tree) == digest({"c": np.zeros(2), "a": {"b": jnp.ones(3)}})
    assert digest(tree) != digest({"a": {"d": np.ones(3)}, "c": np.zeros(2)})
    assert digest(tree) != digest({"a": {"b": np.ones(3)}, "c": np.array([0.0, 1e-7])})
