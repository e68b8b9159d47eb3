"""Filled cells against the conditional distributions of a Gaussian table, and what is made of samples."""

from dataclasses import replace

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.arrays import expand
from score_sde.data import Spec
from score_sde.data.columns import Column
from score_sde.data.known import KNOWN, known_condition
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.schema import typed
from score_sde.inverse.base import conjugate_gradients
from score_sde.inverse.impute import fill_holes, shares, spread_columns, summarise, windows
from score_sde.names import ConfigError
from score_sde.nets import Net
from score_sde.runs.impute import Imputed, impute, impute_series, raw_values
from score_sde.runs.model import Model
from score_sde.runs.workdir import Choice, Workdir
from score_sde.runtime.mesh import make_mesh

COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.1], [0.3, 0.1, 1.0]])
COLUMNS = (Column("a", 10.0, 2.0), Column("b", -5.0, 0.5), Column("c", 0.0, 100.0))
MEAN, STD = (np.array([getattr(c, name) for c in COLUMNS]) for name in ("mean", "std"))
DRAWS = 4000
CONFIG = {
    "codec": {"name": "table"},
    "sde": {"name": "edm", "t_max": 40.0},
    "model": {"name": "mlp", "width": 8, "num_blocks": 1},
    "denoiser": {"prediction": "x0", "time_input": "log_sigma"},
    "sampling": {
        "solver": "heun",
        "grid": {"name": "power", "rho": 7.0},
        "steps": 24,
        "t_end": 0.002,
        "batch_size": DRAWS,
    },
}


class Exact(nn.Module):
    """``E[x0 | x_t]`` of EDM's process for the Gaussian; given ``known``, ``E[x0 | x_t, seen entries]``."""

    conditions: tuple = ()

    @nn.compact
    def __call__(self, x, c_noise, cond, train=False):
        noise = expand(jnp.exp(2.0 * c_noise), x)
        values, turn = (jnp.asarray(a, jnp.float32) for a in np.linalg.eigh(COVARIANCE))
        if KNOWN not in cond:
            shrunk = (x @ turn) / (1.0 + noise / values.reshape((1,) * (x.ndim - 1) + (-1,)))
            return shrunk @ turn.T
        value, seen = jnp.split(cond[KNOWN], 2, axis=-1)
        precision, gone = turn @ jnp.diag(1.0 / values) @ turn.T, 1.0 - seen

        def matrix(v):
            return gone * ((gone * v) @ precision) + v / noise

        pull = gone * (x / noise - value @ precision)
        return gone * conjugate_gradients(matrix, pull, 12) + value


def model_of(tmp_path, conditional=False, length=None):
    config = typed({**CONFIG, "task": {"name": "imputation"}} if conditional else CONFIG)
    shape = (len(COLUMNS),) if length is None else (length, len(COLUMNS))
    spec = Spec(shape, None, columns=COLUMNS)
    made = architecture_of(config, spec)
    assert (KNOWN in dict(made.net.conditions)) == conditional
    net = Net(Exact(conditions=known_condition(shape) if conditional else ()))
    return Model(
        Workdir(tmp_path, config, spec), Choice(), replace(made, net=net), {"net": {}}, 0, make_mesh()
    )


def conditional_moments(row):
    """Mean and standard deviation of the missing entries of a row given the others, in the table's units."""
    gone = np.isnan(row)
    z = ((row - MEAN) / STD)[~gone]
    across = COVARIANCE[np.ix_(gone, ~gone)] @ np.linalg.inv(COVARIANCE[np.ix_(~gone, ~gone)])
    rest = COVARIANCE[np.ix_(gone, gone)] - across @ COVARIANCE[np.ix_(~gone, gone)]
    return MEAN[gone] + STD[gone] * (across @ z), STD[gone] * np.sqrt(np.diag(rest))


ROWS = np.array([[13.0, np.nan, 50.0], [np.nan, -4.2, np.nan], [9.1, -5.5, 1.0]])


@pytest.mark.parametrize("method", ["mmps", "conditional"])
def test_moments_are_those_of_the_conditional_distribution(tmp_path, method):
    conditional = method == "conditional"
    options = {} if conditional else {"solve_steps": 3}
    found = impute(model_of(tmp_path, conditional), ROWS, draws=DRAWS, noise_std=1e-3, options=options)
    np.testing.assert_array_equal(found.rows, [0, 1])
    np.testing.assert_array_equal(found.missing, np.isnan(ROWS))
    np.testing.assert_array_equal(found.values[~found.missing], ROWS[~found.missing])  # bit for bit
    for i, row in enumerate(ROWS[:2]):
        mean, std = conditional_moments(row)
        gone = np.isnan(row)
        error = np.abs(found.samples[i][:, gone].mean(axis=0) - mean)
        assert (error < 5 * std / np.sqrt(DRAWS)).all(), error / std
        np.testing.assert_allclose(found.samples[i][:, gone].std(axis=0), std, rtol=0.06)
        np.testing.assert_allclose(
            found.values[i][gone], found.samples[i][:, gone].astype(float).mean(axis=0)
        )
        np.testing.assert_array_equal(
            found.samples[i][:, ~gone], np.float32(row[~gone])[None].repeat(DRAWS, 0)
        )
    # the two missing entries of the second row belong together
    a, c = found.samples[1][:, [0, 2]].T
    across = COVARIANCE[np.ix_([0, 2], [1])]
    joint = COVARIANCE[np.ix_([0, 2], [0, 2])] - across @ across.T
    assert np.corrcoef(a, c)[0, 1] == pytest.approx(
        joint[0, 1] / np.sqrt(joint[0, 0] * joint[1, 1]), abs=0.08
    )


def test_a_row_without_anything_is_a_sample_of_the_table(tmp_path):
    found = impute(model_of(tmp_path, True), np.full((1, 3), np.nan), draws=DRAWS)
    np.testing.assert_allclose(found.samples[0].mean(axis=0), MEAN, atol=5 * STD.max() / np.sqrt(DRAWS))
    np.testing.assert_allclose(found.samples[0].std(axis=0), STD, rtol=0.06)


def test_a_series_is_filled_window_by_window(tmp_path):
    model, rng = model_of(tmp_path, True, length=4), np.random.default_rng(0)
    series = MEAN + STD * rng.normal(size=(11, 3))
    series[[0, 5, 10], [0, 1, 2]] = np.nan
    found = impute_series(model, series, draws=1000, seed=3)
    assert found.values.shape == (1, 11, 3) and found.samples.shape == (1, 1000, 11, 3)
    seen = ~np.isnan(series)
    np.testing.assert_array_equal(found.values[0][seen], series[seen])
    for t, i in ((0, 0), (5, 1), (10, 2)):  # rows are independent in this Gaussian
        mean, std = conditional_moments(series[t])
        assert np.abs(found.samples[0][:, t, i].mean() - mean[0]) < 5 * std[0] / np.sqrt(1000)
        np.testing.assert_allclose(found.values[0, t, i], found.samples[0][:, t, i].astype(float).mean())
    np.testing.assert_array_equal(found.samples[0][:, seen], np.float32(series[seen])[None].repeat(1000, 0))
    full = impute_series(model, np.nan_to_num(series), draws=2)
    assert full.samples.shape == (0, 2, 11, 3)
    with pytest.raises(ValueError, match=r"series of shape \(3, 3\): must be \(T, 3\) with T at least 4"):
        impute_series(model, series[:3])


def test_every_row_is_said_by_the_window_in_which_it_is_farthest_from_the_ends():
    for count, length in ((11, 4), (4, 4), (9, 5), (48, 7), (20, 1)):
        starts, chosen = windows(count, length)
        assert starts[0] == 0 and starts[-1] == count - length and len(chosen) == count
        place = np.arange(count) - starts[chosen]
        assert ((place >= 0) & (place < length)).all()
        inside = np.minimum(place, length - 1 - place)
        for t in range(count):
            others = [min(t - s, s + length - 1 - t) for s in starts if 0 <= t - s < length]
            assert inside[t] == max(others)


def test_what_is_made_of_samples():
    columns = (Column("n", 1.0, 2.0), Column("k", categories=("x", "y", "z")))
    samples = np.array([[[1.0, 2], [2.0, 2], [6.0, 0]], [[0.0, 1], [0.0, 0], [3.0, 1]]])
    np.testing.assert_allclose(summarise(samples, columns), [[3.0, 2], [1.0, 1]])
    np.testing.assert_allclose(shares(samples[..., 1], 3), [[1 / 3, 0, 2 / 3], [1 / 3, 2 / 3, 0]])
    np.testing.assert_array_equal(spread_columns(np.array([[1.0, 0.0]]), columns), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(fill_holes(np.array([[np.nan, np.nan]]), columns), [[1.0, 0.0]])
    missing = np.ones((2, 2), bool)
    found = Imputed(columns, summarise(samples, columns), missing, np.arange(2), samples)
    np.testing.assert_allclose(found.quantile(0.5), [[2.0, np.nan], [0.0, np.nan]])
    np.testing.assert_allclose(found.probabilities("k")[1], [1 / 3, 2 / 3, 0])
    assert found.texts() == {"n": ["3", "1"], "k": ["z", "y"]}
    with pytest.raises(ValueError, match="'n' is no column of categories"):
        found.probabilities("n")


def test_tables_of_python_become_rows():
    columns = (Column("n"), Column("k", categories=("x", "y")))
    got = raw_values(columns, {"k": ["y", None, "x"], "id": [7, 8, 9], "n": [1.5, "2", float("nan")]})
    np.testing.assert_array_equal(got, [[1.5, 1], [2, np.nan], [np.nan, 0]])
    for table, said in (
        ({"n": [1]}, "has no column 'k'"),
        ({"n": [1], "k": ["x", "y"]}, "column 'k' has 2 cells, and 'n' 1"),
        ({"n": [1, 2], "k": ["x", "w"]}, "row 2: column 'k': 'w' is not one of the 2"),
        ({"n": ["one"], "k": ["x"]}, "row 1: column 'n': 'one' is not a finite number"),
    ):
        with pytest.raises(ValueError, match=said):
            raw_values(columns, table)


def test_what_cannot_be_filled_is_named(tmp_path):
    model = model_of(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(2, 2\): must be \(N, 3\)"):
        impute(model, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"the value at index \(0, 1\) is infinite"):
        impute(model, np.array([[np.nan, np.inf, 0.0]]))
    with pytest.raises(ValueError, match="method 'conditional' needs a network that was trained"):
        impute(model, ROWS, draws=2, method="conditional")
    assert impute(model, np.zeros((2, 3)), draws=2).samples.shape == (0, 2, 3)
    pictures = replace(model, architecture=replace(model.architecture, spec=Spec((3,), None)))
    with pytest.raises(ConfigError, match="is no model of a table or a series"):
        impute(pictures, ROWS)


def test_the_numbers_of_categories_are_checked(tmp_path):
    columns = (*COLUMNS[:2], Column("k", categories=("x", "y")))
    spec = Spec((3,), None, columns=columns)
    made = architecture_of(typed(CONFIG), spec)
    model = replace(model_of(tmp_path), architecture=made)
    for value in (2.0, 0.5, -1.0):
        with pytest.raises(ValueError, match=f"column 'k': {value:g} is not the number of a category"):
            impute(model, np.array([[1.0, np.nan, value]]))
