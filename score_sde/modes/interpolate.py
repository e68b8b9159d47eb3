"""``--mode=interpolate``."""

import jax.numpy as jnp
import numpy as np

from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.inversion.latents import interpolate as between
from score_sde.modes.run import conditions_of, examples_path, model_of
from score_sde.names import ConfigError
from score_sde.runs.given import Latents
from score_sde.runs.inputs import Conditioned, Picked, open_inputs, to_user
from score_sde.runs.inverter import map_with
from score_sde.runtime.processes import is_chief, say


def interpolate(options: Options) -> int:
    """Pictures on the way from each of ``--images`` to the next, a row of the strip for each pair.

    A row begins and ends with the examples themselves; between them are decoded latents, whose first and last
    differ from the examples by the round-trip error.
    """
    model = model_of(options)
    architecture, section = model.architecture, model.config.inversion
    spec, conditions, frames = architecture.spec, architecture.conditions, section.frames
    inputs = open_inputs(model.workdir, options.samples, section.split, section.num_examples)
    picked = Picked("0,1" if options.images is None else options.images, inputs, model.config.data)
    if len(picked) < 2:
        raise ConfigError(f"--images={options.images}: name at least two, with commas between")
    output = examples_path(options, spec, "interpolation")
    fixed = conditions_of(options, conditions)
    given = Conditioned(picked, conditions, fixed, own=options.samples is None)
    latent = jnp.asarray(map_with(model, model.inverter.encode, given, "encode")["latent"])
    way = np.asarray(between(latent[:-1], latent[1:], frames))
    nearest = np.arange(len(picked) - 1)[:, None] + (np.arange(frames) >= frames / 2)
    several = Latents(
        way.reshape(-1, *architecture.state_shape),
        {name: values[nearest.reshape(-1)] for name, values in given.conditions().items()},
    )
    x = architecture.decode(model.parts, map_with(model, model.inverter.decode, several, "decode")["x"])
    if is_chief():
        if output.suffix == ".png" and architecture.is_picture:
            ends = to_user(picked.read(np.arange(len(picked)))["x"], spec)
            rows = x.reshape(len(picked) - 1, frames, *spec.shape)
            whole = np.concatenate([ends[:-1, None], rows, ends[1:, None]], axis=1)
            pictures.grid(whole.reshape(-1, *spec.shape), columns=frames + 2).save(output)
        else:
            pictures.write(output, x, seed=0)
    say(f"{frames} frames from {' to '.join(picked.titles)} in {output}")
    return 0
