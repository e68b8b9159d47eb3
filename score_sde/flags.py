"""The command line: absl flags, and ``--config.section.field=value``."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from absl import flags

from score_sde.experiment import values
from score_sde.experiment.files import SAVED, load_file, load_saved
from score_sde.experiment.shorthand import long_forms
from score_sde.names import ConfigError, nearest

if TYPE_CHECKING:  # both import jax, which a mistyped flag does not wait for
    from score_sde.experiment.schema import Config

# The config of a model: what every mode reads that has one.
_MODEL = ("seed", "data", "codec", "sde", "model", "denoiser", "conditions", "mesh", "ema")
_LATENTS = (*_MODEL, "inversion")


class Mode(NamedTuple):
    """A mode.

    Attributes:
      run: where it is, ``MODULE.FUNCTION`` in ``score_sde.modes``: imported when it is asked for.
      sections: of the config that it reads; None: all, for it writes them into a workdir.
    """

    run: str
    sections: tuple[str, ...] | None


MODES: Mapping[str, Mode] = {
    "train": Mode("train.train", None),
    "sample": Mode("sample.sample", (*_MODEL, "sampling")),
    "likelihood": Mode("likelihood.likelihood", (*_MODEL, "likelihood")),
    "evaluate": Mode("evaluate.evaluate", (*_MODEL, "sampling", "evaluate")),
    "stats": Mode("stats.stats", ("data", "evaluate", "mesh")),
    "classifier": Mode("classifier.classifier", ("seed", "data", "classifier", "mesh")),
    "dequantiser": Mode("dequantiser.dequantiser", (*_MODEL, "dequantiser", "likelihood", "training")),
    "report": Mode("report.report", (*_MODEL, "sampling", "training", "loss")),
    "encode": Mode("encode.encode", _LATENTS),
    "decode": Mode("decode.decode", _LATENTS),
    "interpolate": Mode("interpolate.interpolate", _LATENTS),
    "edit": Mode("edit.edit", (*_MODEL, "sampling", "edit")),
    "search": Mode("search.search", (*_LATENTS, "search", "evaluate")),
    "outliers": Mode("outliers.outliers", (*_MODEL, "likelihood", "outliers")),
    "import": Mode("exchange.import_checkpoint", None),
    "export": Mode("exchange.export_checkpoint", (*_MODEL, "sampling")),
}

_ALL = tuple(MODES)
_CHECKPOINT = (
    *("sample", "likelihood", "evaluate", "dequantiser", "report", "encode", "decode", "interpolate"),
    *("edit", "search", "outliers", "export"),
)


class Flag(NamedTuple):
    """A flag.

    Attributes:
      kind: of its value: ``str``, ``int``, ``float`` or ``bool``; ``list`` for one that may be repeated.
      modes: that read it.
      doc: what it does.
      least: the smallest number that it takes.
    """

    kind: type
    modes: tuple[str, ...]
    doc: str
    least: int | None = None


FLAGS: Mapping[str, Flag] = {
    "workdir": Flag(str, _ALL, "Where the run lives; default: runs/<config>[-<variant>]."),
    "num_samples": Flag(
        int,
        ("sample", "evaluate"),
        "sample: how many; default 64. evaluate: generate so many and score them.",
        1,
    ),
    "samples": Flag(
        str,
        ("evaluate", "stats", "encode", "decode", "interpolate", "search", "outliers"),
        "evaluate, stats: a folder of pictures, or a .npz or .npy of examples, to use instead of a model's.  "
        "encode, interpolate, search, outliers: such examples, to use instead of the data's.  decode: the "
        ".npz of encode, or a .npy of latents.",
    ),
    "images": Flag(
        str,
        ("interpolate", "search"),
        "interpolate, search: pictures, with commas between: files, or numbers of examples.",
    ),
    "input": Flag(
        str,
        ("edit",),
        "edit: pictures, with commas between: files, folders, .npz or .npy of pictures, or numbers of "
        "held-out examples; for --task=impute a .csv.",
    ),
    "reference": Flag(
        str,
        ("evaluate",),
        "evaluate: what to compare with: statistics of --mode=stats, a folder, a .npz or a .npy; "
        "default: config.evaluate.reference, or the data's config.evaluate.split.",
    ),
    "all_checkpoints": Flag(bool, ("evaluate",), "evaluate: score every checkpoint of the run."),
    "output": Flag(
        str,
        (
            *("sample", "likelihood", "evaluate", "stats", "classifier", "report", "encode", "decode"),
            *("interpolate", "edit", "search", "outliers", "export"),
        ),
        "sample: a .png grid, a .npz array, or a directory of PNGs; default: samples/ in the workdir.  "
        "likelihood, evaluate, stats, classifier, report: the .json, .json, .npz, .npz or .html to write; "
        "default: in the workdir.  encode: the .npz of latents.  decode, interpolate: as sample.  search, "
        "outliers: the .png.  export: a .safetensors file, or a directory for diffusers.",
    ),
    "checkpoint": Flag(
        str,
        ("import",),
        "import: a released .pth, .pkl, .safetensors or msgpack file, or a folder of diffusers.",
    ),
    "step": Flag(int, _CHECKPOINT, "Checkpoint to use; default: the newest.", 0),
    "best": Flag(
        bool,
        _CHECKPOINT,
        "Use the checkpoint that training has kept as the best (config.training.best_metric).",
    ),
    "sigma_rel": Flag(
        float,
        _CHECKPOINT,
        "Length of the average, made of the checkpoints of a run with config.ema.name=power; default: the "
        "average that was kept.",
    ),
    "condition": Flag(
        list,
        ("sample", "encode", "decode", "interpolate", "edit"),
        "NAME=VALUE, or --NAME=VALUE: a condition of the model: a class by number or name, or numbers with "
        "commas between.  May be repeated.",
    ),
    "seed": Flag(
        int,
        ("sample", "likelihood", "evaluate", "edit", "search", "outliers"),
        "sample, likelihood, evaluate, edit, search, outliers: root of the noise; default: config.seed.",
        0,
    ),
    "coordinator": Flag(
        str,
        _ALL,
        "HOST:PORT of process 0, where processes on plain machines share a job; TPU pods and SLURM need only "
        "--config.mesh.distributed=True.",
    ),
    "num_processes": Flag(int, _ALL, "With --coordinator: how many processes.", 1),
    "process_id": Flag(int, _ALL, "With --coordinator: which of them this is.", 0),
    "compile_cache": Flag(
        str,
        _ALL,
        "Where compiled programs are kept for the next start, or 'none'; default: JAX_COMPILATION_CACHE_DIR, "
        "or score_sde/programs in the user's cache.",
    ),
}


def _define() -> flags.FlagValues:
    """The flags besides ``--config``, in a set of their own: parsing twice leaves nothing behind."""
    own = flags.FlagValues()
    flags.DEFINE_enum("mode", None, list(MODES), "What to do.", flag_values=own)
    for name, flag in FLAGS.items():
        if flag.kind is bool:
            flags.DEFINE_bool(name, False, flag.doc, flag_values=own)
        elif flag.kind is str:
            flags.DEFINE_string(name, None, flag.doc, flag_values=own)
        elif flag.kind is list:
            flags.DEFINE_multi_string(name, [], flag.doc, flag_values=own)
        else:
            define = flags.DEFINE_integer if flag.kind is int else flags.DEFINE_float
            define(name, None, flag.doc, flag.least, flag_values=own)
    return own


@dataclass(frozen=True)
class Options:
    """A parsed command line.

    Attributes:
      config: complete.
      saved: what the workdir remembers beside the config; empty for a new one.
      config_given: whether the command line names a config file.
    """

    mode: str
    workdir: Path
    config: "Config"
    saved: dict[str, Any]
    num_samples: int | None = None
    samples: str | None = None
    images: str | None = None
    input: str | None = None
    reference: str | None = None
    all_checkpoints: bool = False
    config_given: bool = False
    sigma_rel: float | None = None
    output: str | None = None
    step: int | None = None
    best: bool = False
    condition: tuple[str, ...] = ()
    seed: int | None = None
    checkpoint: Path | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    compile_cache: str | None = None


def fail(message: object) -> NoReturn:
    """Say what is wrong on stderr and exit with status 2."""
    print(f"run.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def parse(argv: Sequence[str], usage: str) -> Options:
    """Parse the command line; prints and exits on ``--help`` and on a mistake.

    ``--config`` names a file, and ``--config.a.b=value`` overrides one of its fields.  Without a file the
    config is that of the workdir.  The flags are checked first: their mistakes are reported first.
    """
    words = list(argv[1:])
    if any(re.fullmatch(r"--?(help|helpfull|h)", word) for word in words) or not words:
        print(f"{usage.strip()}\n\nFlags:\n{_define().get_help()}")
        raise SystemExit(0)
    path, words = _take(words, "config")
    words = [long for word in words for long in long_forms(word)]
    overrides = [word for word in words if re.match(r"--?config\.", word)]
    named = [word for word in words if _condition(word)]
    own = _parse_flags([word for word in words if word not in (*overrides, *named)], argv[0])
    changes = dict(map(_override, overrides))
    place = _place(path, own)
    try:
        raw, saved = _raw_config(path, place, own)
        if named:  # before the config, which takes seconds where there is no mistake
            changed = changes.get("conditions.names")
            kept = raw.get("conditions", {}).get("names", ())
            known: Any = kept if changed is None else values.read(changed, tuple[str, ...])
            own.condition = [*own.condition, *_conditions(named, tuple(known), own.mode)]
        config = _config(raw, changes, own.mode, written=path is not None)
        if path is not None and (place / SAVED).is_file():
            saved = load_saved(place)[1]
    except (ConfigError, FileNotFoundError) as error:
        fail(error)
    except ValueError as error:  # a checkpoint that cannot be read
        if own.checkpoint is None:
            raise
        fail(error)
    given: dict[str, Any] = {name: own[name].value for name in FLAGS if name not in ("workdir", "checkpoint")}
    given["condition"] = tuple(own.condition)
    checkpoint = None if own.checkpoint is None else Path(own.checkpoint)
    return Options(
        mode=own.mode,
        workdir=place,
        config=config,
        saved=saved,
        config_given=path is not None,
        checkpoint=checkpoint,
        **given,
    )


def _condition(word: str) -> tuple[str, str] | None:
    """Name and value of ``--NAME=VALUE`` where no flag has that name: perhaps a condition of the model."""
    match = re.fullmatch(r"--?(\w+)=(.*)", word, re.DOTALL)
    if match is None or match[1] in FLAGS or match[1].removeprefix("no") in FLAGS or match[1] == "mode":
        return None
    return match[1], match[2]


def _conditions(words: Sequence[str], known: tuple[str, ...], mode: str) -> list[str]:
    """``NAME=VALUE`` of words that name ``known`` conditions of the model; others are no flags at all."""
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if name not in known:
            takes = ", ".join(known) or "no condition"
            near = nearest(name, [*FLAGS, "mode", *known])
            fail(f"{word}: there is no such flag, and the model takes {takes}{near}; see --help")
        if mode not in FLAGS["condition"].modes:
            readers = ", ".join(FLAGS["condition"].modes)
            fail(f"{word}: --mode={mode} does not read it; it is for {readers}")
    return [word.lstrip("-") for word in words]


def _parse_flags(words: Sequence[str], program: str) -> flags.FlagValues:
    """The flags beside those of the config, refused where they contradict each other or the mode."""
    own = _define()
    try:
        left = own([program, *words])[1:]
    except flags.Error as error:
        fail(error)
    if left:
        fail(f"unexpected {left[0]!r}: fields are set as --config.section.field=value")
    if own.mode is None:
        fail(f"name a mode: --mode={'|'.join(MODES)}")
    for name, flag in FLAGS.items():
        if own[name].present and own.mode not in flag.modes:
            fail(
                f"--{name}={own[name].value}: --mode={own.mode} does not read it; it is for "
                f"{', '.join(flag.modes)}"
            )
    given = {name: own[name].value for name in ("coordinator", "num_processes", "process_id")}
    if len({value is None for value in given.values()}) > 1:
        missing = ", ".join(f"--{name}" for name, value in given.items() if value is None)
        fail(f"--coordinator, --num_processes and --process_id belong together; missing: {missing}")
    if own.best and (own.step is not None or own.all_checkpoints):
        fail("--best: leave out --step and --all_checkpoints, which choose other checkpoints")
    if own.process_id is not None and own.process_id >= own.num_processes:
        fail(f"--process_id={own.process_id}: must be below --num_processes={own.num_processes}")
    return own


def _place(path: str | None, own: flags.FlagValues) -> Path:
    """The workdir: as given, or named after what is given."""
    if own.workdir is not None:
        return Path(own.workdir)
    if own.checkpoint is not None:
        return Path("runs") / Path(own.checkpoint).stem
    if path is not None:
        name, _, variant = path.partition(":")
        return Path("runs") / (Path(name).stem + (f"-{variant}" if variant else ""))
    if own.samples is not None:
        return Path("runs") / "evaluate"
    fail("name a config (--config=configs/vp_digits.py) or a workdir (--workdir=runs/vp_digits)")


def _raw_config(path: str | None, place: Path, own: flags.FlagValues) -> tuple[Any, dict[str, Any]]:
    """The config before the changes of the command line, and what the workdir has saved with it."""
    if path is not None:
        return load_file(path), {}
    if own.checkpoint is not None:
        from score_sde.convert import config_of

        return config_of(own.checkpoint), {}
    if own.workdir is None and own.samples is not None:
        return {}, {}
    return load_saved(place)


def _config(raw: Any, changes: Mapping[str, str], mode: str, written: bool) -> "Config":
    """The typed config after changes; what is set in a file that was ``written``, or here, must be read.

    Raises:
      ConfigError: a mistake in the config or in a change.
    """
    from score_sde.experiment.schema import override  # imports jax

    sections = MODES[mode].sections
    for name in changes:
        section = name.partition(".")[0]
        if sections is not None and section in _SECTIONS and section not in sections:
            readers = [m for m, entry in MODES.items() if entry.sections is None or section in entry.sections]
            raise ConfigError(
                f"--config.{name}={changes[name]}: --mode={mode} does not read config.{section}; it is for "
                f"{', '.join(readers)}"
            )
    return override(raw, changes, written=written)


# Every section that some mode reads, or only training.
_SECTIONS = {
    *(section for mode in MODES.values() for section in mode.sections or ()),
    *("task", "loss", "optimizer", "training"),
}


def _take(words: list[str], name: str) -> tuple[str | None, list[str]]:
    """The value of ``--name=value`` or ``--name value``, and the other words."""
    value, rest, i = None, [], 0
    while i < len(words):
        match = re.fullmatch(rf"--?{name}(?:=(.*))?", words[i], re.DOTALL)
        if match is None:
            rest.append(words[i])
        elif match[1] is not None:
            value = match[1]
        elif i + 1 < len(words):
            i += 1
            value = words[i]
        else:
            fail(f"--{name} needs a value")
        i += 1
    return value, rest


def _override(word: str) -> tuple[str, str]:
    """The path and the text of ``--config.path=text``."""
    name, equals, text = word.lstrip("-").partition("=")
    if not equals:
        fail(f"{word}: write --{name}=value")
    return name.partition(".")[2], text
