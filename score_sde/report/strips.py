"""Pictures of what a model does: noise taken off, and samples by more and more network evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from score_sde.architecture import codec_params
from score_sde.arrays import Parts, fold_in_each, normal_per_sample
from score_sde.data import Source
from score_sde.evaluate import level_times
from score_sde.images import pictures
from score_sde.runs.model import Model
from score_sde.runtime.mesh import round_up
from score_sde.sampling.draw import sample_keys

_STRIP = (4, 8)  # examples and noise levels
_SOLVER, _EVALUATIONS, _COLUMNS = "dpmpp_2m", (5, 10, 20, 40), 8


def denoising(model: Model, source: Source) -> tuple[pictures.Picture, str]:
    """Held-out examples at growing noise, what the model makes of them, and a caption."""
    architecture, (count, levels) = model.architecture, _STRIP
    count = min(count, len(source))
    raw, sde = source.read(np.arange(count)), architecture.sde
    keys = sample_keys(model.config.seed, jnp.arange(count))
    params = codec_params(model.parts)
    encode = jax.vmap(lambda x, key: architecture.codec.encode(params, x[None], key)[0])
    x0 = encode(jnp.asarray(raw["x"]), fold_in_each(keys, 0))
    noise = normal_per_sample(fold_in_each(keys, 1), architecture.state_shape)
    cond = {name: jnp.asarray(raw[name]) for name, _ in architecture.conditions}

    @jax.jit
    def denoise(parts: Parts, x: Array, t: Array) -> Array:
        return architecture.bind(parts, cond)(x, t).x0

    noisy, clean = [x0], [x0]
    times = level_times(sde, levels)
    for t in times:
        x = sde.perturb(x0, jnp.float32(t), noise)
        noisy.append(x / float(jnp.hypot(sde.alpha(t), sde.sigma(t))))
        clean.append(denoise(model.parts, x, jnp.float32(t)))
    rows = np.stack([np.stack(noisy, axis=1), np.stack(clean, axis=1)], axis=1)  # (n, 2, levels, *shape)
    tiles = architecture.decode(model.parts, rows.reshape(-1, *architecture.state_shape))
    caption = (
        f"held-out examples with noise at t = {', '.join(f'{t:.3g}' for t in times)}, and below each what "
        "the model expects behind it"
    )
    return pictures.grid(tiles, columns=levels + 1), caption


def by_evaluations(model: Model) -> tuple[pictures.Picture, str]:
    """The same noise made into samples with few and with many network evaluations, a row each; a caption.

    Raises:
      ValueError: the process does not suit the solver.
    """
    rows, size = [], round_up(_COLUMNS, model.mesh)
    for evaluations in _EVALUATIONS:
        fast = model.change(
            {
                "sampling.solver": _SOLVER,
                "sampling.steps": evaluations - 1,  # and one to denoise
                "sampling.stop_after_steps": None,
                "sampling.keep_every_steps": 0,
            }
        )
        rows.append(np.concatenate(list(fast.batches(_COLUMNS, batch_size=size))))
    apart = [float(np.sqrt(np.mean((row - rows[-1]) ** 2))) for row in rows[:-1]]
    tiles = model.architecture.decode(model.parts, np.concatenate(rows))
    caption = (
        f"the same noise by {_SOLVER} with {', '.join(map(str, _EVALUATIONS))} network evaluations, a row "
        f"each; root mean square distance to the last row, in the model's range: "
        f"{', '.join(f'{value:.2g}' for value in apart)}"
    )
    return pictures.grid(tiles, columns=_COLUMNS), caption
