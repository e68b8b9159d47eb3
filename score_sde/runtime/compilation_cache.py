"""Compiled programs on disk, so that a second start need not compile them: JAX's own persistent cache."""

import os
from pathlib import Path

import jax


def keep(where: str | None) -> None:
    """Keep compiled programs on disk, so that the next start need not compile them.

    Args:
      where: a directory, ``"none"``, or None: what JAX's own settings say, or else the user's cache.
    """
    if where == "none":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if where is None:
        if jax.config.values["jax_compilation_cache_dir"] is not None:
            return
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        where = str(Path(caches) / "score_sde" / "programs")
    jax.config.update("jax_compilation_cache_dir", where)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
