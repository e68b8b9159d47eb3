"""Settings of memory that a program starts itself again with."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from score_sde.cpu import malloc as memory

SHOW = """
import os, sys
from score_sde.cpu import malloc as memory
print("started", *sys._xoptions, *sys.argv[1:])
sys.stdout.flush()
memory.settle()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"))
print(os.environ[memory.CONTRACTION_KERNEL])
"""

FAULTS = """
import resource, sys
from score_sde.cpu import malloc as memory
if sys.argv[1] == "settle":
    memory.settle()
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
    """The id of a process and the lines that it printed."""
    ours = ("GLIBC_TUNABLES", memory.CONTRACTION_KERNEL)
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    with subprocess.Popen(
        [sys.executable, *command], env=environment | variables, stdout=subprocess.PIPE, text=True
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
    assert memory.tunables().split(":") == [f"{name}={value}" for name, value in memory.SETTINGS.items()]
    given = "glibc.malloc.hugetlb=0:glibc.malloc.check=1"
    assert memory.tunables(given).startswith(given + ":glibc.malloc.arena_max=1:")
    assert memory.tunables(given).count("hugetlb") == 1
    assert memory.tunables(memory.tunables()) == memory.tunables()


@glibc
def test_a_program_starts_again_once_in_the_same_process_with_its_arguments(show):
    pid, said = run("-X", "utf8", show, "a", "b c")
    assert said == ["started utf8 a b c", "started utf8 a b c", f"{pid} {memory.tunables()}", "0"]
    pid, said = run(show, GLIBC_TUNABLES="glibc.malloc.mmap_max=7")
    assert said[2:] == [f"{pid} {memory.tunables('glibc.malloc.mmap_max=7')}", "0"]
    pid, said = run(show, GLIBC_TUNABLES=memory.tunables(), **{memory.CONTRACTION_KERNEL: "1"})
    assert said == ["started", f"{pid} {memory.tunables()}", "1"]


def test_another_program_that_runs_this_one_is_not_started_again(show):
    runs = f"import runpy, sys; sys.argv = [{show!r}, 'a']; runpy.run_path({show!r}, run_name='__main__')"
    pid, said = run("-c", runs)
    assert said == ["started a", f"{pid} None", "0"]
    traced = "import sys; sys.settrace(lambda *a: None)\n" + SHOW
    Path(show).write_text(traced)
    pid, said = run(show, "a")
    assert said == ["started a", f"{pid} None", "0"]


@glibc
def test_a_program_goes_on_where_the_system_takes_the_settings_away(show, tmp_path):
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nunset GLIBC_TUNABLES\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    Path(show).write_text(f"import sys; sys.executable = {str(wrapper)!r}\n" + SHOW)
    pid, said = run(show)
    assert said == ["started", "started", f"{pid} None", "0"]


@glibc
def test_results_are_written_to_pages_that_were_there_before(tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    pages = {way: float(run(str(tmp_path / "faults.py"), way)[1][-1]) for way in ("leave", "settle")}
    assert pages["leave"] > 5000
    assert pages["settle"] < 0.1 * pages["leave"]
