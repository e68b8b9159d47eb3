"""Laws of the data order: permutations, keyed by seed and epoch, sliced into batches."""

import numpy as np
import pytest

from score_sde.data.order import batch_indices, permutation


def stream(seed, steps, batch_size, size):
    return np.concatenate([batch_indices(seed, s, batch_size, size) for s in range(steps)])


@pytest.mark.parametrize(("batch_size", "size"), [(4, 12), (5, 12), (7, 3), (1, 5), (12, 12)])
def test_every_epoch_visits_each_example_once(batch_size, size):
    epochs = 5
    order = stream(3, -(-epochs * size // batch_size), batch_size, size)[: epochs * size]
    for i, epoch in enumerate(order.reshape(epochs, size)):
        assert sorted(epoch) == list(range(size))
        np.testing.assert_array_equal(epoch, permutation(3, i, size))  # each its own


def test_epochs_and_seeds_have_different_orders():
    orders = [tuple(permutation(seed, epoch, 20)) for seed in range(5) for epoch in range(5)]
    assert len(set(orders)) == 25


def test_a_batch_depends_on_seed_and_step_only():
    forward = [batch_indices(1, step, 5, 12) for step in range(30)]
    permutation.cache_clear()
    backward = [batch_indices(1, step, 5, 12) for step in reversed(range(30))][::-1]
    np.testing.assert_array_equal(forward, backward)


def test_the_stream_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(stream(0, 14, 3, 10), stream(0, 6, 7, 10))


def test_positions_are_uniform_over_seeds():
    # Example 0 lands on each of 8 positions with probability 1/8: chi-square with 7 degrees of
    # freedom, 99.99 % quantile 29.9.
    draws = 4000
    place = [int(np.argmax(permutation(seed, seed % 3, 8) == 0)) for seed in range(draws)]
    count = np.bincount(place, minlength=8)
    assert np.sum((count - draws / 8) ** 2 / (draws / 8)) < 29.9


def test_type_shape_and_protection():
    indices = batch_indices(-1, 10**9, 6, 7)
    assert indices.dtype == np.int64 and indices.shape == (6,)
    indices[0] = 99  # a caller may write into its batch ...
    with pytest.raises(ValueError, match="read-only"):
        permutation(0, 0, 5)[0] = 99  # ... but not into the cache


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, -1, 4, 10), "step = -1"),
        ((0, 0, 0, 10), "training.batch_size = 0"),
        ((0, 0, 4, 0), "0 examples"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        batch_indices(*arguments)
