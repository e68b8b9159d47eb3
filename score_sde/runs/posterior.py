"""Samples of a model that agree with a measurement."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from score_sde.conditions import Chosen
from score_sde.guidance import compose
from score_sde.inverse import MEASURED, METHODS, NOISE_STD, LinearOperator
from score_sde.names import ConfigError, nearest
from score_sde.sampling.chunks import Progress
from score_sde.sampling.draw import generate

if TYPE_CHECKING:
    from score_sde.runs.model import Model


def measure(
    model: "Model", examples: np.ndarray, operator: LinearOperator, given: Mapping[str, np.ndarray]
) -> np.ndarray:
    """``A x0`` of examples as users have them, without noise: ``(N, *M)`` in the model's range."""
    x0 = jnp.asarray(model.encode_state(examples))
    return np.asarray(operator.apply(x0, {name: jnp.asarray(value) for name, value in given.items()}))


def posterior(
    model: "Model",
    measured: np.ndarray,
    operator: LinearOperator,
    *,
    given: Mapping[str, np.ndarray],
    noise_std: float,
    method: str,
    options: Mapping[str, object],
    samples: int,
    seed: int,
    chosen: Chosen,
    progress: Progress | None = None,
) -> np.ndarray:
    """See ``Model.posterior``; ``chosen``: conditions of the ``N samples`` samples in turn."""
    if method not in METHODS:
        raise ConfigError(
            f"method = {method!r} is not one of: {', '.join(METHODS)}{nearest(method, METHODS)}"
        )
    count = len(measured) * samples
    sampler = model.sampler
    how = METHODS[method](operator=operator, sde=sampler.process, **options)
    # Innermost is the model's own guidance: what is measured has the last word before the solver.
    guided = replace(sampler, bind=how(sampler.bind), guidance=compose(sampler.guidance, how))
    own = {MEASURED: measured, NOISE_STD: np.full(len(measured), noise_std), **given}
    inputs = {name: np.repeat(np.asarray(value, np.float32), samples, axis=0) for name, value in own.items()}
    batches = generate(
        guided.compile(model.mesh, progress),
        model.parts,
        guided.plan,
        model.mesh,
        seed=seed,
        num_samples=count,
        batch_size=model.config.sampling.batch_size,
        chosen=chosen,
        inputs={**sampler.guidance.inputs(count), **inputs},
    )
    drawn = np.concatenate([model.architecture.decode(model.parts, batch) for batch in batches])
    return drawn.reshape(len(measured), samples, *drawn.shape[1:])
