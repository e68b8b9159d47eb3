"""Conditions as data: null values, checks, the law of dropout, what samples get, the way to a file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditions import (
    Chosen,
    Condition,
    conditions_from_json,
    conditions_to_json,
    drop,
    fill,
    first_class,
    labelled,
    null_of,
)
from score_sde.data.base import Spec

TEXTURE = Condition("image", (4, 4, 2))
ALL = (*labelled(3, ["ant", "bee", "cow"]), ("size", Condition("vector", (2,))), ("texture", TEXTURE))


def batch(count):
    """No value of it is null."""
    return {
        "label": jnp.arange(count) % 3,
        "size": 1.0 + jnp.arange(2.0 * count).reshape(count, 2),
        "texture": jnp.full((count, 4, 4, 2), 7.0),
    }


def test_the_null_value_of_each_kind():
    nulls = {name: condition.nulls(5) for name, condition in ALL}
    assert {name: (a.shape, str(a.dtype)) for name, a in nulls.items()} == {
        "label": ((5,), "int32"),
        "size": ((5, 2), "float32"),
        "texture": ((5, 4, 4, 2), "float32"),
    }
    assert np.all(nulls["label"] == -1)
    assert not nulls["size"].any() and not nulls["texture"].any()
    given = null_of(ALL, batch(5))
    assert all(np.array_equal(given[name], nulls[name]) for name in nulls)


def test_dropout_is_independent_and_each_has_its_own_rate():
    count, rates = 40_000, {"label": 0.1, "size": 0.3}
    out = jax.jit(lambda cond, key: drop(ALL, cond, rates, key))(batch(count), jax.random.key(0))
    label, size = np.asarray(out["label"]) == -1, np.all(np.asarray(out["size"]) == 0, axis=1)
    both = label & size
    for gone, rate in ((label, 0.1), (size, 0.3), (both, 0.03)):  # the last: they know nothing of each other
        assert abs(gone.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / count)
    kept = batch(count)
    np.testing.assert_array_equal(out["label"][~label], kept["label"][~label])
    np.testing.assert_array_equal(out["size"][~size], kept["size"][~size])  # whole vectors, no halves
    np.testing.assert_array_equal(out["texture"], kept["texture"])  # without a rate it stays


def test_dropping_all_is_the_null_and_dropping_none_the_batch():
    cond, key = batch(4), jax.random.key(0)
    every = drop(ALL, cond, dict.fromkeys(cond, 1.0), key)
    none = drop(ALL, cond, dict.fromkeys(cond, 0.0), key)
    assert all(np.array_equal(every[name], null_of(ALL, cond)[name]) for name in cond)
    assert all(np.array_equal(none[name], cond[name]) for name in cond)


def test_what_is_left_out_is_null_and_what_is_unknown_is_refused():
    x = jnp.zeros((2, 4, 4, 1))
    whole = fill(ALL, {"label": jnp.array([0, 2])}, x)
    assert list(whole) == ["label", "size", "texture"]
    np.testing.assert_array_equal(whole["label"], [0, 2])
    np.testing.assert_array_equal(whole["size"], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="cond colour: must be left out: the network takes only label, size"):
        fill(ALL, {"colour": jnp.zeros(2)}, x)
    with pytest.raises(ValueError, match=r"cond size has shape \(2, 3\): must be \(2, 2\)"):
        fill(ALL, {"size": jnp.zeros((2, 3))}, x)
    with pytest.raises(ValueError, match=r"cond texture lies on a grid of \(4, 4\) and x on one of \(8, 8\)"):
        fill(ALL, {}, jnp.zeros((2, 8, 8, 1)))


def test_a_spec_comes_back_from_a_file():
    spec = Spec((4, 4, 1), 256, ALL)
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert hash(Spec.from_json(spec.to_json())) == hash(spec)
    assert conditions_from_json(json.loads(json.dumps(conditions_to_json(ALL)))) == ALL
    assert Spec.from_json(Spec((3,), None).to_json()) == Spec((3,), None)


def test_a_spec_counts_all_that_an_example_has():
    spec = Spec((4, 4, 1), 256, ALL)
    assert spec.example_bytes == 16 + 4 + 2 * 4 + 32 * 4
    assert spec.fields["size"] == ((2,), np.dtype(np.float32))
    for names in (("x",), ("mask",), ("label", "label")):
        with pytest.raises(ValueError, match="conditions are called"):
            Spec((2,), None, tuple((name, Condition("vector", (1,))) for name in names))


def test_every_class_in_turn_and_fixed_values():
    numbers = np.array([0, 1, 5, 7])
    cond = Chosen.every_class(ALL).of(numbers)
    np.testing.assert_array_equal(cond["label"], [0, 1, 2, 1])
    np.testing.assert_array_equal(cond["size"], np.zeros((4, 2)))
    cond = Chosen.fixed(ALL, {"label": 2, "size": np.array([0.5, -1])}).of(numbers)
    np.testing.assert_array_equal(cond["label"], [2, 2, 2, 2])
    np.testing.assert_array_equal(cond["size"], [[0.5, -1]] * 4)
    held_out = {"x": np.zeros((9, 4)), "label": np.arange(9) % 2, "size": np.ones((9, 2))}
    read = Chosen.of_data(ALL[:2], lambda i: {k: v[i] for k, v in held_out.items()}, "held out")
    cond = read.of(numbers)
    assert list(cond) == ["label", "size"]
    np.testing.assert_array_equal(cond["label"], [0, 1, 1, 1])


def test_values_of_the_command_line():
    known = dict(ALL)
    assert known["label"].parse("label", "bee") == 1 and known["label"].parse("label", "2") == 2
    np.testing.assert_array_equal(known["size"].parse("size", "0.5,-1"), np.float32([0.5, -1]))
    for name, text, message in (
        ("label", "3", "label=3: must be one of the classes 0 to 2, or one of ant, bee, cow"),
        ("label", "-1", "label=-1: must be one of"),
        ("label", "dog", "label=dog: must be one of"),
        ("size", "1", "size=1: must be 2 finite numbers"),
        ("size", "1,nan", "size=1,nan: must be 2 finite numbers"),
        ("texture", "1", "texture=1: an image cannot be written"),
    ):
        with pytest.raises(ValueError, match=message):
            known[name].parse(name, text)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("label", [0, 3], "label of example 1 holds 3: must be a class from 0 to 2, or -1"),
        ("label", [-2], "label of example 0 holds -2"),
        ("label", [0.5], "label has type float64: must be integers"),
        ("label", [[1]], r"label has shape \(1, 1\): must be \(B,\)"),
        ("size", [[0.0, np.inf]], "size of example 0 holds inf: must be finite"),
        ("size", [[1.0]], r"size has shape \(1, 1\): must be \(B, 2\)"),
        ("texture", [["a"]], r"texture has shape \(1, 1\): must be \(B, 4, 4, 2\)"),
    ],
)
def test_values_are_checked(name, values, message):
    with pytest.raises(ValueError, match=message):
        dict(ALL)[name].check(name, np.array(values))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sound"}, "kind = 'sound': must be one of class, vector, image"),
        ({"kind": "class"}, "classes = 0: must be positive"),
        ({"kind": "vector", "shape": (2,), "classes": 3}, "classes = 3"),
        ({"kind": "vector"}, r"shape = \(\): kind 'vector' has 1 to 1"),
        ({"kind": "image", "shape": (4, 4, 0)}, "positive sizes"),
        ({"kind": "class", "classes": 2, "names": ("a", "a")}, "must be 2 different names"),
    ],
)
def test_impossible_conditions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Condition(**fields)


def test_the_first_class():
    assert first_class(ALL) == ALL[0]
    assert first_class(ALL[1:]) is None
    assert labelled(0) == ()
