"""Settings of memory that a program starts itself again with."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from score_sde.cpu import malloc, switch

NAMES = ("GLIBC_TUNABLES", malloc.CONTRACTION_KERNEL, "SCORE_SDE_RESTARTED")

# Prints what each start finds; then, once it goes on, its id and what a child process is given.
SHOW = f"""
import os, subprocess, sys
from score_sde.cpu import malloc
print("started", *sys._xoptions, *sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), flush=True)
malloc.restart_with_settings()
print(os.getpid())
child = "import os; print(*map(os.environ.get, {NAMES}))"
print(subprocess.check_output([sys.executable, "-c", child], text=True).strip())
"""

FAULTS = """
import resource, sys
from score_sde.cpu import malloc
malloc.restart_with_settings()
import jax, jax.numpy as jnp
double = jax.jit(lambda x: 2 * x)
x = jnp.ones(2**23)  # results of 8192 pages, too many to be kept by default
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):  # it grows until one fits beside another that is not freed yet
    double(x).block_until_ready()
before = faults()
for _ in range(40):
    double(x).block_until_ready()
print((faults() - before) / 40)
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")


def run(*command: str, **variables: str) -> tuple[int, list[str]]:
    """The id of a process on a machine without accelerators, and the lines that it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment |= {"JAX_PLATFORMS": "cpu"} | variables
    with subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.communicate(timeout=120)[0].splitlines()
        finally:
            process.kill()
    assert process.returncode == 0
    return process.pid, said


@pytest.fixture
def show(tmp_path: Path) -> str:
    (tmp_path / "show.py").write_text(SHOW)
    return str(tmp_path / "show.py")


def test_settings_are_added_to_those_of_the_user():
    assert malloc.tunables().split(":") == [f"{name}={value}" for name, value in malloc.SETTINGS.items()]
    given = "glibc.malloc.hugetlb=0:glibc.malloc.check=1"
    assert malloc.tunables(given).startswith(given + ":glibc.malloc.arena_max=1:")
    assert malloc.tunables(given).count("hugetlb") == 1
    assert malloc.tunables(malloc.tunables()) == malloc.tunables()


@glibc
def test_a_program_starts_again_once_in_the_same_process_with_its_arguments(show):
    pid, said = run("-X", "utf8", show, "a", "b c")
    assert said == [
        "started utf8 a b c None",
        f"started utf8 a b c {malloc.tunables()}",
        f"{pid}",
        "None 0 None",
    ]


@glibc
def test_settings_of_the_user_are_kept_and_given_back(show):
    given = "glibc.malloc.mmap_max=7"
    _, said = run(show, GLIBC_TUNABLES=given)
    assert said[1] == f"started {malloc.tunables(given)}"
    assert said[3] == f"{given} 0 None"
    _, said = run(show, GLIBC_TUNABLES=malloc.tunables(), **{malloc.CONTRACTION_KERNEL: "1"})
    assert said[0] == f"started {malloc.tunables()}"
    assert said[2:] == [f"{malloc.tunables()} 1 None"]


@pytest.mark.parametrize(
    "variables", [{switch.SWITCH: "0"}, {"JAX_PLATFORMS": ""}, {"JAX_PLATFORMS": "cuda,cpu"}]
)
def test_nothing_changes_where_it_is_turned_off_or_jax_may_have_an_accelerator(show, variables, tmp_path):
    plugin = tmp_path / "packages" / "jax_plugins" / "xla_cuda12"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").touch()
    path = os.pathsep.join([str(tmp_path / "packages"), *sys.path])
    pid, said = run(show, PYTHONPATH=path, **variables)
    assert said == ["started None", f"{pid}", "None None None"]


def test_another_program_that_runs_this_one_is_not_started_again(show):
    runs = f"import runpy, sys; sys.argv = [{show!r}, 'a']; runpy.run_path({show!r}, run_name='__main__')"
    pid, said = run("-c", runs)
    assert said == ["started a None", f"{pid}", "None 0 None"]
    traced = "import sys; sys.settrace(lambda *a: None)\n" + SHOW
    Path(show).write_text(traced)
    pid, said = run(show, "a")
    assert said == ["started a None", f"{pid}", "None 0 None"]


@glibc
def test_a_program_goes_on_where_the_system_takes_the_settings_away(show, tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nunset GLIBC_TUNABLES\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    Path(show).write_text(f"import sys; sys.executable = {str(wrapper)!r}\n" + SHOW)
    pid, said = run(show)
    assert said == ["started None", "started None", f"{pid}", "None 0 None"]


@glibc
@pytest.mark.slow
def test_results_are_written_to_pages_that_were_there_before(tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    pages = [float(run(str(tmp_path / "faults.py"), **{switch.SWITCH: value})[1][-1]) for value in ("0", "1")]
    assert pages[0] > 5000
    assert pages[1] < 0.1 * pages[0]
