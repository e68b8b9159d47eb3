"""``--mode=stats``: reference statistics of a split of the data, or of anyone's pictures."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from score_sde.evaluate import Reference
from score_sde.evaluate.extractors import Extractor
from score_sde.evaluate.reference import gather, save_reference
from score_sde.experiment.assemble import data_name, open_source
from score_sde.flags import Options
from score_sde.modes.examples import Examples, open_path
from score_sde.modes.weights import make_extractor
from score_sde.modes.workdir import is_chief, say
from score_sde.names import ConfigError
from score_sde.runtime.progress import Progress


def stats(options: Options) -> int:
    """Write the moments and features of the reference examples, with the protocol that made them."""
    extractor, config = make_extractor(options), options.config.evaluate
    if options.samples is not None:
        examples = open_path("samples", options.samples, options.config.data, channels_of(options))
    else:
        examples = of_split(options, config.split)
    default = options.workdir / f"stats_{extractor.name}_{config.split}.npz"
    output = default if options.output is None else Path(options.output)
    if output.suffix != ".npz":
        raise ConfigError(f"--output={output}: statistics are a .npz")
    reference = measure(options, extractor, examples)
    protocol = extractor.protocol(examples.shape, examples.dtype)
    if is_chief():
        save_reference(output, reference, protocol, about(options, examples))
    say(
        f"statistics of {len(examples)} examples of {examples.name}, "
        f"{len(reference.gaussian.mean)} features, in {output}: {asdict(protocol)}"
    )
    return 0


def measure(options: Options, extractor: Extractor, examples: Examples) -> Reference:
    """Stream the examples through the extractor."""
    extractor.protocol(examples.shape, examples.dtype)  # refuses before any work
    config = options.config.evaluate
    with Progress(len(examples), "reference", "example", quiet=not is_chief()) as progress:

        def parts() -> Any:
            for batch in examples.shuffled(config.batch_size):
                yield extractor(batch)
                progress.update(progress.done + len(batch))

        return gather(parts(), config.keep_features)


def about(options: Options, examples: Examples) -> dict[str, Any]:
    """What a statistics file says beside its protocol."""
    return {
        "source": examples.name,
        "split": "all" if options.samples is not None else options.config.evaluate.split,
        "example_shape": list(examples.shape),
    }


def of_split(options: Options, split: str) -> Examples:
    """The ``train`` or ``test`` split of the configured data."""
    return Examples(open_source(options.config, split), f"{data_name(options.config)} ({split})")


def channels_of(options: Options) -> int:
    """Channels that files are converted to: those of the trained model's data, or of the config, or 3."""
    shape = options.saved.get("spec", {}).get("shape")
    if shape is not None and len(shape) == 3:
        return int(shape[-1])
    return options.config.data.source.options.get("channels") or 3
