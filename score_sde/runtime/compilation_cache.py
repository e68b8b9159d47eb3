"""Compiled programs on disk, and those next in turn, read back while Python still traces them.

JAX keeps compiled programs and finds one by a key, which it has once the program is traced and lowered; only
then does it begin to read.  But a command that starts again will ask for what it asked for last time.  So
those keys are noted beside the programs, and a thread reads meanwhile, on a core that has nothing else to do.

What is used is for JAX's key alone to say.  Where it is another than the one noted, after a change of the
code, what was read is dropped, and the program is found or compiled as ever.
"""

import base64
import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

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


def read_ahead(names: Sequence[str], of: str) -> None:
    """Begin to read the programs of functions that will soon be called.

    Does nothing where programs are not kept on a disk, and in a job of several processes.

    Args:
      names: of functions that will be jitted, in the order in which they will be called; each is followed for
        one call.
      of: what their programs depend on.  What was asked for last time is noted for each.
    """
    place = jax.config.values["jax_compilation_cache_dir"]
    kept = jax.config.values["jax_enable_compilation_cache"] and place and "://" not in place
    if not kept or jax.process_count() > 1 or (read := _reader()) is None:
        return
    _expected.clear()
    mark, thread = _mark(of), ThreadPoolExecutor(1)  # which a process waits for before it ends
    for name in names:
        _expected[f"jit_{name}"] = _Expected(Path(place) / f"{name}-{mark}.ahead", read, thread)
    thread.shutdown(wait=False)


_Program = tuple[Any, int | None]  # a loaded program and the time that compiling it took, or twice None
_Read = Callable[[str, Any, Any, Any], _Program]
_Request = dict[str, Any]


@functools.cache
def _reader() -> _Read | None:
    """JAX's own function that reads a program, which from now on is asked after ``_expected``.

    It has no public one that reads by a key.  None in a version that has another: it then reads when it does.
    """
    try:
        from jax._src import compilation_cache as cache

        read = cache.get_executable_and_time
    except (ImportError, AttributeError):
        return None

    def take_or_read(key: str, options: Any, backend: Any, devices: Any) -> _Program:
        program = _expected.pop(key.rpartition("-")[0], None)
        found = program and program.take(_request(key, options, devices))
        return found or read(key, options, backend, devices)

    cache.get_executable_and_time = take_or_read
    return read


def _request(key: str, options: Any, devices: Any) -> _Request:
    """What JAX reads a program by, in JSON's types."""
    text = base64.b64encode(options.SerializeAsString()).decode()
    return {"key": key, "options": text, "devices": [device.id for device in devices]}


class _Expected:
    """The program that was asked for last time, read by a thread."""

    def __init__(self, note: Path, read: _Read, thread: Executor):
        self._note, self._request = note, _load(note)
        self._future = thread.submit(self._read, read, self._request) if self._request else None

    @staticmethod
    def _read(read: _Read, request: _Request) -> _Program:
        from jax._src.lib import xla_client  # type: ignore[attr-defined]

        options = xla_client.CompileOptions.ParseFromString(base64.b64decode(request["options"]))
        by_id = {device.id: device for device in jax.devices()}
        devices = xla_client.DeviceList(tuple(by_id[i] for i in request["devices"]))
        return read(request["key"], options, jax.devices()[0].client, devices)

    def take(self, request: _Request) -> _Program | None:
        """The program, waited for, if it is the one requested and could be read; another request is noted."""
        if self._future is None or request != self._request:
            _save(self._note, request)
            return None
        if self._future.exception() is not None or self._future.result()[0] is None:
            return None
        return self._future.result()


_expected: dict[str, _Expected] = {}  # by the names of programs, of which each is taken once


def _mark(of: str) -> str:
    """A name for ``of`` here: programs of other versions, devices or settings of XLA are not even read."""
    flags = [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    devices = jax.devices()
    kinds = [device.device_kind for device in devices]
    here = [version("jax"), version("jaxlib"), devices[0].client.platform_version, *kinds, *flags]
    return hashlib.sha256("\n".join([of, *here]).encode()).hexdigest()[:32]


def _load(note: Path) -> _Request | None:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or a torn one
        return None


def _save(note: Path, request: _Request) -> None:
    beside = note.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # JAX says by itself where it cannot write
        note.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(request), encoding="utf-8")
        beside.replace(note)
