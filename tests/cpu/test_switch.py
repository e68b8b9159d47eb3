"""When the code for CPUs acts: never where JAX has or may have an accelerator, nor where it is turned off."""

import importlib
import sys
from pathlib import Path

import jax
import pytest

from score_sde.cpu import loops, switch
from tests.test_architecture import modules_after


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A machine on which only the given files are installed, and no variable says what JAX should use."""
    for name in (switch.SWITCH, "JAX_PLATFORMS", "PJRT_NAMES_AND_LIBRARY_PATHS", "TPU_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("jax_plugins", "libtpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def install(path: str | None = None, text: str = "") -> None:
        if path is not None:
            file = Path(tmp_path, path)
            file.parent.mkdir(parents=True)
            file.write_text(text)
        importlib.invalidate_caches()

    return install


PLUGINS = {
    "jax_plugins/xla_cuda12/__init__.py": "",
    "libtpu/__init__.py": "",
    "other-1.0.dist-info/entry_points.txt": "[jax_plugins]\nother = other_plugin\n",
}


def test_without_a_plugin_jax_has_cpus_only(installed):
    installed()
    assert switch.acts_before_start()
    installed("numpy-1.0.dist-info/entry_points.txt", "[console_scripts]\nf2py = numpy\n")
    assert switch.acts_before_start()


@pytest.mark.parametrize("path", PLUGINS)
def test_a_plugin_may_find_an_accelerator_unless_jax_may_use_cpus_only(path, installed, monkeypatch):
    installed(path, PLUGINS[path])
    assert not switch.acts_before_start()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert switch.acts_before_start()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_PLATFORMS", "cuda"),
        ("JAX_PLATFORMS", "cpu,cuda"),
        ("PJRT_NAMES_AND_LIBRARY_PATHS", "mine:/opt/mine.so"),
        ("TPU_LIBRARY_PATH", "/opt/libtpu.so"),
    ],
)
def test_variables_that_name_an_accelerator_are_believed(name, value, installed, monkeypatch):
    installed()
    monkeypatch.setenv(name, value)
    assert not switch.acts_before_start()


@pytest.mark.parametrize(("value", "on"), [("0", False), ("off", False), ("FALSE", False), ("1", True)])
def test_the_user_has_the_last_word(value, on, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv(switch.SWITCH, value)
    assert switch.acts_before_start() == switch.acts() == on
    assert loops.unroll(3) == (3 if on else 1)


def test_nothing_acts_on_an_accelerator(monkeypatch):
    assert switch.acts()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not switch.acts()
    assert loops.unroll(3) == 1


def test_jax_is_not_imported_to_find_out():
    program = "from score_sde.cpu import malloc, switch; switch.acts_before_start(); malloc.tunables()"
    assert "jax" not in modules_after(program)
