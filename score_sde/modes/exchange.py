"""``--mode=import`` and ``--mode=export``: checkpoints of others, and for others."""

from pathlib import Path

from score_sde.convert import load
from score_sde.convert.export import export
from score_sde.convert.workdir import check_free, write
from score_sde.flags import Options
from score_sde.modes.workdir import from_workdir, restore_average, say
from score_sde.names import ConfigError
from score_sde.nets import parameter_count


def import_checkpoint(options: Options) -> int:
    """A released checkpoint as a workdir."""
    if options.checkpoint is None:
        raise ConfigError("--mode=import needs --checkpoint=PATH")
    check_free(options.workdir)
    imported = load(options.checkpoint, options.config)
    write(imported, options.workdir)
    experiment, state = imported.experiment, imported.state
    adam = "with" if imported.moments else "without"
    say(
        f"{imported.what}: {parameter_count(state.params):,} parameters at step {int(state.step)}, {adam} "
        f"the state of Adam, for examples of shape {experiment.spec.shape}; now in {options.workdir}"
    )
    return 0


def export_checkpoint(options: Options) -> int:
    """The averaged parameters of a workdir as a file for others."""
    if options.output is None:
        raise ConfigError("--mode=export needs --output=FILE.safetensors, or a directory for diffusers")
    experiment = from_workdir(options)
    step, _, params = restore_average(options, experiment)
    path = Path(options.output)
    export(path, experiment, params, step)
    say(f"checkpoint {step}: {parameter_count(params):,} averaged parameters in {path}")
    return 0
