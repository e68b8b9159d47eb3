"""Grids: every pixel of a picture becomes a square of pixels."""

import numpy as np
import pytest

from score_sde.images import pictures


@pytest.mark.parametrize(
    ("side", "columns", "times"),
    [(8, 8, 8), (8, 32, 3), (28, 8, 2), (32, 10, 2), (32, 100, 1), (64, 4, 1), (256, 4, 1)],
)
def test_small_pictures_are_magnified_by_whole_numbers(side, columns, times):
    images = np.random.default_rng(0).integers(0, 256, (columns, side, side, 1), np.uint8)
    grid = np.asarray(pictures.grid(images, columns))
    assert grid.shape == (side * times + 2, columns * (side * times + 1) + 1)
    assert times == 1 or grid.shape[1] <= 1025
    for i in (0, columns - 1):
        left = 1 + i * (side * times + 1)
        tile = grid[1:-1, left : left + side * times]
        np.testing.assert_array_equal(tile, np.kron(images[i, ..., 0], np.ones((times, times), np.uint8)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_line_between_pictures_is_seen(channels):
    for value in (0, 255):
        grid = np.asarray(pictures.grid(np.full((4, 8, 8, channels), value, np.uint8)))
        line = grid[65].reshape(131, channels)
        assert (np.abs(line[:, :3].astype(int) - value) > 50).all()
        assert (line[:, 3:] == 255).all()
