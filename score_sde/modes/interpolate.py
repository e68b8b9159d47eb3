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
    spec, config = experiment.spec, experiment.config.inversion
    inputs = open_inputs(options, spec, config.split, config.num_examples)
    picked = Picked("0,1" if options.images is None else options.images, inputs, experiment.config.data)
    if len(picked) < 2:
        raise ConfigError(f"--images={options.images}: name at least two, with commas between")
    output = pictures_path(options, spec, "interpolation")
    code = coder.run(coder.encode, picked, "encode")["code"]
    way = np.asarray(between(code[:-1], code[1:], config.frames))  # type: ignore[arg-type]
    label = np.asarray(coder.told(picked.read(np.arange(len(picked)))["label"]))  # type: ignore[arg-type]
    labels = np.where(np.arange(config.frames) < config.frames / 2, label[:-1, None], label[1:, None])
    frames = Codes(way.reshape(-1, *spec.shape), labels.reshape(-1))
    x = outside(experiment, coder.run(coder.decode, frames, "decode")["x"])
    if is_chief():
        if output.suffix == ".png" and drawable(spec):
            ends = shown(spec, picked.read(np.arange(len(picked)))["x"])
            rows = x.reshape(len(picked) - 1, config.frames, *spec.shape)
            whole = np.concatenate([ends[:-1, None], rows, ends[1:, None]], axis=1)
            pictures.grid(whole.reshape(-1, *spec.shape), columns=config.frames + 2).save(output)
        else:
            pictures.write(output, x, seed=0)
    pairs = " to ".join(picked.titles)
    say(f"{config.frames} frames from {pairs} in {output}")
    return 0
