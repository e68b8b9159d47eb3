"""Samples on disk as they are made, by any number of processes, of which all may be killed at any time."""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from score_sde.conditions import Chosen, Json
from score_sde.evaluate.cache import fingerprint
from score_sde.experiment.sections import as_tree
from score_sde.images import pictures
from score_sde.names import ConfigError
from score_sde.runs.model import Model
from score_sde.runtime.files import read_json, write_json
from score_sde.runtime.processes import is_chief

RECORD = "samples.json"
SECTIONS = ("sde", "model", "denoiser", "conditions", "codec", "sampling")


def identity(model: Model, chosen: Chosen, seed: int, size: int) -> dict[str, Json]:
    """Everything that decides what a sample is; a run is resumed only from samples with the same.

    Args:
      chosen: conditions of the samples.
      size: samples of a batch, on which their last bits depend.
    """
    config = as_tree(model.config)
    return {
        **{name: fingerprint(section=config[name]) for name in SECTIONS},
        "plan": fingerprint(plan=model.sampler.plan),  # which may come from a file
        "checkpoint": model.digest,
        **model.sampler.guidance_digest,
        "conditions": chosen.about,
        "seed": seed,
        "batch": size,
    }


class Stored:
    """A directory of samples: pictures ``000000.png``, or arrays ``<first>-<stop>.npz`` of other data.

    Each file is written under another name and renamed, so that what is there is whole.

    Args:
      directory: made if it is not there.
      count: samples wanted.
      what: of ``identity``; kept in the directory.

    Raises:
      ConfigError: the directory holds other samples.
    """

    def __init__(self, directory: Path, count: int, *, as_pictures: bool, what: Mapping[str, Json]):
        self.directory, self._count, self._pictures = directory, count, as_pictures
        if is_chief():
            self._claim(what)

    def missing(self, size: int) -> list[int]:
        """First numbers of the batches that are not complete, the same on every process."""
        firsts = np.arange(0, self._count, size)
        absent = np.zeros(len(firsts), bool)
        if is_chief():
            there = self._there()
            absent = np.array([not there[first : first + size].all() for first in firsts])
        if jax.process_count() > 1:
            absent = np.asarray(multihost_utils.broadcast_one_to_all(absent))
        return [int(first) for first in firsts[absent]]

    def write(self, first: int, samples: np.ndarray) -> None:
        """Keep samples ``first, first + 1, ...``: those of a batch that this process has."""
        if not self._pictures:
            if len(samples):
                self._replace(_span_name(first, first + len(samples)), samples)
            return
        for i, sample in enumerate(samples):
            self._replace(f"{first + i:06d}.png", sample)

    def read(self) -> np.ndarray:
        """All of them, where they are arrays and none is missing."""
        parts, at = [], 0
        for start, stop in sorted(self._spans()):
            if stop > at and at < self._count:
                with np.load(self.directory / _span_name(start, stop)) as file:
                    parts.append(file["samples"][at - start : self._count - start])
                at = stop
        return np.concatenate(parts)

    def join(self, path: Path, seed: int) -> None:
        """All as one .npz, made without holding more than one file of them; the directory is removed.

        The arrays of ``pictures.write``: ``samples`` and ``seed``.
        """
        spans = sorted(self._spans())
        with np.load(self.directory / _span_name(*spans[0])) as file:
            shape, dtype = file["samples"].shape[1:], file["samples"].dtype
        fresh = path.with_suffix(".tmp")
        with zipfile.ZipFile(fresh, "w") as archive:
            with archive.open("samples.npy", "w", force_zip64=True) as out:
                header = {"descr": dtype.str, "fortran_order": False, "shape": (self._count, *shape)}
                np.lib.format.write_array_header_1_0(out, header)
                at = 0
                for start, stop in spans:  # which overlap where a run went on in another number of processes
                    if stop > at and at < self._count:
                        with np.load(self.directory / _span_name(start, stop)) as file:
                            rows = file["samples"][at - start : self._count - start]
                            out.write(np.ascontiguousarray(rows).tobytes())
                        at = stop
            with archive.open("seed.npy", "w") as out:
                np.lib.format.write_array(out, np.asarray(np.int64(seed)))
        os.replace(fresh, path)
        shutil.rmtree(self.directory)

    def _claim(self, what: Mapping[str, Json]) -> None:
        record = self.directory / RECORD
        if record.is_file():
            before = read_json(record)
            wanted = json.loads(json.dumps(what))
            other = sorted(key for key in wanted.keys() | before.keys() if wanted.get(key) != before.get(key))
            if other:
                raise ConfigError(
                    f"--output: {self.directory} holds other samples, which differ in {', '.join(other)}; "
                    "name another place, or remove it"
                )
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        if any(self.directory.glob("*.png")) or any(self.directory.glob("*.npz")):
            raise ConfigError(
                f"--output: {self.directory} holds files, and no {RECORD} that says of what; name another "
                "place"
            )
        write_json(record, what)

    def _there(self) -> np.ndarray:
        """Which samples are on disk: ``(count,)`` booleans."""
        there = np.zeros(self._count, bool)
        if not self._pictures:
            for start, stop in self._spans():
                there[start:stop] = True
            return there
        for entry in os.scandir(self.directory):
            stem, dot, suffix = entry.name.rpartition(".")
            if dot and suffix == "png" and stem.isdigit() and int(stem) < self._count:
                there[int(stem)] = True
        return there

    def _spans(self) -> list[tuple[int, int]]:
        names = (path.stem.split("-") for path in self.directory.glob("[0-9]*-[0-9]*.npz"))
        return [(int(start), int(stop)) for start, stop in names]

    def _replace(self, name: str, sample: np.ndarray) -> None:
        fresh = self.directory / f".{name}.{jax.process_index()}"
        with fresh.open("wb") as out:
            if self._pictures:
                pictures.picture(sample).save(out, format="png")
            else:
                np.savez(out, samples=sample)
        os.replace(fresh, self.directory / name)


def _span_name(start: int, stop: int) -> str:
    return f"{start:08d}-{stop:08d}.npz"
