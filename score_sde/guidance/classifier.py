"""Classifier guidance (Dhariwal & Nichol 2021, arXiv:2105.05233)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from score_sde.arrays import Parts, expand
from score_sde.conditions import Condition, Conditions
from score_sde.denoiser import Bind, Cond, Denoise, Estimate
from score_sde.guidance.change_process import at_equal_log_snr
from score_sde.guidance.strength import Scaled
from score_sde.sde import SDE

CLASSIFIER = "classifier"  # the part that holds the parts of the classifier


class NoisyClassifier(NamedTuple):
    """A classifier of noisy examples.

    Attributes:
      sde: the process whose ``x_t`` it is for.
      log_prob: ``(parts, x, t, number) -> log p(number | x_t = x)`` in nats: ``(B,)``.
      parts: its own.
      condition: the class condition that it knows, and its name.
    """

    sde: SDE
    log_prob: Callable[[Parts, Array, Array, Array], Array]
    parts: Parts
    condition: tuple[str, Condition]


@dataclass(frozen=True, kw_only=True)
class ClassifierGuidance(Scaled):
    """``scale grad log p(class | x_t)`` is added to the score (arXiv:2105.05233, eq. 10).

    For x0 that is ``sigma^2 / alpha`` times the term, and for the noise ``-sigma`` times it. Scale 1 is the
    model of that class where the classifier is exact; 0 is the model itself. The model may be conditional
    or not; a sample without a class, number -1, is not guided.

    The classifier is one of noisy examples, which a task of that name trains; its process may be another
    than that of the model.  Its parameters are the part ``classifier``.

    Attributes:
      open_classifier: ``(workdir, step)`` to the classifier.
      workdir: of the classifier.
      step: of its checkpoint; none: the newest.
    """

    open_classifier: Callable[[str, int | None], NoisyClassifier]
    workdir: str
    step: int | None = None

    @property
    def conditions(self) -> Conditions:
        return (self.open_classifier(self.workdir, self.step).condition,)

    def frozen(self) -> Parts:
        return {CLASSIFIER: self.open_classifier(self.workdir, self.step).parts}

    def __call__(self, bind: Bind) -> Bind:
        """The guided model.

        Raises (when it is bound):
          ValueError: there is no class among the conditions.
        """
        classifier = self.open_classifier(self.workdir, self.step)
        name = classifier.condition[0]

        def bind_guided(parts: Parts, cond: Cond) -> Denoise:
            strength, given = self.taken(cond)
            if name not in given:
                raise ValueError(f"cond has no {name!r}: the class that the classifier is asked for")
            denoise, number = bind(parts, given), jnp.asarray(given[name])

            def log_prob(x: Array, t: Array) -> Array:
                if classifier.sde != self.sde:
                    x, t = at_equal_log_snr(classifier.sde, self.sde, x, t)
                each = classifier.log_prob(parts[CLASSIFIER], x, t, number)  # type: ignore[arg-type]
                return jnp.sum(jnp.where(number >= 0, each, 0.0))

            def guided(x: Array, t: Array) -> Estimate:
                plain, t = denoise(x, t), jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])
                slope = expand(strength.scale, x) * jax.grad(log_prob)(x, t)
                return self.within(strength.interval, plain.with_score(self.sde, t, slope), plain, t)

            return guided

        return bind_guided
