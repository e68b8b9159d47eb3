"""``--mode=import`` and ``--mode=export``: checkpoints of others, and for others."""

from pathlib import Path

from score_sde.convert import load
from score_sde.convert.export import export
from score_sde.convert.workdir import check_free, write
from score_sde.flags import Options
from score_sde.modes.run import model_of
from score_sde.names import ConfigError
from score_sde.nets import parameter_count
from score_sde.runtime.files import check_writable
from score_sde.runtime.processes import say


def import_checkpoint(options: Options) -> int:
    """A released checkpoint as a workdir."""
    if options.checkpoint is None:
        raise ConfigError("--mode=import needs --checkpoint=PATH")
    check_writable(options.workdir, "--workdir")
    check_free(options.workdir)
    imported = load(options.checkpoint, options.config)
    write(imported, options.workdir)
    state, shape = imported.state, imported.architecture.spec.shape
    adam = "with" if imported.moments else "without"
    say(
        f"{imported.what}: {parameter_count(state.params):,} parameters at step {int(state.step)}, {adam} "
        f"the state of Adam, for examples of shape {shape}; now in {options.workdir}"
    )
    return 0


def export_checkpoint(options: Options) -> int:
    """The averaged parameters of a workdir as a file for others."""
    if options.output is None:
        raise ConfigError("--mode=export needs --output=FILE.safetensors, or a directory for diffusers")
    path = Path(options.output)
    check_writable(path)
    model = model_of(options)
    export(path, model.config, model.architecture, model.parts, model.step)
    count = parameter_count(model.parts["net"])
    say(f"checkpoint {model.step}: {count:,} averaged parameters in {path}")
    return 0
