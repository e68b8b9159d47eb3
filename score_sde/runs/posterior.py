"""Samples of a model that agree with a measurement."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from score_sde.conditions import Chosen
from score_sde.experiment.assemble import sampler_of
from score_sde.guidance import compose
from score_sde.inverse import MEASURED, METHODS, NOISE_STD, LinearOperator
from score_sde.names import ConfigError, nearest
from score_sde.runs.others import open_run
from score_sde.sampling.chunks import Draw, Progress
from score_sde.sampling.draw import generate
from score_sde.sampling.sampler import Sampler

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
    first: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """See ``Model.posterior``; ``chosen``: conditions of the ``N samples`` samples in turn."""
    count = len(measured) * samples
    sampler, draw = _sampler(model, operator, method, options, progress)
    own = {MEASURED: measured, NOISE_STD: np.full(len(measured), noise_std), **given}
    inputs = {name: np.repeat(np.asarray(value, np.float32), samples, axis=0) for name, value in own.items()}
    batches = generate(
        draw,
        model.parts,
        sampler.plan,
        model.mesh,
        seed=seed,
        num_samples=count,
        batch_size=model.config.sampling.batch_size,
        chosen=chosen,
        inputs={**sampler.guidance.inputs(count), **inputs},
        counted_from=first * samples,
    )
    drawn = np.concatenate([model.architecture.decode(model.parts, batch) for batch in batches])
    return drawn.reshape(len(measured), samples, *drawn.shape[1:])


def _sampler(
    model: "Model",
    operator: LinearOperator,
    method: str,
    options: Mapping[str, object],
    progress: Progress | None,
) -> tuple[Sampler, Draw]:
    """The sampler of a method: made, and compiled, once for all measurements by one operator."""
    if method not in METHODS:
        raise ConfigError(
            f"method = {method!r} is not one of: {', '.join(METHODS)}{nearest(method, METHODS)}"
        )
    how = METHODS[method](operator=operator, sde=model.sde, **options)
    made = model.posteriors
    if how not in made:
        # After the guidance of the model; a threshold on x0 has the last word before the solver.
        sampler = sampler_of(
            model.config,
            model.architecture,
            open_run=open_run,
            guided=compose(model.guidance, how),
            steps=how.steps,
        )
        made[how] = sampler, sampler.compile(model.mesh, model.relay)
    model.relay.to = progress
    return made[how]
