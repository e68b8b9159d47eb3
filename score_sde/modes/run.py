"""From the command line to the run and the model that it names."""

from pathlib import Path

from score_sde.conditions import Chosen, Conditions, Value
from score_sde.data import Spec
from score_sde.flags import Options
from score_sde.images import pictures
from score_sde.names import ConfigError
from score_sde.runs.inputs import drawable
from score_sde.runs.model import Model
from score_sde.runs.workdir import Choice, Workdir
from score_sde.runtime.files import check_writable


def workdir_of(options: Options) -> Workdir:
    """The run, with the config of the command line."""
    spec = options.saved.get("spec")
    return Workdir(options.workdir, options.config, None if spec is None else Spec.from_json(spec))


def which_of(options: Options) -> Choice:
    """The checkpoint that is asked for."""
    return Choice(options.step, options.best, options.sigma_rel)


def model_of(options: Options) -> Model:
    """The model of that checkpoint."""
    return Model.of(workdir_of(options), which_of(options))


def seed_of(options: Options) -> int:
    """Root of the noise."""
    return options.config.seed if options.seed is None else options.seed


def conditions_of(options: Options, conditions: Conditions) -> dict[str, Value]:
    """Values of ``--condition`` by name.

    Raises:
      ConfigError: a condition that the model does not take, or a value that it cannot have.
    """
    known, values = dict(conditions), {}
    for word in options.condition:
        name, equals, text = word.partition("=")
        if not equals and conditions:  # a value alone is that of the first
            name, text = conditions[0][0], word
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no condition"
            raise ConfigError(f"--condition={word}: the model {takes}")
        try:
            values[name] = known[name].parse(name, text)
        except ValueError as error:
            raise ConfigError(f"--{error}") from error
    return values


def chosen_of(options: Options, conditions: Conditions) -> Chosen:
    """Conditions of samples: those of the command line, and classes in turn."""
    return Chosen.fixed(conditions, conditions_of(options, conditions))


def output_of(options: Options, default: str, allowed: str, *suffixes: str) -> Path:
    """Where the result goes: ``--output``, or a file of the workdir.

    Args:
      allowed: what the result is, for the message of another suffix.

    Raises:
      ConfigError: another suffix, or a place that cannot be written; said before any work.
    """
    path = options.workdir / default if options.output is None else Path(options.output)
    if path.suffix not in suffixes:
        raise ConfigError(f"--output={path}: {allowed}")
    if path.is_dir():
        raise ConfigError(f"--output={path}: is a folder; name a file")
    check_writable(path)
    return path


def examples_path(options: Options, spec: Spec, name: str) -> Path:
    """Where examples go: ``--output``, or ``samples/<name>`` of the workdir.

    Raises:
      ConfigError, ValueError: it cannot hold them; said before any work.
    """
    default = options.workdir / "samples" / f"{name}{'.png' if drawable(spec) else '.npz'}"
    path = default if options.output is None else Path(options.output)
    pictures.check_output(path)
    if path.suffix != ".npz" and not drawable(spec):
        raise ConfigError(f"--output={path}: examples of shape {spec.shape} are no pictures; use a .npz")
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
