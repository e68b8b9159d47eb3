"""The layering and the habits that CONTRIBUTING.md promises, read off the source."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from score_sde.nets import NETS
from score_sde.sde import SDES
from score_sde.solvers import SOLVERS
from score_sde.tasks import TASKS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "score_sde"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]

# A file or package directly in score_sde imports only from lines above its own.
LAYERS = [
    {"arrays"},
    {"conditions", "cpu", "images", "names", "runtime"},
    {"data", "integrate", "sde"},
    {"codecs", "denoiser"},
    {"guidance", "losses", "nets", "solvers"},
    {"architecture"},
    {"likelihood", "sampling"},
    {"inverse", "inversion"},
    {"evaluate"},
    {"tasks"},
    {"train"},
    {"experiment"},
    {"convert"},
    {"runs"},
    {"__init__", "report"},
    {"flags"},
    {"modes"},
    {"cli"},
]

# Libraries that few files may know: the rest is not touched when one of them changes.
OWNERS = {
    "diffrax": {"integrate/"},
    "flax": {"nets/"},
    "grain": {"data/"},
    "matplotlib": {"images/charts.py"},
    "msgpack": {"convert/flax_files.py"},
    "ml_collections": {"experiment/", "flags.py"},
    "optax": {"experiment/", "tasks/classifier.py", "train/"},
    "orbax": {"train/checkpoint.py"},
    "PIL": {"data/", "evaluate/resize.py", "images/", "report/page.py"},
    "rich": {"runtime/progress.py"},
    "safetensors": {"convert/safetensors.py"},
    "sklearn": {"data/"},
    "tensorboardX": {"train/log.py"},
    "tensorflow": set(),
    "tensorflow_datasets": {"data/"},
    "torch": set(),
}

MAX_LINES = 400
MAX_FUNCTION = 60  # lines, its docstring among them
MAX_ANY = 225  # in all: a type that says nothing
VAGUE = {"common", "helper", "helpers", "misc", "util", "utils"}


@functools.cache
def parsed(source: str) -> ast.Module:
    """The tree of a file, parsed once for all checks."""
    return ast.parse(source)


def imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[str]:
    """Full names of the modules that a file imports anywhere, ``package`` being the one it is in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(name: str, source: str) -> list[str]:
    """Full names of the modules that a file of the package imports."""
    package = ("score_sde", *Path(name).parts[:-1])
    return sorted(set(imported(parsed(source), package)))


def unit(name: str) -> str:
    """The file or package of ``LAYERS`` that a file belongs to."""
    return Path(name).parts[0].removesuffix(".py")


def level(name: str) -> int | None:
    """Index in ``LAYERS``; None for what is not there."""
    return next((i for i, layer in enumerate(LAYERS) if name in layer), None)


def upward(name: str, source: str) -> list[str]:
    """Imports of a file that do not point to a lower layer or into its own package."""
    wrong, here = [], level(unit(name))
    for target in imports_of(name, source):
        parts = target.split(".")
        if parts[0] != "score_sde" or len(parts) < 2 or parts[1] == unit(name):
            continue
        there = level(parts[1])
        if here is None or there is None or there >= here:
            wrong.append(target)
    return wrong


def trespasses(name: str, source: str) -> list[str]:
    """Imports of libraries that belong to other files."""
    return [
        target
        for target in imports_of(name, source)
        for library in [target.split(".")[0]]
        if library in OWNERS
        and not any(name == o or (o.endswith("/") and name.startswith(o)) for o in OWNERS[library])
    ]


def undocumented(source: str) -> list[str]:
    """The module, public functions and public classes without a docstring."""
    tree = parsed(source)
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    missing = [node.name for node in public if not ast.get_docstring(node)]
    return missing if ast.get_docstring(tree) else ["the module", *missing]


@functools.cache
def modules_after(statement: str) -> frozenset[str]:
    """Top-level modules that a fresh interpreter looks for while it runs ``statement``, found or not."""
    program = (
        "import sys\n"
        "looked = set()\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        looked.add(name.partition('.')[0])\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"{statement}\n"
        "print(*sorted(looked))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return frozenset(result.stdout.split())


# --- the package -----------------------------------------------------------------------------------


def test_every_file_has_a_layer():
    units = {unit(name) for name in NAMES}
    placed = [name for layer in LAYERS for name in layer]
    assert len(placed) == len(set(placed))
    assert units == set(placed), "place a new file in LAYERS; take a removed one out"


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_downward(name):
    assert upward(name, (PACKAGE / name).read_text()) == []


@pytest.mark.parametrize("name", NAMES)
def test_libraries_stay_with_their_owners(name):
    assert trespasses(name, (PACKAGE / name).read_text()) == []


@pytest.mark.parametrize("name", NAMES)
def test_files_are_short(name):
    lines = len((PACKAGE / name).read_text().splitlines())
    assert lines <= MAX_LINES, f"{name} has {lines} lines; split it by what its parts are about"


def long_functions(source: str) -> list[str]:
    """Functions of more than ``MAX_FUNCTION`` lines."""
    return [
        node.name
        for node in ast.walk(parsed(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= MAX_FUNCTION
    ]


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_short(name):
    assert long_functions((PACKAGE / name).read_text()) == []


def any_types(source: str) -> int:
    """How often a file says ``Any``."""
    tree = parsed(source)
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


def test_types_say_something():
    assert sum(any_types(path.read_text()) for path in FILES) <= MAX_ANY


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_is_documented(name):
    assert undocumented((PACKAGE / name).read_text()) == []


@pytest.mark.parametrize("name", NAMES)
def test_names_say_something(name):
    assert VAGUE.isdisjoint(part.removesuffix(".py") for part in Path(name).parts)


def test_flags_are_parsed_before_anything_heavy_is_imported():
    """``--help`` and a mistyped flag answer at once."""
    assert modules_after("import score_sde, score_sde.flags").isdisjoint({"flax", "grain", "jax", "orbax"})


# Names of conditions belong to the data that have them, and to the files of others.
NAME_CONDITIONS = ("conditions.py", "data/", "nets/edm_names.py", "nets/diffusers_names.py")
FIELD = "label_key"  # of an array file's config: the name of an array, as it happens the same


def names_of_conditions(name: str, source: str) -> list[str]:
    """Conditions that a file calls by their name, other than as the default of a source's field."""
    if any(name == place or (place.endswith("/") and name.startswith(place)) for place in NAME_CONDITIONS):
        return []
    tree = parsed(source)
    keys = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == FIELD
    }
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in keys]
    return [node.value for node in strings if node.value in ("label", "augment")]


@pytest.mark.parametrize("name", NAMES)
def test_no_condition_is_named_outside_the_data(name):
    assert names_of_conditions(name, (PACKAGE / name).read_text()) == []


# The command line's options go no further than the modes; the loader's and Orbax's are others.
OPTIONS_OF_THE_COMMAND_LINE = ("cli.py", "flags.py", "modes/")


@pytest.mark.parametrize("name", NAMES)
def test_the_options_of_the_command_line_stay_in_the_modes(name):
    imports = imports_of(name, (PACKAGE / name).read_text())
    assert name.startswith(OPTIONS_OF_THE_COMMAND_LINE) or "score_sde.flags.Options" not in imports


# Who may call a member of a table by its name.
OWNERS_OF_NAMES = {
    "nets": ("nets/", "convert/"),
    "tasks": ("tasks/",),
}


def members_named(name: str, source: str) -> list[str]:
    """Networks and tasks that a file calls by their name, which only the owners may."""
    found = {node.value for node in ast.walk(parsed(source)) if isinstance(node, ast.Constant)}
    tables = {"nets": set(NETS) - set(SDES) - set(SOLVERS), "tasks": set(TASKS)}  # "ddpm" is all three
    return sorted(
        member
        for folder, table in tables.items()
        for member in table & found
        if not name.startswith(OWNERS_OF_NAMES[folder])
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_network_and_no_task_is_named_outside_its_folder(name):
    assert members_named(name, (PACKAGE / name).read_text()) == []


ALL_MODES = "from score_sde import cli, flags, modes; [modes.find(mode) for mode in flags.MODES]"


def test_the_command_line_needs_neither_tensorflow_nor_torch():
    seen = modules_after(ALL_MODES)
    assert {"jax", "orbax"} <= seen  # the watcher watches
    assert seen.isdisjoint({"tensorflow", "torch"})


def test_libraries_wait_until_they_are_used():
    assert modules_after(ALL_MODES).isdisjoint({"diffrax", "matplotlib", "sklearn", "tensorflow_datasets"})


# --- each check can fail ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("sde/base.py", "from score_sde.solvers import PC", ["score_sde.solvers.PC"]),
        ("losses/times.py", "import score_sde.nets", ["score_sde.nets"]),  # a sibling
        ("denoiser.py", "from score_sde import train", ["score_sde.train"]),
        ("solvers/pc.py", "from ..sampling import sample", ["score_sde.sampling.sample"]),
        ("data/base.py", "def f():\n    import score_sde.nets", ["score_sde.nets"]),
        ("flags.py", "from score_sde.cli import run", ["score_sde.cli.run"]),
        ("novelty.py", "from score_sde.sde import SDE", ["score_sde.sde.SDE"]),  # in no layer
        ("sde/base.py", "from score_sde.sde.gaussian import VP", []),
        ("sde/base.py", "from score_sde.arrays import expand", []),
        ("cli.py", "from score_sde import __version__", ["score_sde.__version__"]),
    ],
)
def test_an_upward_import_is_found(name, source, wrong):
    assert upward(name, source) == wrong


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("sampling/draw.py", "import flax.linen as nn", ["flax.linen"]),
        ("train/loop.py", "import orbax.checkpoint", ["orbax.checkpoint"]),
        ("train/checkpoint.py", "import orbax.checkpoint", []),
        ("likelihood/bounds.py", "def f():\n    from diffrax import Tsit5", ["diffrax.Tsit5"]),
        ("sampling/draw.py", "from ml_collections import ConfigDict", ["ml_collections.ConfigDict"]),
        ("data/tfds.py", "import tensorflow as tf", ["tensorflow"]),
        ("data/tfds.py", "import tensorflow_datasets as tfds", []),
        ("nets/layers.py", "import torch.nn", ["torch.nn"]),
    ],
)
def test_a_trespass_is_found(name, source, wrong):
    assert trespasses(name, source) == wrong


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("sampling/draw.py", 'cond = {"label": 3}', ["label"]),
        ("nets/unets/adm.py", "h = cond.get('augment')", ["augment"]),
        ("data/digits.py", 'batch = {"label": 3}', []),
        ("experiment/schema.py", 'data = {"label_key": "label", "key": "x"}', []),
        ("images/charts.py", "def draw(x_label): ...", []),
    ],
)
def test_a_named_condition_is_found(name, source, wrong):
    assert names_of_conditions(name, source) == wrong


def test_missing_docstrings_are_found():
    source = "class A:\n    pass\ndef f():\n    pass\ndef _g():\n    pass\n"
    assert undocumented(source) == ["the module", "A", "f"]
    assert undocumented('"""Good."""\nclass A:\n    """Good."""\n') == []


def test_the_watcher_sees_what_is_not_installed():
    statement = "try:\n    import no_such_module\nexcept ImportError:\n    pass"
    assert "no_such_module" in modules_after(statement)
