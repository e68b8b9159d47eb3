"""Eight fake devices, a compilation cache, quick compilation and strictness: set before jax is imported."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time goes into compiling programs that run once: a quarter more with LLVM's next level, and a
# quarter more with the newer of XLA's two compilers of fused operations.  A version that does not know an
# option ends the process.  The command line, where a test starts it, compiles as it does for users.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=1",
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    ]
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "score_sde_test_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def x64():
    """Double precision within a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def fixture():
    """Load ``tests/data/<name>.npz`` (see the README there for where the numbers come from)."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)

    return load
