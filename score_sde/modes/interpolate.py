"""``--mode=interpolate``."""

import numpy as np

from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.inversion.latents import interpolate as between
from score_sde.modes.coder import Coder
from score_sde.modes.decode import Codes
from score_sde.modes.encode import shown
from score_sde.modes.inputs import Picked, open_inputs
from score_sde.modes.workdir import drawable, is_chief, outside, pictures_path, say
from score_sde.names import ConfigError


def interpolate(options: Options) -> int:
    """Pictures on the way from each of ``--images`` to the next, a row of the strip for each pair.

    A row begins and ends with the examples themselves; between them are decoded codes, whose first and last
    differ from the examples by the round-trip error.
    """
    coder = Coder(options)
    experiment = coder.experiment
    spec, config = experiment.spec, experiment.config.codes
    inputs = open_inputs(options, spec, config.split, config.num_examples)
    picked = Picked("0,1" if options.images is None else options.images, inputs, experiment.config.data)
    if len(picked) < 2:
        raise ConfigError(f"--images={options.images}: name at least two, with commas between")
    if config.frames < 2:
        raise ConfigError(f"config.codes.frames = {config.frames}: must be at least 2, the two ends")
    output = pictures_path(options, spec, "interpolation")
    code = coder.run(coder.encode, picked, "encode")["code"]
    way = np.asarray(between(code[:-1], code[1:], config.frames))  # type: ignore[arg-type]
    ends = picked.read(np.arange(len(picked)))
    cond = {k: np.asarray(v) for k, v in coder.cond(ends, len(picked)).items()}  # type: ignore[arg-type]
    nearest = np.arange(len(picked) - 1)[:, None] + (np.arange(config.frames) >= config.frames / 2)
    frames = Codes(
        way.reshape(-1, *experiment.state_shape),
        {name: values[nearest.reshape(-1)] for name, values in cond.items()},
    )
    x = outside(experiment, coder.run(coder.decode, frames, "decode")["x"])
    if is_chief():
        if output.suffix == ".png" and drawable(spec):
            pair = shown(spec, ends["x"])
            rows = x.reshape(len(picked) - 1, config.frames, *spec.shape)
            whole = np.concatenate([pair[:-1, None], rows, pair[1:, None]], axis=1)
            pictures.grid(whole.reshape(-1, *spec.shape), columns=config.frames + 2).save(output)
        else:
            pictures.write(output, x, seed=0)
    pairs = " to ".join(picked.titles)
    say(f"{config.frames} frames from {pairs} in {output}")
    return 0
