"""Memory that is given out again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from score_sde import memory
if sys.argv[1] == "keep":
    assert memory.keep_freed()
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_results_are_written_to_pages_that_were_there_before():
    pages = {}
    for way in ("give back", "keep"):
        command = [sys.executable, "-c", PROGRAM, way]
        pages[way] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert pages["give back"] > 5000
    assert pages["keep"] < 0.5 * pages["give back"]
