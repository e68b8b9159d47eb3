"""``--mode=stats``."""

from dataclasses import asdict

from score_sde.evaluate.reference import save_reference
from score_sde.flags import Options
from score_sde.modes.run import output_of, workdir_of
from score_sde.runs.extractors import make_extractor
from score_sde.runs.references import about, gather_features, of_path, of_split
from score_sde.runtime.processes import is_chief, say


def stats(options: Options) -> int:
    """Reference statistics of a split of the data, or of anyone's pictures, with the protocol behind them."""
    workdir, section = workdir_of(options), options.config.evaluate
    extractor = make_extractor(options.config, options.workdir)
    default = f"stats_{extractor.name}_{section.split}.npz"
    output = output_of(options, default, "statistics are a .npz", ".npz")
    given = options.samples
    examples = of_split(workdir, section.split) if given is None else of_path(workdir, "samples", given)
    reference = gather_features(extractor, examples, section)
    protocol = extractor.protocol(examples.shape, examples.dtype)
    if is_chief():
        split = section.split if given is None else "all"
        save_reference(output, reference, protocol, about(examples, split))
    say(
        f"statistics of {len(examples)} examples of {examples.name}, "
        f"{len(reference.gaussian.mean)} features, in {output}: {asdict(protocol)}"
    )
    return 0
