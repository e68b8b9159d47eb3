"""Fit a classifier to labelled data: the smallest training loop there is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from score_sde.data import batch_indices
from score_sde.nets.classifier import Classifier

Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Prepare = Callable[[Array], Array]


def fit_classifier(
    net: Classifier,
    read: Read,
    count: int,
    shape: tuple[int, ...],
    *,
    prepare: Prepare,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    note: Callable[[int, float], None] | None = None,
) -> Any:
    """Parameters after ``steps`` updates of Adam on the cross-entropy, the rate falling along a cosine.

    Args:
      read: indices to raw examples ``(n, *shape)`` and classes ``(n,)``.
      count: examples that can be read.
      prepare: raw examples to what the network takes, on the device.
      seed: of the first parameters and of the order of the data.
      note: called now and then with the number of updates and the loss.

    Raises:
      FloatingPointError: the loss is not finite.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    params = jax.jit(lambda key: net.init(key, shape))(jax.random.key(seed))
    state = optimizer.init(params)

    @jax.jit
    def update(params: Any, state: Any, x: Array, number: Array) -> tuple[Any, Any, Array]:
        def loss(params: Any) -> Array:
            logits = net(params, prepare(x)).logits
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, number))

        value, gradient = jax.value_and_grad(loss)(params)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state, value

    for step in range(steps):
        x, number = read(batch_indices(seed, step, batch_size, count))
        params, state, value = update(params, state, x, number)
        if step % 50 == 0 or step == steps - 1:
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"the classifier's loss is {float(value)} at step {step}; try a smaller "
                    f"classifier.learning_rate than {learning_rate}"
                )
            if note is not None:
                note(step + 1, float(value))
    return params


def accuracy(
    net: Classifier, params: Any, read: Read, count: int, *, prepare: Prepare, batch_size: int
) -> float:
    """Fraction of all examples whose largest class score is that of its class."""
    guess = jax.jit(lambda params, x: jnp.argmax(net(params, prepare(x)).logits, axis=-1))
    right = 0
    for start in range(0, count, batch_size):
        rows = np.arange(start, start + batch_size)
        x, number = read(np.minimum(rows, count - 1))  # full batches: one program
        right += int(((np.asarray(guess(params, x)) == number) & (rows < count)).sum())
    return right / count
