"""``--mode=edit``."""

import numpy as np

from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.modes.impute import fill_table
from score_sde.modes.run import conditions_of, examples_path, model_of, seed_of
from score_sde.names import ConfigError
from score_sde.runs.inputs import Picked, drawable, open_inputs, to_user
from score_sde.runs.posterior import measure
from score_sde.runtime.processes import is_chief, say
from score_sde.runtime.progress import Progress

OF_TABLES = {"impute": fill_table}  # tasks of other data than pictures


def edit(options: Options) -> int:
    """Pictures that agree with what is kept of ``--input``: several for each, their mean and their spread.

    A ``.png`` is a panel with a row for each picture: it, what is kept of it, the samples, mean and standard
    deviation.  A ``.npz`` holds the same as arrays.
    """
    other = OF_TABLES.get(options.config.edit.task.name)
    if other is not None:
        return other(options)
    model, section = model_of(options), options.config.edit
    spec, codec = model.architecture.spec, model.architecture.codec
    if not drawable(spec) or codec.range is None:
        raise ConfigError(f"--mode=edit: is for pictures; the model's examples have the shape {spec.shape}")
    output = examples_path(options, spec, f"edit_{section.task.name}")
    inputs = open_inputs(model.workdir, None, section.split, None)
    picked = Picked(
        "0,1,2,3" if options.input is None else options.input, inputs, model.config.data, "--input"
    )
    task, shape = section.task.build(), model.architecture.state_shape
    try:
        operator, given = task.operator(shape), task.given(shape, len(picked))
    except ValueError as error:
        raise ConfigError(section.task.placed(str(error))) from error
    before = to_user(picked.read(np.arange(len(picked)))["x"], spec)
    measured, seed = measure(model, before, operator, given), seed_of(options)
    noise = np.random.Generator(np.random.PCG64(seed)).standard_normal(measured.shape)
    seen = measured + section.noise_std * noise.astype(np.float32) * (given.get("mask", 1.0) > 0)
    count, title = section.samples, f"edit ({section.task.name}, checkpoint {model.step})"
    with Progress(len(before) * count, title, "sample", quiet=not is_chief()) as progress:
        after = model.posterior(
            seen,
            operator,
            given=given,
            noise_std=section.noise_std,
            method=section.method.name,
            options=section.method.options,
            samples=count,
            seed=seed,
            progress=lambda step: progress.update(0, f"step {step + 1}"),
            **conditions_of(options, model.architecture.conditions),
        )
        progress.update(len(before) * count)
    kept = model.architecture.decode(model.parts, task.shown(seen, given, codec.range[0]))
    mean = np.rint(after.mean(axis=1)).astype(np.uint8)
    spread = np.rint(np.minimum(2.0 * after.std(axis=1), 255.0)).astype(np.uint8)
    if is_chief():
        if output.suffix == ".npz":
            np.savez(output, input=before, measured=seen, samples=after, mean=mean, seed=np.int64(seed))
        else:
            rows = np.concatenate(
                [before[:, None], kept[:, None], after, mean[:, None], spread[:, None]], axis=1
            )
            pictures.grid(rows.reshape(-1, *spec.shape), columns=count + 4).save(output)
    say(
        f"{len(before)} pictures, {count} samples of each by {section.method.name}, in {output}: the input, "
        "what is kept, samples, their mean, twice their standard deviation"
    )
    return 0
