"""Where compiled programs are kept."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from score_sde.runtime import compilation_cache
from tests.conftest import ROOT

NAMES = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def kept(monkeypatch):
    """Calls ``keep`` where JAX knows of no directory but ``known``; returns the values of ``NAMES``."""
    before = {name: jax.config.values[name] for name in NAMES}
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)

    def keep(where, known=None):
        jax.config.update("jax_compilation_cache_dir", known)
        compilation_cache.keep(where)
        return tuple(jax.config.values[name] for name in NAMES)

    yield keep
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_cache_of_the_user_or_where_asked(kept, monkeypatch):
    assert kept(None) == (True, "/caches/score_sde/programs", 0.0)
    assert kept("here", known="there") == (True, "here", 0.0)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert kept(None)[1] == str(Path.home() / ".cache" / "score_sde" / "programs")


def test_settings_of_jax_come_first(kept, monkeypatch):
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "7")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    assert kept(None, known="gs://bucket") == (True, "gs://bucket", 7.0)
    assert kept("here") == (True, "here", 7.0)


def test_none_keeps_nothing(kept):
    assert kept("none", known="there")[0] is False


@pytest.mark.slow
def test_a_program_is_written_where_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    code = (
        "import sys, jax; from score_sde.runtime import compilation_cache as c; c.keep(eval(sys.argv[1]));"
        "jax.jit(lambda x: jax.numpy.linalg.svd(x))(jax.numpy.ones((4, 4)))"
    )
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    places = {
        "None": tmp_path / ".cache" / "score_sde" / "programs",
        f"{str(tmp_path / 'x')!r}": tmp_path / "x",
    }
    for asked, place in places.items():
        subprocess.run([sys.executable, "-c", code, asked], cwd=ROOT, check=True)
        assert any(place.iterdir())
    before = sorted(tmp_path.rglob("*"))
    subprocess.run([sys.executable, "-c", code, "'none'"], cwd=ROOT, check=True)
    assert sorted(tmp_path.rglob("*")) == before
