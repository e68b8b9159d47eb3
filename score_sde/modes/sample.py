"""``--mode=sample``."""

from score_sde.flags import Options
from score_sde.modes.run import chosen_of, examples_path, model_of, seed_of
from score_sde.runs.samples import Request, write_samples
from score_sde.runtime.processes import say


def sample(options: Options) -> int:
    """Draw samples from the averaged parameters of a checkpoint."""
    model = model_of(options)
    output = examples_path(options, model.architecture.spec, "samples")
    count = 64 if options.num_samples is None else options.num_samples
    # What is wrong with the sampler is said before anything is drawn.
    chosen = chosen_of(options, model.sampler.conditions)
    write_samples(Request(model, chosen, count, seed_of(options)), output)
    say(f"{count} samples in {output}")
    return 0
