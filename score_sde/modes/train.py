"""``--mode=train``."""

import math
from dataclasses import replace

import jax

from score_sde.data import Late
from score_sde.experiment.assemble import architecture_of, average_of, optimizer_of, task_of
from score_sde.flags import Options
from score_sde.modes.run import workdir_of
from score_sde.runs.extractors import make_extractor
from score_sde.runs.others import open_run
from score_sde.runtime.files import check_writable
from score_sde.runtime.mesh import make_mesh
from score_sde.runtime.processes import is_chief, say
from score_sde.tasks.base import Setting
from score_sde.train import TrainState, fit


def train(options: Options) -> int:
    """Fit a task, or resume from the newest checkpoint of the workdir."""
    config, workdir = options.config, workdir_of(options)
    check_writable(workdir.path, "--workdir")
    source = workdir.source("train")
    held_out = Late(lambda: workdir.source("test"))  # there need be none where nothing measures on it
    spec = source.spec if workdir.spec is None else replace(source.spec, columns=workdir.spec.columns)
    architecture = architecture_of(config, spec)
    # Made before anything is compiled or written: their mistakes are reported first.
    task = task_of(config, architecture, make_extractor(config, workdir.path), open_run)
    optimizer, ema = optimizer_of(config), average_of(config)
    architecture.codec.examine(source)
    mesh = make_mesh(config.mesh.fsdp)

    def begin(shapes: TrainState) -> None:
        if is_chief():
            replace(workdir, spec=spec).save()
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params))
        say(
            f"{type(architecture.sde).__name__} on {len(source)} examples of shape {source.spec.shape}; "
            f"{count / 1e6:.3f} M parameters; {mesh.size} x {jax.devices()[0].device_kind}"
        )

    _, _, finished = fit(
        task,
        Setting(source, held_out, mesh, workdir.path, config.seed),
        optimizer,
        ema,
        config.training,
        placement=config.data.placement,
        num_workers=config.data.num_workers,
        begin=begin,
    )
    if finished:
        say(f"finished: checkpoints, metrics and samples are in {workdir.path}")
    return 0
