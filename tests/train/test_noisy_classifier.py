"""The classifier of noisy examples: what its loss is, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.architecture import Architecture
from score_sde.codecs import Pixels
from score_sde.conditions import labelled
from score_sde.data import Spec
from score_sde.losses import TIMES, WEIGHTS, DenoisingLoss
from score_sde.sde import EDM, SDES
from score_sde.tasks.noisy_classifier import NoisyClassification, NoisyClassifier
from score_sde.tasks.preparation import Preparation

SDE = EDM()


def architecture(classes=3, sde=SDE):
    spec = Spec((8, 8, 1), 17, labelled(classes))
    return Architecture(spec, Pixels(grey_levels=17), (), sde, net=None, precondition=None)


def test_the_loss_is_the_surprise_at_the_class_of_what_is_drawn():
    # Also of a model that takes no class; an example without one does not count.
    model = NoisyClassifier(architecture(), (4,))
    parts = model.init(jax.random.key(0))
    objective = DenoisingLoss(SDE, WEIGHTS["noise"](), TIMES["low_discrepancy"]())
    task = NoisyClassification(model.architecture, Preparation(model.architecture), objective, None, (4,))
    raw = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8)
    number = np.array([0, 2, -1, 1, 2], np.int32)
    examples = task.draw({}, {"x": raw, "label": number}, jax.random.key(1))
    np.testing.assert_array_equal(examples.number, number)
    loss, metrics = jax.jit(task.loss)(parts, {}, {}, examples, jax.random.key(2))
    t, noise = examples.drawn
    x = SDE.perturb(model.architecture.codec.middle({}, raw), t, noise)
    every = jnp.exp(jax.jit(model.log_probs)(parts, x, t))
    np.testing.assert_allclose(jnp.sum(every, axis=1), 1.0, rtol=1e-5)
    want = [-np.log(every[i, k]) if k >= 0 else 0.0 for i, k in enumerate(number)]
    np.testing.assert_allclose(loss, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(np.argmax(every, axis=1) == number))
    np.testing.assert_allclose(model.log_prob(parts, x, t, jnp.asarray(number)), -loss, rtol=1e-4, atol=1e-5)


def test_data_without_classes_and_learned_processes_are_refused():
    with pytest.raises(ValueError, match="a classifier needs data with classes"):
        NoisyClassifier(architecture(0))
    with pytest.raises(ValueError, match="at least 2 classes, these have 1"):
        NoisyClassifier(architecture(1))
    with pytest.raises(ValueError, match=r"widths = \(8, 0\): must be positive integers"):
        NoisyClassifier(architecture(), (8, 0))
    with pytest.raises(ValueError, match="config.sde.name = 'learned' is not"):
        NoisyClassifier(architecture(sde=SDES["learned"]()))
