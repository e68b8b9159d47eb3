"""The commands and Python of the documentation, and a place that looks like a clone in which they run.

What is run is the text of the pages, never a copy of it.  It is made short by what a reader does not see: the
clone's configs are those of the repository with a few values replaced (``SHRUNK``), and its data, files and
folders are small stand-ins with the names that the pages give them.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import sys
import traceback
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from score_sde import cli
from score_sde.data import Spec
from score_sde.data.csv_file import Cells, read_cells, write_cells
from score_sde.experiment.assemble import architecture_of
from score_sde.experiment.files import load_file
from score_sde.experiment.schema import changed, complete, typed
from score_sde.experiment.sections import as_tree
from score_sde.flags import parse
from tests.conftest import ROOT

PAGES = ["README.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))]

# --- what makes it short ---------------------------------------------------------------------------

SHRUNK = {
    "model.nf": 4,
    "model.ch_mult": (1,),
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (),
    "optimizer.warmup_steps": 2,
    "optimizer.decay_steps": 0,
    "training.steps": 4,
    "training.batch_size": 16,
    "training.steps_per_dispatch": 1,
    "training.checkpoint_every_steps": 2,
    "training.log_every_steps": 2,
    "training.eval_every_steps": 4,
    "training.eval_examples": 16,
    "training.sample_every_steps": 4,
    "training.sample_count": 4,
    "sampling.steps": 3,
    "sampling.batch_size": 64,
    "likelihood.integrator.rtol": 0.1,
    "likelihood.integrator.atol": 0.1,
    "likelihood.num_examples": 16,
    "likelihood.vlb.draws": 2,
    "evaluate.noise_levels": 4,
    "evaluate.frechet.bootstrap": 2,
    "evaluate.kid.subsets": 2,
    "inversion.transport.rtol": 0.1,
    "inversion.transport.atol": 0.1,
    "inversion.num_examples": 16,
    "search.num_examples": 32,
    "outliers.num_examples": 16,
    "classifier.steps": 4,
    "classifier.batch_size": 16,
    "dequantiser.steps": 4,
    "dequantiser.batch_size": 16,
}
UNMEASURED = {"training.eval_every_steps": 0, "training.sample_every_steps": 0, "training.best_metric": ""}
MODEL = "model."  # of these fields only those that the config sets itself: networks differ in them
MOST_SAMPLES = 64  # that one command draws
MOST_SIDE = 16  # pixels of the pictures that a config asks for


def shrunk(file: str, variant: str, measured: bool = True) -> ConfigDict:
    """A config of the repository, small; without what is measured during training, if not ``measured``."""
    raw = load_file(f"{file}:{variant}")
    config = typed(raw)
    tree, changes = as_tree(config), {}
    for path, value in SHRUNK.items():
        if _has(raw if path.startswith(MODEL) else tree, path):
            changes[path] = value
    if config.sampling.solver.options.get("predictor", "none") != "none":
        changes["sampling.solver.corrector"] = (
            "none"  # its step divides by a score that is zero in a new network
        )
    if config.model.name.startswith("ddpm"):
        changes["model.nf"] = 32  # it normalises in 32 groups
    if config.data.source.name == "tfds":
        changes |= {"data.source": "folder", "data.source.path": "DIR", "data.source.size": 8}
    elif config.data.source.options.get("size"):
        changes["data.source.size"] = min(config.data.source.options["size"], MOST_SIDE)
    return complete(as_tree(changed(config, changes | ({} if measured else UNMEASURED))))


def _has(tree: Mapping, path: str) -> bool:
    first, _, rest = path.partition(".")
    return first in tree and (not rest or _has(tree[first], rest))


_CONFIG = """from tests.documentation import shrunk


def get_config(variant=""):
    return shrunk({file!r}, variant, {measured})
"""

# --- what is not run -------------------------------------------------------------------------------

# A pattern of a command, and why it is not run.
SKIPPED = {
    r"^python3 -m venv": "makes an environment",
    r"^(\.venv/bin/)?pip install": "installs packages",
    r"^source ": "enters an environment",
    r"^(\.venv/bin/)?python -m pytest": "is the suite itself",
    r"^srun ": "needs SLURM",
    r"^gcloud ": "needs a TPU pod",
    r"--coordinator=": "needs a second process that runs meanwhile; tests/cli/test_processes.py has two",
    r"experiments/imputation/data\.py": "needs the packages whose data it takes",
    r"--config\.data\.source=tfds": "needs a prepared data set; tests/data_sources/test_tfds.py has one",
    r"--config\.evaluate\.features\.weights=FILE": "needs Inception's weights",
    r"run\.py \.\.\.$": "stands for any command",
}
if not Path("/usr/share/datasets/fashion-mnist").is_dir():
    SKIPPED[r"_fashion\.py|=runs/fashion"] = "needs Fashion-MNIST, which is not where its package puts it"

# Options that a page shows without a command: the command that they belong to.
COMMANDS = {
    "docs/data.md": "python run.py --config=configs/vp_digits.py --mode=train --workdir=runs/line_{line} "
    "--config.codec.dequantize=False",
    "docs/import.md": "python run.py --mode=train --workdir=runs/line_{line}",
    "docs/evaluation.md": "python run.py --mode=evaluate --workdir=runs/digits --num_samples=1500",
    "docs/likelihood.md": "python run.py --mode=likelihood --workdir=runs/digits",
}


def released(folder: Path) -> None:
    """A checkpoint as the official code writes it, of the clone's ``vp_cifar.py``."""
    from tests.convert.official_names import state_dict
    from tests.convert.torch_writer import Tensor, save_zip

    config = typed(load_file(str(folder / "configs" / "vp_cifar.py")))
    architecture = architecture_of(config, Spec((32, 32, 3), 256))
    net = architecture.init(jax.random.key(0))["net"]
    arrays = state_dict(architecture.net, (32, 32, 3), net)
    tensors = OrderedDict((f"module.{name}", Tensor.of(array)) for name, array in arrays.items())
    tensors["module.sigmas"] = Tensor.of(np.geomspace(50, 0.01, 1000))
    average = {"decay": 0.9999, "num_updates": 3, "shadow_params": list(map(Tensor.of, arrays.values()))}
    group = {"lr": np.float64(2e-4), "betas": (0.9, 0.999), "eps": 1e-8, "params": list(range(len(arrays)))}
    optimizer = {"state": {}, "param_groups": [group]}
    value = {"optimizer": optimizer, "model": tensors, "ema": average, "step": 3}
    save_zip(folder / "checkpoint_8.pth", value)


# What a reader of a page has from elsewhere: commands, or a function that makes it.
BEFORE: dict[str, list[str | Callable[[Path], None]]] = {
    "README.md": [released],
    "docs/import.md": [
        "python run.py --config=configs/vp_cifar.py:ddpm_discrete --mode=train --workdir=runs/ddpm "
        "--config.model.up_attention=block",
        "python run.py --config=configs/ve_cifar.py --mode=train --workdir=runs/ve",
        released,
    ],
    "docs/inverse.md": ["python run.py --config=configs/vp_cifar.py --mode=train --workdir=runs/vp_cifar"],
    "docs/scale.md": ["python run.py --config=configs/vp_cifar.py --mode=train --workdir=runs/vp_cifar"],
}


def skipped(command: list[str]) -> list[str]:
    """The patterns that leave a command out."""
    return [pattern for pattern in SKIPPED if re.search(pattern, " ".join(command))]


# --- the pages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
      line: of its first line, from 1.
      language: "bash", "python", "options" (of a command that is not shown) or "text".
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each simple command, in order."""
        text = self.text.replace("\\\n", " ")
        if self.language == "options":
            text = COMMANDS.get(self.page, "").format(line=self.line) + " " + text
        found: list[list[str]] = []
        for line in text.splitlines() if self.language in ("bash", "options") else []:
            words = [[]]
            for word in shlex.split(line, comments=True):
                words.append([]) if word == "&&" else words[-1].append(word)
            found += [one for one in words if one]
        return found


_COMMAND = re.compile(r"(\w+=\S+ )*(python3?|\.venv/\S+|pip|source|srun|gcloud|mkdocs|#SBATCH)\b")
_PYTHON = re.compile(r"(from [\w.]+ import|import \w|@\w|class \w|def \w)", re.MULTILINE)


def guess(text: str) -> str:
    """The language of an indented block."""
    if re.match(r"--\w", text):
        return "options"
    if _COMMAND.match(text):
        return "bash"
    return "python" if _PYTHON.search(text) else "text"


def blocks(page: str, text: str) -> Iterator[Block]:
    """The fenced blocks, and the indented ones that belong to no list."""
    lines, i, listed = text.splitlines(), 0, False
    while i < len(lines):
        line = lines[i]
        fence = re.match(r"( *)(```+|~~~+)(\w*)", line)
        if fence:
            end = next(j for j in range(i + 1, len(lines)) if lines[j].strip() == fence[2])
            body = [row.removeprefix(fence[1]) for row in lines[i + 1 : end]]
            yield Block(page, i + 2, fence[3] or "text", "\n".join(body))
            i = end + 1
            continue
        if line.startswith("    ") and not listed and (i == 0 or not lines[i - 1].strip()):
            end = i
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith("    ")):
                end += 1
            body = "\n".join(row[4:] for row in lines[i:end]).rstrip()
            yield Block(page, i + 1, guess(body), body)
            i = end
            continue
        if line.strip() and not line.startswith(" "):
            listed = bool(re.match(r"([-*+]|\d+\.|!!!|\?\?\?) ", line))
        i += 1


def read(page: str) -> list[Block]:
    """The blocks of a page."""
    return list(blocks(page, (ROOT / page).read_text(encoding="utf-8")))


# --- the clone -------------------------------------------------------------------------------------

_OWN = {".git", ".venv", "configs", "docs", "runs"}  # not shared with the repository, or made small


def make_clone(folder: Path, measured: bool = True) -> Path:
    """A folder in which the pages' commands run, and which they may fill; for ``measured`` see ``shrunk``."""
    for path in ROOT.iterdir():
        if path.name not in _OWN and not path.name.endswith(".egg-info"):
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", folder / "docs")
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        (folder / "configs" / path.name).write_text(_CONFIG.format(file=str(path), measured=measured))
    _fill(folder)
    return folder


def _fill(folder: Path) -> None:
    """The reader's own data, with the names that the pages give them."""
    rng = np.random.default_rng(0)

    def write(path: Path, size: int = 12) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(path)

    for split, count in (("train", 24), ("test", 16)):
        for i in range(count):
            write(folder / "DIR" / split / "ab"[i % 2] / f"{i}.png")
    for name in ("A", "B", "FOLDER"):
        for i in range(24):
            write(folder / name / f"{i}.png", 8)
    for name in ("five.png", "query.png"):
        write(folder / name, 8)
    _fill_tables(folder)
    np.savez(folder / "signals.npz", x=rng.standard_normal((64, 32)).astype(np.float32))


def _fill_tables(folder: Path) -> None:
    """Tables and series, with and without holes."""
    cells = read_cells("sklearn:breast_cancer", "breast cancer")
    write_cells(folder / "mine.csv", Cells(cells.header, cells.rows[:60]))
    write_cells(folder / "holes.csv", Cells(cells.header, [["", *row[1:-1], ""] for row in cells.rows[:2]]))
    hours = [[f"{50 + 10 * np.sin(0.26 * t):.1f}", f"{60 + 8 * np.cos(0.26 * t):.1f}"] for t in range(400)]
    header = ["seattle", "san_francisco"]
    (folder / "data").mkdir()
    write_cells(folder / "data" / "temperatures.csv", Cells(header, hours))
    write_cells(folder / "gaps.csv", Cells(header, [["", row[1]] for row in hours[:50]]))


@contextlib.contextmanager
def tables_as_they_are() -> Iterator[None]:
    """Take back what a page adds to the package's tables."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "score_sde"]
    found = [t for m in modules for key, t in vars(m).items() if key.isupper() and isinstance(t, dict)]
    before = [dict(table) for table in found]
    try:
        yield
    finally:
        for table, was in zip(found, before, strict=True):
            table.clear()
            table.update(was)


class Reader:
    """Somebody who types what a page says, in one folder and one Python process.

    Attributes:
      failures: what went wrong: where, the text, and the message.
    """

    def __init__(self, folder: Path):
        self.folder, self.failures = folder, []
        self._module = types.ModuleType("a_page")

    def follow(self, page: str) -> None:
        """All blocks of a page, from top to bottom."""
        sys.modules[self._module.__name__] = self._module  # classes are looked up in their module
        with contextlib.chdir(self.folder), tables_as_they_are():
            for made in BEFORE.get(page, ()):
                if callable(made):
                    self._try(f"before {page}", made.__name__, lambda make=made: make(self.folder))
                else:
                    self._try(f"before {page}", made, lambda text=made: self.type(shlex.split(text)))
            for block in read(page):
                if block.language == "python":
                    self._try(block.where, block.text, lambda block=block: self.execute(block))
                for words in block.commands():
                    if not skipped(words):
                        self._try(block.where, " ".join(words), lambda words=words: self.type(words))
        del sys.modules[self._module.__name__]

    def execute(self, block: Block) -> None:
        """A block of Python, after those before it."""
        text = "\n" * (block.line - 1) + block.text
        exec(compile(text, str(ROOT / block.page), "exec"), vars(self._module))

    def type(self, words: list[str]) -> None:
        """A command.

        Raises:
          ValueError: one that nothing here can run, and that ``SKIPPED`` does not name.
        """
        count = next(i for i, word in enumerate(words) if not re.match(r"\w+=", word))
        python, *words = words[count:]
        if python not in ("python", ".venv/bin/python") or not words[0].endswith(".py"):
            raise ValueError(f"not run: {python} {' '.join(words)}")
        if words[0] == "run.py":
            given = [self._cap(word) for word in words]
            status = cli.run(parse(given, "usage"))
        else:
            status = self._script(words)
        if status:
            raise ValueError(f"exit status {status}")

    def _cap(self, word: str) -> str:
        name, _, value = word.partition("=")
        return f"{name}={min(int(value), MOST_SAMPLES)}" if name == "--num_samples" else word

    def _script(self, words: list[str]) -> int:
        argv, path, modules = sys.argv, list(sys.path), set(sys.modules)
        sys.argv, sys.path[:0] = words, [str((self.folder / words[0]).resolve().parent)]
        try:
            runpy.run_path(words[0], run_name="__main__")
        finally:
            sys.argv, sys.path[:] = argv, path
            for name in set(sys.modules) - modules:  # files beside the script
                if "." not in name and str(ROOT / "experiments") in str(sys.modules[name]):
                    del sys.modules[name]
        return 0

    def _try(self, where: str, text: str, action: Callable[[], object]) -> None:
        said = io.StringIO()
        environment = dict(os.environ)
        try:
            with contextlib.redirect_stderr(said):
                action()
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and not error.code:
                return
            trace = "" if isinstance(error, SystemExit) else traceback.format_exc(limit=-3)
            self.failures.append(f"{where}\n{text}\n{said.getvalue().strip()[-2000:]}\n{trace}")
        finally:
            os.environ.clear()
            os.environ.update(environment)
