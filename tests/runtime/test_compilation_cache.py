"""Programs on disk that are read ahead: what is used, and what is done where the expectation is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax._src import compilation_cache

from score_sde.runtime import compilation_cache as programs
from score_sde.train import PROGRAMS
from tests.cli.test_cli import train
from tests.conftest import ROOT
from tests.train.test_training import Run

# Prints who reads the program "times" and whether it is found; then its value.
TIMES = """
import sys, threading
from jax._src import compilation_cache
read = compilation_cache.get_executable_and_time
def watched(key, *rest):
    found = None, None
    try:
        found = read(key, *rest)
        return found
    finally:
        if key.startswith("jit_times-"):
            main = threading.current_thread() is threading.main_thread()
            print("main" if main else "ahead", "found" if found[0] else "missed")
compilation_cache.get_executable_and_time = watched
import jax, jax.numpy as jnp
from score_sde.runtime import compilation_cache as programs
where, of, factor = sys.argv[1:]
programs.keep(where)
programs.read_ahead(["times"], of)
def times(x): return float(factor) * x
print(jax.jit(times)(jnp.ones(()))[()])
"""


@pytest.fixture
def times(tmp_path, monkeypatch):
    """Run ``TIMES`` in a process that keeps programs in ``tmp_path``; returns the lines that it prints."""
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

    def run(factor: float = 2.0, of: str = "a config") -> list[str]:
        words = [sys.executable, "-W", "ignore", "-c", TIMES, str(tmp_path), of, str(factor)]
        return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()

    return run


def test_a_second_start_reads_ahead_and_only_then(times):
    assert times() == ["main missed", "2.0"]
    assert times() == ["ahead found", "2.0"]
    assert times(of="another") == ["main found", "2.0"]
    assert times(of="another") == ["ahead found", "2.0"]


def test_a_changed_program_is_not_taken_for_the_old_one(times):
    times()
    said = times(factor=3.0)
    assert sorted(said) == ["3.0", "ahead found", "main missed"]
    assert said[-1] == "3.0"
    assert times(factor=3.0) == ["ahead found", "3.0"]


def test_what_cannot_be_read_ahead_is_read_or_compiled(times, tmp_path):
    times()
    [note] = tmp_path.glob("*.ahead")
    whole = note.read_text()
    note.write_text(whole[:-9])  # torn
    assert times() == ["main found", "2.0"]
    assert note.read_text() == whole
    [program] = tmp_path.glob("jit_times-*-cache")
    program.write_bytes(b"not a program")
    assert times() == ["ahead missed", "main missed", "2.0"]
    program.unlink()
    assert times() == ["ahead missed", "main missed", "2.0"]
    assert times() == ["ahead found", "2.0"]


@pytest.mark.parametrize(
    ("variable", "value"), [("JAX_NUM_CPU_DEVICES", "3"), ("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")]
)
def test_programs_of_other_devices_and_settings_are_not_read(variable, value, times, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    assert times()[0].startswith("main")
    monkeypatch.setenv(variable, value)
    assert times()[0].startswith("main")


@pytest.fixture
def settings():
    """Sets JAX's configuration, and back."""
    before = {}

    def update(name: str, value: object) -> None:
        before.setdefault(name, jax.config.values[name])
        jax.config.update(name, value)

    yield update
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_compilation_cache", False),
        ("jax_compilation_cache_dir", None),
        ("jax_compilation_cache_dir", "gs://bucket/programs"),
    ],
)
def test_nothing_is_looked_for_where_programs_are_not_on_a_disk(name, value, settings, monkeypatch):
    monkeypatch.setattr(programs, "_reader", lambda: pytest.fail("looked for a program"))
    settings(name, value)
    programs.read_ahead(["times"], "a config")


def test_a_version_of_jax_without_this_function_reads_by_itself(monkeypatch):
    monkeypatch.delattr(compilation_cache, "get_executable_and_time")
    assert programs._reader.__wrapped__() is None


@pytest.mark.parametrize(
    ("dispatch", "long", "names"), [(1, 3, ["steps"]), (2, 0, ["steps"]), (1, 0, ["gradient", "update"])]
)
def test_programs_of_training_are_found_by_the_names_of_their_functions(
    dispatch, long, names, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("score_sde.train.step._LONG", long)
    run = Run(tmp_path, dispatch=dispatch)
    settings("jax_compilation_cache_dir", str(tmp_path / "notes"))
    programs.read_ahead(["make", *PROGRAMS], "a config")
    run.to(4)
    assert kept(tmp_path) == {name: f"jit_{name}" for name in ["make", *names]}


@pytest.mark.slow
def test_training_reads_its_programs_ahead(settings, tmp_path, monkeypatch):
    take, taken = programs._Expected.take, {}

    def watched(self, request):
        found = take(self, request)
        taken[request["key"].split("-")[0]] = found is not None
        return found

    monkeypatch.setattr(programs._Expected, "take", watched)
    settings("jax_compilation_cache_dir", str(tmp_path / "notes"))
    assert train(tmp_path / "first") == 0
    assert taken == {"jit_make": False, "jit_steps": False}
    taken.clear()
    assert train(tmp_path / "second") == 0
    assert taken["jit_steps"]  # the other one compiles too fast to be kept, in tests
    taken.clear()
    shutil.rmtree(tmp_path / "second" / "checkpoints" / "4")
    (tmp_path / "second" / "best.json").unlink()
    assert train(tmp_path / "second") == 0
    assert taken == {"jit_steps": True}


def kept(tmp_path: Path) -> dict[str, str]:
    """Names of what was asked for, by the names of notes."""
    notes = {path.name.split("-")[0]: json.loads(path.read_text()) for path in tmp_path.glob("notes/*.ahead")}
    return {name: note["key"].split("-")[0] for name, note in notes.items()}
