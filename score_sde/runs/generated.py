"""Features of the samples of a checkpoint, stored as they come."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from score_sde.evaluate import Sampled
from score_sde.evaluate.chunks import Chunks
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.protocol import Protocol
from score_sde.experiment.assemble import Experiment, sampler_of
from score_sde.experiment.sections import as_tree
from score_sde.flags import Options
from score_sde.modes.workdir import is_chief, outside, restore_average
from score_sde.nets import digest
from score_sde.runtime.mesh import make_mesh, round_up
from score_sde.runtime.progress import Progress
from score_sde.sampling.draw import Draw, compile_sample, generate
from score_sde.solvers import Plan

SHOWN = 64  # samples whose values are kept beside their features


class Generator:
    """Samples of any checkpoint of a workdir; its program is compiled once."""

    def __init__(self, options: Options, experiment: Experiment, extractor: Extractor, count: int):
        self._options, self._experiment, self._extractor = options, experiment, extractor
        self._count = count
        self._mesh: Mesh = make_mesh()
        self.seed = experiment.config.seed if options.seed is None else options.seed
        self._size = round_up(min(experiment.config.sampling.batch_size, count), self._mesh)
        sampler = sampler_of(experiment)
        self._plan = sampler.plan
        self._draw: Draw = compile_sample(
            sampler.bind,
            sampler.process,
            sampler.solver,
            self._mesh,
            shape=experiment.state_shape,
        )

    def protocol(self) -> Protocol:
        """How the features of the samples are made; refused where the extractor cannot take them."""
        spec, count = self._experiment.spec, (1, *self._experiment.state_shape)
        dtype = outside(self._experiment, np.zeros(count, np.float32)).dtype
        return self._extractor.protocol(spec.shape, dtype)

    def features(self, step: int | None) -> tuple[int, str, Sampled, np.ndarray]:
        """The step, the SHA-256 of its parameters, the features, and the first samples themselves."""
        options = dataclasses.replace(self._options, step=step)
        step, _, params = restore_average(options, self._experiment)
        weights = digest(params)
        chunks = Chunks(self._options.workdir / "evaluation" / self._name(weights), self._size, SHOWN)
        title = f"sample (checkpoint {step})"
        with Progress(self._count, title, "sample", quiet=not is_chief()) as progress:
            sampled, first = chunks.collect(
                self._count,
                lambda start: self._samples(params, start),
                self._extractor,
                write=is_chief(),
                note=progress.update,
            )
        return step, weights, sampled, first

    def _samples(self, params: Any, start: int) -> np.ndarray:
        stop, classes = start + self._size, self._experiment.spec.num_classes
        labels = np.arange(stop) % classes if self._experiment.labelled else None
        batches = generate(
            self._draw,
            params,
            self._plan,
            self._mesh,
            seed=self.seed,
            num_samples=stop,
            batch_size=self._size,
            labels=labels,
            inputs=self._experiment.guidance.inputs(stop),
            start=start,
        )
        return outside(self._experiment, np.concatenate(list(batches)))

    def _name(self, weights: str) -> str:
        """Of the directory: everything that decides what a sample and its features are."""
        config = as_tree(self._experiment.config)
        sections = ("sde", "model", "denoiser", "conditions", "sampling", "data", "codec")
        what = {
            **{section: config[section] for section in sections},
            "parameters": weights,
            "plan": _digest(self._plan),  # which may come from a file
            "seed": self.seed,
            "batch": self._size,  # the last bits of a sample depend on it
            "jax": jax.__version__,
            "protocol": dataclasses.asdict(self.protocol()),
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _digest(plan: Plan) -> str:
    leaves = jax.tree.leaves(plan)
    return hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)).hexdigest()
