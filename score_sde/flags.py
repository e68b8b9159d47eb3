"""The command line: absl flags, and ml_collections overrides of the config."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from score_sde.experiment.files import SAVED, load_file, load_saved
from score_sde.names import ConfigError, nearest

# Where each is, ``MODULE.FUNCTION`` in ``score_sde.modes``: imported when it is asked for.
MODES = {
    "train": "train.train",
    "sample": "sample.sample",
    "likelihood": "likelihood.likelihood",
    "evaluate": "evaluate.evaluate",
    "stats": "stats.stats",
    "classifier": "classifier.classifier",
    "dequantiser": "dequantiser.dequantiser",
    "report": "report.report",
    "encode": "encode.encode",
    "decode": "decode.decode",
    "interpolate": "interpolate.interpolate",
    "search": "search.search",
    "outliers": "outliers.outliers",
    "import": "exchange.import_checkpoint",
    "export": "exchange.export_checkpoint",
}


def _define() -> flags.FlagValues:
    """The flags besides ``--config``, in a set of their own: parsing twice leaves nothing behind."""
    own = flags.FlagValues()
    flags.DEFINE_enum("mode", None, list(MODES), "What to do.", flag_values=own)
    flags.DEFINE_string(
        "workdir", None, "Where the run lives; default: runs/<config>[-<variant>].", flag_values=own
    )
    flags.DEFINE_integer(
        "num_samples",
        None,
        "sample: how many; default 64. evaluate: generate so many and score them.",
        1,
        flag_values=own,
    )
    flags.DEFINE_string(
        "samples",
        None,
        "evaluate, stats: a folder of pictures, or a .npz or .npy of examples, to use instead of a model's.  "
        "encode, interpolate, search, outliers: such examples, to use instead of the data's.  decode: the "
        ".npz of encode, or a .npy of codes.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "images",
        None,
        "interpolate, search: pictures, with commas between: files, or numbers of examples.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "reference",
        None,
        "evaluate: what to compare with: statistics of --mode=stats, a folder, a .npz or a .npy; "
        "default: config.evaluate.reference, or the data's config.evaluate.split.",
        flag_values=own,
    )
    flags.DEFINE_bool(
        "all_checkpoints", False, "evaluate: score every checkpoint of the run.", flag_values=own
    )
    flags.DEFINE_string(
        "output",
        None,
        "sample: a .png grid, a .npz array, or a directory of PNGs; default: samples/ in the workdir.  "
        "evaluate, stats, classifier, report: the .json, .npz, .npz or .html to write; default: in the "
        "workdir.  encode: the .npz of codes.  decode, interpolate: as sample.  search, outliers: the .png.  "
        "export: a .safetensors file, or a directory for diffusers.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "checkpoint",
        None,
        "import: a released .pth, .pkl, .safetensors or msgpack file, or a folder of diffusers.",
        flag_values=own,
    )
    flags.DEFINE_integer("step", None, "Checkpoint to use; default: the newest.", 0, flag_values=own)
    flags.DEFINE_bool(
        "best",
        False,
        "Use the checkpoint that training has kept as the best (config.training.best_metric).",
        flag_values=own,
    )
    flags.DEFINE_float(
        "sigma_rel",
        None,
        "sample, likelihood, evaluate, report: length of the average, made of the checkpoints of a run with "
        "config.ema.name=power; default: the average that was kept.",
        flag_values=own,
    )
    flags.DEFINE_multi_string(
        "condition",
        [],
        "sample, encode, decode, interpolate: a condition of the model, NAME=VALUE: a class by its number or "
        "name, or numbers with commas between; the name of the first may be left out.  May be repeated.",
        flag_values=own,
    )
    flags.DEFINE_integer(
        "seed",
        None,
        "sample, likelihood, evaluate: root of the noise; default: config.seed.",
        0,
        flag_values=own,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where processes on plain machines share a job; TPU pods and SLURM need only "
        "--config.mesh.distributed=True.",
        flag_values=own,
    )
    flags.DEFINE_integer("num_processes", None, "With --coordinator: how many processes.", 1, flag_values=own)
    flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this is.", 0, flag_values=own)
    flags.DEFINE_string(
        "compile_cache",
        None,
        "Where compiled programs are kept for the next start, or 'none'; default: JAX_COMPILATION_CACHE_DIR, "
        "or score_sde/programs in the user's cache.",
        flag_values=own,
    )
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
    config: Any  # a ConfigDict, whose fields no type checker knows
    saved: dict
    num_samples: int | None = None
    samples: str | None = None
    images: str | None = None
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
    config is that of the workdir.
    """
    words = list(argv[1:])
    if any(re.fullmatch(r"--?(help|helpfull|h)", word) for word in words) or not words:
        print(f"{usage.strip()}\n\nFlags:\n{_define().get_help()}")
        raise SystemExit(0)
    path, words = _take(words, "config")
    workdir, _ = _take(words, "workdir")
    checkpoint = _take(words, "checkpoint")[0] if _take(words, "mode")[0] == "import" else None
    if workdir is None and checkpoint is not None:
        workdir = str(Path("runs") / Path(checkpoint).stem)
    samples, _ = _take(words, "samples")
    standalone = path is None and workdir is None and samples is not None
    if standalone:
        workdir = str(Path("runs") / "evaluate")
    if path is None and workdir is None:
        fail("name a config (--config=configs/vp_digits.py) or a workdir (--workdir=runs/vp_digits)")
    if workdir is None and path is not None:
        workdir = str(Path("runs") / Path(path.partition(":")[0]).stem)
        workdir += f"-{path.partition(':')[2]}" if path.partition(":")[2] else ""
    workdir = str(workdir)
    try:
        saved: dict = {}
        config: Any
        if standalone:
            config = ConfigDict()
        elif path is not None:
            config = load_file(path)
        elif checkpoint is not None:
            from score_sde.convert import config_of

            config = ConfigDict(config_of(checkpoint))
        else:
            config, saved = load_saved(Path(workdir))
        from score_sde.experiment.schema import NAMED, complete  # imports jax

        for word in words:
            match = re.fullmatch(r"--?config\.(\w+)\.name=(.*)", word)
            if match and match[1] in NAMED and config.get(match[1], {}).get("name") != match[2]:
                # The other options belong to the member that was named before.
                config[match[1]] = ConfigDict({"name": match[2]})

        config = complete(config)
    except (ConfigError, FileNotFoundError) as error:
        fail(error)
    except ValueError as error:  # a checkpoint that cannot be read
        if checkpoint is None:
            raise
        fail(error)
    if path is not None and (Path(workdir) / SAVED).is_file():
        saved = load_saved(Path(workdir))[1]
    overrides, own = flags.FlagValues(), _define()
    ours = [word for word in words if re.match(r"--?config\.", word)]
    rest = [word for word in words if word not in ours]
    for word in ours:
        _check_override(word, config)
    try:
        holder = config_flags.DEFINE_config_dict(
            "config", config, flag_values=overrides, sys_argv=[argv[0], *ours]
        )
        overrides([argv[0], *ours])
        left = own([argv[0], *rest])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        fail(error)
    if left:
        fail(f"unexpected {left[0]!r}: fields are set as --config.section.field=value")
    if own.mode is None:
        fail(f"name a mode: --mode={'|'.join(MODES)}")
    given = {name: own[name].value for name in ("coordinator", "num_processes", "process_id")}
    if len({value is None for value in given.values()}) > 1:
        missing = ", ".join(f"--{name}" for name, value in given.items() if value is None)
        fail(f"--coordinator, --num_processes and --process_id belong together; missing: {missing}")
    if own.best and (own.step is not None or own.all_checkpoints):
        fail("--best: leave out --step and --all_checkpoints, which choose other checkpoints")
    if own.process_id is not None and own.process_id >= own.num_processes:
        fail(f"--process_id={own.process_id}: must be below --num_processes={own.num_processes}")
    return Options(
        mode=own.mode,
        workdir=Path(workdir),
        config=holder.value,
        saved=saved,
        num_samples=own.num_samples,
        samples=own.samples,
        images=own.images,
        reference=own.reference,
        all_checkpoints=own.all_checkpoints,
        config_given=path is not None,
        sigma_rel=own.sigma_rel,
        output=own.output,
        step=own.step,
        best=own.best,
        condition=tuple(own.condition),
        seed=own.seed,
        checkpoint=None if own.checkpoint is None else Path(own.checkpoint),
        compile_cache=own.compile_cache,
        **given,
    )


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


def _check_override(word: str, config: Any) -> None:
    name, equals, _ = word.lstrip("-").partition("=")
    if not equals:
        fail(f"{word}: write --{name}=value")
    section = config
    keys = name.split(".")[1:]
    for depth, key in enumerate(keys):
        where = ".".join(["config", *keys[:depth]])
        if not isinstance(section, ConfigDict):
            fail(f"{word}: {where} is a value, it has no fields")
        if key not in section:
            everywhere = {
                f: f"{s}.{f}" for s in config if isinstance(config[s], ConfigDict) for f in config[s]
            }
            hint = nearest(key, section) or (
                f"; did you mean config.{everywhere[key]}?" if key in everywhere else nearest(key, everywhere)
            )
            fail(f"{word}: {where} has no field {key!r}{hint}")
        section = section[key]
    if isinstance(section, ConfigDict):
        fail(f"{word}: {name} is a section; set one of its fields: {', '.join(section)}")
