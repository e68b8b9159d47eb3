"""What generated examples are compared with: a file of statistics, a folder, or a split of the data."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from score_sde.conditions import Json
from score_sde.evaluate import Reference, Sampled
from score_sde.evaluate.cache import fingerprint
from score_sde.evaluate.examples import Examples
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.protocol import Protocol, check_comparable
from score_sde.evaluate.reference import gather, load_reference, save_reference
from score_sde.experiment.measure_sections import Evaluate
from score_sde.experiment.sections import as_tree
from score_sde.runs.examples import array_names, open_path
from score_sde.runs.workdir import Workdir
from score_sde.runtime.files import writable
from score_sde.runtime.processes import is_chief
from score_sde.runtime.progress import Progress


def of_split(workdir: Workdir, split: str) -> Examples:
    """The ``train`` or ``test`` split of the configured data."""
    return Examples(workdir.source(split), workdir.source_name(split))


def of_path(workdir: Workdir, flag: str, path: str) -> Examples:
    """A folder of pictures or an array file, with as many channels as the data of the run, or the config.

    Args:
      flag: names the path in messages.
    """
    channels = workdir.config.data.source.options.get("channels") or 3
    if workdir.spec is not None and len(workdir.spec.shape) == 3:
        channels = workdir.spec.shape[-1]
    return open_path(flag, path, workdir.config.data, channels)


def about(examples: Examples, split: str) -> dict[str, Json]:
    """What a statistics file says beside its protocol."""
    return {"source": examples.name, "split": split, "example_shape": list(examples.shape)}


def gather_features(extractor: Extractor, examples: Examples, section: Evaluate) -> Reference:
    """Stream the examples through the extractor."""
    extractor.protocol(examples.shape, examples.dtype)  # refuses before any work
    with Progress(len(examples), "reference", "example", quiet=not is_chief()) as progress:

        def parts() -> Iterator[Sampled]:
            for batch in examples.shuffled(section.batch_size):
                yield extractor(batch)
                progress.update(progress.done + len(batch))

        return gather(parts(), section.keep_features)


def open_reference(
    workdir: Workdir, given: str | None, extractor: Extractor, protocol: Protocol
) -> tuple[Reference, dict[str, Json]]:
    """The reference, and what is known of it: a path, or a split of the data, whose statistics are kept.

    Args:
      given: the path of ``--reference``; None: that of ``config.evaluate.reference``, or the split.

    Raises:
      ValueError: made by another protocol, or unreadable.
    """
    section = workdir.config.evaluate
    path = given or section.reference
    if path is not None and _is_statistics(Path(path).expanduser()):
        return load_reference(Path(path).expanduser(), protocol)
    if path is not None:
        examples = of_path(workdir, "reference", path)
        origin: dict[str, Json] = {"source": examples.name, "split": "all", "count": len(examples)}
        return _compared(extractor, protocol, examples, section, "all"), origin
    what = {"data": as_tree(workdir.config.data), "split": section.split, "kept": section.keep_features}
    kept = workdir.path / "results" / f"reference-{fingerprint(protocol=asdict(protocol), **what)}.npz"
    if kept.is_file():
        return load_reference(kept, protocol)
    examples = of_split(workdir, section.split)
    reference = _compared(extractor, protocol, examples, section, section.split)
    origin = about(examples, section.split)
    if is_chief() and writable(kept):
        save_reference(kept, reference, protocol, origin)
    return reference, {**origin, "count": len(examples)}


def _compared(
    extractor: Extractor, protocol: Protocol, examples: Examples, section: Evaluate, split: str
) -> Reference:
    own = extractor.protocol(examples.shape, examples.dtype)
    check_comparable(own, f"the reference {examples.name} ({split})", protocol, "the samples")
    return gather_features(extractor, examples, section)


def _is_statistics(path: Path) -> bool:
    return path.suffix == ".npz" and path.is_file() and "mu" in array_names(path)
