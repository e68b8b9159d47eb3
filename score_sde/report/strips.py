"""Pictures of what a model does: noise taken off, and samples by more and more network evaluations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_sde.arrays import fold_in_each, normal_per_sample
from score_sde.codecs import NO_PARAMS
from score_sde.data import Source
from score_sde.evaluate import level_times
from score_sde.experiment.assemble import Experiment, sampler_of
from score_sde.experiment.schema import changed
from score_sde.images import pictures
from score_sde.modes.workdir import outside
from score_sde.runtime.mesh import make_mesh, round_up
from score_sde.sampling.draw import compile_sample, generate, sample_keys

_STRIP = (4, 8)  # examples and noise levels
_SOLVER, _EVALUATIONS, _COLUMNS = "dpmpp_2m", (5, 10, 20, 40), 8


def denoising(experiment: Experiment, params: Any, source: Source) -> tuple[pictures.Picture, str]:
    """Held-out examples at growing noise, what the model makes of them, and a caption."""
    count, levels = _STRIP
    count = min(count, len(source))
    raw = source.read(np.arange(count))
    keys = sample_keys(experiment.config.seed, jnp.arange(count))
    encode = jax.vmap(lambda x, key: experiment.codec.encode(NO_PARAMS, x[None], key)[0])
    x0 = encode(jnp.asarray(raw["x"]), fold_in_each(keys, 0))
    noise = normal_per_sample(fold_in_each(keys, 1), experiment.state_shape)
    cond = {name: jnp.asarray(raw[name]) for name, _ in experiment.conditions}

    @jax.jit
    def denoise(params: Any, x: Any, t: Any) -> Any:
        return experiment.bind(params, cond)(x, t).x0

    noisy, clean = [x0], [x0]
    times = level_times(experiment.sde, levels)
    for t in times:
        x = experiment.sde.perturb(x0, jnp.float32(t), noise)
        noisy.append(x / float(jnp.hypot(experiment.sde.alpha(t), experiment.sde.sigma(t))))
        clean.append(denoise(params, x, jnp.float32(t)))
    rows = np.stack([np.stack(noisy, axis=1), np.stack(clean, axis=1)], axis=1)  # (n, 2, levels, *shape)
    tiles = outside(experiment, rows.reshape(-1, *experiment.state_shape))
    caption = (
        f"held-out examples with noise at t = {', '.join(f'{t:.3g}' for t in times)}, and below each what "
        "the model expects behind it"
    )
    return pictures.grid(tiles, columns=levels + 1), caption


def by_evaluations(experiment: Experiment, params: Any) -> tuple[pictures.Picture, str]:
    """The same noise made into samples with few and with many network evaluations, a row each; a caption.

    Raises:
      ValueError: the process does not suit the solver.
    """
    mesh, rows = make_mesh(), []
    labels = None
    if experiment.labelled:
        labels = np.arange(_COLUMNS) % experiment.spec.num_classes
    for evaluations in _EVALUATIONS:
        config = changed(
            experiment.config,
            {
                "sampling.solver": _SOLVER,
                "sampling.steps": evaluations - 1,  # and one to denoise
                "sampling.stop_after_steps": None,
                "sampling.keep_every_steps": 0,
            },
        )
        fast = sampler_of(experiment, config.sampling)
        draw = compile_sample(fast.bind, fast.process, fast.solver, mesh, shape=experiment.spec.shape)
        batches = generate(
            draw,
            params,
            fast.plan,
            mesh,
            seed=config.seed,
            num_samples=_COLUMNS,
            batch_size=round_up(_COLUMNS, mesh),
            labels=labels,
            inputs=fast.guidance.inputs(_COLUMNS),
        )
        rows.append(np.concatenate(list(batches)))
    apart = [float(np.sqrt(np.mean((row - rows[-1]) ** 2))) for row in rows[:-1]]
    tiles = outside(experiment, np.concatenate(rows))
    caption = (
        f"the same noise by {_SOLVER} with {', '.join(map(str, _EVALUATIONS))} network evaluations, a row "
        f"each; root mean square distance to the last row: {', '.join(f'{value:.2g}' for value in apart)} "
        f"(data from {experiment.pixels.low:g} to {experiment.pixels.high:g})"
    )
    return pictures.grid(tiles, columns=_COLUMNS), caption
