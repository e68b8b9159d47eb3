"""Tables and series as states, and back."""

import jax
import numpy as np
import pytest

from score_sde.codecs import NO_PARAMS, Table
from score_sde.data import Spec
from score_sde.data.columns import Column
from score_sde.names import ConfigError

COLUMNS = (
    Column("a", 3.0, 2.0),
    Column("b", categories=("x", "y", "z")),
    Column("c", -1.0, 0.5),
    Column("d", categories=("no", "yes")),
)
RAW = np.array([[5.0, 2, -1.0, 0], [1.0, 0, 0.0, 1]], np.float32)
STATE = [[1.0, -1, -1, 1, 0.0, 1, -1], [-1.0, 1, -1, -1, 2.0, -1, 1]]


def test_numbers_are_standardised_and_categories_one_of_several():
    codec = Table(columns=COLUMNS)
    assert codec.state_shape(Spec((4,), None)) == (7,)
    np.testing.assert_array_equal(codec.encode(NO_PARAMS, RAW), STATE)
    np.testing.assert_array_equal(codec.middle(NO_PARAMS, RAW), STATE)
    np.testing.assert_array_equal(codec.decode(NO_PARAMS, np.array(STATE)), RAW)


def test_the_largest_entry_is_the_category():
    state = np.array([[0.0, -0.2, 0.9, 0.8, 0.0, 0.3, 0.4]])
    np.testing.assert_array_equal(Table(columns=COLUMNS).decode(NO_PARAMS, state)[0], [3.0, 1.0, -1.0, 1.0])


def test_series_go_through_along_their_last_axis():
    codec = Table(columns=COLUMNS)
    raw = np.stack([RAW, RAW[::-1]], axis=1)  # (2, 2, 4): windows of two rows
    assert codec.state_shape(Spec((2, 4), None)) == (2, 7)
    encoded = codec.encode(NO_PARAMS, raw)
    np.testing.assert_array_equal(encoded[:, 0], STATE)
    np.testing.assert_array_equal(codec.decode(NO_PARAMS, encoded), raw)


def test_the_density_of_numbers_is_that_of_the_change_of_variable():
    codec = Table(columns=(COLUMNS[0], COLUMNS[2]))
    assert codec.has_density and codec.range is None and codec.levels is None
    matrix = jax.jacobian(lambda x: codec.encode(NO_PARAMS, x))(np.zeros(2, np.float32))
    assert 2 * codec.log_volume() == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-6)
    mixed = Table(columns=COLUMNS)
    assert not mixed.has_density and "log_volume_nats" not in mixed.conventions()
    with pytest.raises(ValueError, match="categories has no density"):
        mixed.log_volume()


def test_data_without_columns_and_rows_of_another_width_are_refused():
    with pytest.raises(ValueError, match="codec.name = 'table': the data say nothing of their columns"):
        Table(columns=())
    with pytest.raises(ValueError, match="examples have 3 columns, and the model 4"):
        Table(columns=COLUMNS).encode(NO_PARAMS, RAW[:, :3])
    from score_sde.experiment.schema import typed

    choice = typed({"codec": {"name": "table"}}).codec
    assert choice.build(grey_levels=None, columns=COLUMNS) == Table(columns=COLUMNS)
    with pytest.raises(ConfigError, match="config.codec.name = 'table': the data say nothing"):
        choice.build(grey_levels=17, columns=())
