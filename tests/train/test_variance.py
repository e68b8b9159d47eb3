"""The noise of the loss, as the log reports it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.train import EMAS, make_step
from score_sde.train.loop import _Pending
from tests.train.test_training import Noise, Run, adam


def test_loss_variance_is_that_over_the_examples(tmp_path):
    run, task = Run(tmp_path), Noise()
    state, batch = run.fresh(), next(run.data.from_step(0))
    key = jax.random.fold_in(jax.random.key(3), 0)
    key_draw, key_loss = jax.random.split(key)
    examples = task.draw({}, batch, key_draw)
    each = np.asarray(task.loss(state.params, {}, state.ema, examples, key_loss)[0], np.float64)
    _, metrics = jax.jit(make_step(task, adam(), EMAS["warmup"](), 3))(state, {}, batch)
    assert float(metrics["loss"]) == pytest.approx(each.mean(), rel=1e-5)
    assert float(metrics["loss_variance"]) == pytest.approx(each.var(), rel=1e-4)


def test_loss_deviation_is_that_from_step_to_step():
    losses = np.array([3.0, 5.0, 4.0, 8.0], np.float32)
    pending = _Pending()
    for i, pair in enumerate(losses.reshape(2, 2)):  # two steps a dispatch
        pending.add(2 * i, {"loss": jnp.asarray(pair), "grad_norm": jnp.ones(2), "finite": jnp.ones(2, bool)})
    means = pending.drain()
    assert means["loss"] == pytest.approx(5.0)
    assert means["loss_deviation"] == pytest.approx(losses.std())
    assert pending.drain() == {}
