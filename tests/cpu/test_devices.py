"""Devices of a CPU: as many as share a batch, made before JAX starts, and left alone after."""

import subprocess
import sys

import jax
import pytest

from score_sde.cpu import devices, switch
from tests.conftest import ROOT


@pytest.fixture
def started(monkeypatch):
    """As in a notebook: JAX runs, and no variable has said with how many devices."""
    count = jax.device_count()
    monkeypatch.delenv("XLA_FLAGS")
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    return count


@pytest.mark.parametrize(
    ("batch", "cores", "count"), [(128, 2, 2), (128, 5, 4), (48, 4, 3), (31, 2, 1), (8, 4, 1), (33, 2, 1)]
)
def test_devices_share_the_batch_evenly_and_get_sixteen_each(batch, cores, count):
    assert devices.even_share(batch, cores) == count


def test_where_jax_runs_already_its_devices_are_left(started):
    devices.use_cores(128)
    with pytest.warns(UserWarning, match="cpu_devices = 3 has no effect"):
        devices.use_cores(128, 3)
    assert jax.device_count() == started


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match=r"mesh\.cpu_devices = -1"):
        devices.use_cores(128, -1)


@pytest.fixture
def changed(started, monkeypatch):
    """What JAX is asked for."""
    asked = {}
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    monkeypatch.setattr(devices, "_cores", lambda: 4)
    return asked


@pytest.mark.parametrize(
    ("variables", "asked", "count"),
    [
        ({}, 0, 4),
        ({}, 3, 3),
        ({switch.SWITCH: "0"}, 0, None),
        ({switch.SWITCH: "0"}, 3, 3),
        ({"JAX_PLATFORMS": "cuda,cpu"}, 0, None),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, 0, None),
        ({"JAX_NUM_CPU_DEVICES": "2"}, 0, None),
    ],
)
def test_cores_are_devices_only_on_cpus_and_where_the_user_says_nothing(
    variables, asked, count, changed, monkeypatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    devices.use_cores(64, asked)
    assert changed == ({} if count is None else {"jax_num_cpu_devices": count})


def test_jax_starts_with_them(started):
    code = (
        "import jax; from score_sde.cpu import devices; devices.use_cores(64, 3); print(jax.device_count())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "3\n"
