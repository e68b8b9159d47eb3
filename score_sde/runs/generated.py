"""Features of the samples of a model, kept as they come."""

from dataclasses import asdict, dataclass

import numpy as np

from score_sde.conditions import Chosen
from score_sde.evaluate import Sampled
from score_sde.evaluate.cache import Cache
from score_sde.evaluate.chunks import Chunks
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.protocol import Protocol
from score_sde.runs.model import Model
from score_sde.runtime.mesh import round_up
from score_sde.runtime.processes import is_chief
from score_sde.runtime.progress import Progress

SHOWN = 64  # samples whose values are kept beside their features


def protocol_of(model: Model, extractor: Extractor) -> Protocol:
    """How the features of its samples are made; refused where the extractor cannot take them."""
    architecture = model.architecture
    some = architecture.decode(model.parts, np.zeros((1, *architecture.state_shape), np.float32))
    return extractor.protocol(some.shape[1:], some.dtype)


@dataclass(frozen=True)
class Generated:
    """Features of the samples of a model, and the first samples themselves."""

    sampled: Sampled
    first: np.ndarray


def features_of(model: Model, extractor: Extractor, count: int, seed: int) -> Generated:
    """Draw ``count`` samples and extract their features, or take them from the workdir's results."""
    size = round_up(min(model.config.sampling.batch_size, count), model.mesh)
    chosen = Chosen.every_class(model.sampler.conditions)
    name = model.fingerprint(
        "sampling",
        plan=model.sampler.plan,  # which may come from a file
        **model.sampler.guidance_digest,
        seed=seed,
        batch=size,  # the last bits of a sample depend on it
        protocol=asdict(protocol_of(model, extractor)),
    )
    chunks = Chunks(Cache(model.results / name, write=is_chief()), size, SHOWN)

    def draw(start: int) -> np.ndarray:
        batches = model.batches(start + size, seed=seed, chosen=chosen, start=start, batch_size=size)
        return model.architecture.decode(model.parts, np.concatenate(list(batches)))

    title = f"sample (checkpoint {model.step})"
    with Progress(count, title, "sample", quiet=not is_chief()) as progress:
        sampled, first = chunks.collect(count, draw, extractor, room=model.results, note=progress.update)
    return Generated(sampled, first)
